// SPDX-License-Identifier: Apache-2.0
// A COW image as rows of the model.
#pragma once

#include <memory>
#include <string>

#include "formats/cow/image.h"
#include "model/rows.h"

namespace imgfsck::cow {

// `image` stays owned by the rows.
std::unique_ptr<ImageRows> MakeRows(std::unique_ptr<Image> image, std::string path);

}  // namespace imgfsck::cow

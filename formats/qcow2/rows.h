// SPDX-License-Identifier: Apache-2.0
// A parsed qcow2 image as rows of the SQL model.
#pragma once

#include <memory>
#include <string>

#include "formats/qcow2/image.h"
#include "model/rows.h"

namespace imgfsck::qcow2 {

std::unique_ptr<ImageRows> MakeRows(std::shared_ptr<const Image> image, std::string path);

}  // namespace imgfsck::qcow2

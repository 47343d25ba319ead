// SPDX-License-Identifier: Apache-2.0
// Every decoded field of a qcow2 image, with its place, its bytes and its meaning in words.
#pragma once

#include <vector>

#include "formats/qcow2/image.h"
#include "model/rows.h"

namespace imgfsck::qcow2 {

std::vector<FieldRow> MakeFields(const Image& image);

}  // namespace imgfsck::qcow2

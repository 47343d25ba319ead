// SPDX-License-Identifier: Apache-2.0
// The decoded fields of a VHD's structures, in words: rows of the table `field`.
#pragma once

#include <vector>

#include "formats/vhd/image.h"
#include "model/rows.h"

namespace imgfsck::vhd {

std::vector<FieldRow> FieldsOf(const Image& image);

}  // namespace imgfsck::vhd

// SPDX-License-Identifier: Apache-2.0
// The lenient way in: probing, and a VHD as rows of the SQL model.
#pragma once

#include <memory>
#include <string>

#include "formats/format.h"
#include "formats/vhd/image.h"

namespace imgfsck::vhd {

std::unique_ptr<ImageRows> MakeRows(std::shared_ptr<const Image> image, std::string path);

ProbeScore Probe(const ByteSource& source);
Result<std::unique_ptr<ImageRows>> Inspect(const ByteSource& source, const std::string& path);

}  // namespace imgfsck::vhd

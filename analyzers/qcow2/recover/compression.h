// SPDX-License-Identifier: Apache-2.0
// Which compression the streams of an image decode as, when its header does not say.
#pragma once

#include <optional>

#include "formats/qcow2/image.h"

namespace imgfsck::qcow2 {

// Nothing where there is no compressed cluster, or none that decodes.
std::optional<CompressionType> ProbeCompression(const Image& image);

}  // namespace imgfsck::qcow2

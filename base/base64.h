// SPDX-License-Identifier: Apache-2.0
// Base 64 (RFC 4648, with padding), strict: what Decode takes is what Encode gives.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"

namespace imgfsck {

std::string Base64Encode(Bytes bytes);
bool Base64Decode(std::string_view text, ByteVector* bytes);

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
// Files that are named as disk images and hold none: what is left of a disk that was encrypted for
// ransom, wiped, or cut off. Of no image a name says anything; here it says what was there once.
#pragma once

#include <optional>
#include <string_view>

#include "io/byte_source.h"
#include "triage/reasons.h"

namespace imgfsck {

enum class NamedAs : uint8_t {
  kNothing,
  kContainer,  // "disk.qcow2": whatever it holds begins with a header
  kRaw,        // "disk.img": it may hold anything
  kOnce,       // "disk.qcow2.locked": a name was added to that of an image
};
NamedAs ExpectedByName(std::string_view path);

// Why a file without a known format should be looked at; nothing: no need to.
std::optional<Reason> MissingImage(const ByteSource& file, std::string_view path);

}  // namespace imgfsck

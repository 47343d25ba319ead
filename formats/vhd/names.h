// SPDX-License-Identifier: Apache-2.0
// The texts of a VHD: parent names in UTF-16, locators as Windows paths or file URLs, dates. What
// comes out is untrusted and passes through Printable() before it reaches a terminal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "formats/vhd/layout.h"

namespace imgfsck::vhd {

enum class ByteOrder { kLittle, kBig };

// `valid` is false for an odd length, an unpaired surrogate or a NUL before the end; the text is
// what can be made of it, with U+FFFD for the rest. Padding NULs at the end are dropped.
struct DecodedText {
  std::string utf8;
  bool valid = true;
};
DecodedText DecodeUtf16(Bytes bytes, ByteOrder order);
ByteVector EncodeUtf16(std::string_view utf8, ByteOrder order);

// A locator's payload by its code: UTF-16LE (W2ru, W2ku), UTF-8 URL (MacX), 8-bit (Wi2r, Wi2k).
// A Mac alias and unknown codes are opaque: empty and valid.
DecodedText DecodeLocator(uint32_t code, Bytes payload);
// The path for this host that a decoded locator stands for: "\" becomes "/", a drive letter and
// file:// go away, %XX is decoded. Empty for what is no path.
std::string LocatorPath(uint32_t code, std::string_view decoded);
// The other way round: the payload that stands for `path` (relative to the child, or absolute).
ByteVector EncodeLocator(uint32_t code, std::string_view path);
bool IsKnownLocator(uint32_t code);

std::string_view Basename(std::string_view path);  // after the last "/" or "\"

std::string DateText(uint32_t timestamp);  // "2016-02-17T09:36:27Z"
std::string UuidText(Bytes id);            // bytes in file order

}  // namespace imgfsck::vhd

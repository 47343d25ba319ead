// SPDX-License-Identifier: Apache-2.0
// Text for people and machines. Whatever comes from an image passes through Printable() before it
// reaches a terminal: no control byte, no escape sequence, no invalid UTF-8 gets out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace imgfsck {

// Control characters, bidi overrides and invalid UTF-8 become \xNN; the rest stays.
std::string Printable(std::string_view untrusted);

// The same, cut after about `most` bytes of output, "..." standing for the rest.
std::string PrintableStart(std::string_view untrusted, size_t most = 80);

// Invalid UTF-8 becomes U+FFFD; nothing else changes (JSON, SQL and HTML escape later).
std::string ValidUtf8(std::string_view untrusted);

// Length of the valid UTF-8 sequence at the start of `text`, which is not empty, and its code
// point; 0 when there is none.
size_t DecodeUtf8(std::string_view text, uint32_t* code_point);
// False for what moves the cursor, hides or reorders text.
bool IsHarmless(uint32_t code_point);

std::string Hex(uint64_t value);        // 0x1f000
std::string HumanSize(uint64_t bytes);  // "512 B", "1.5 GiB"

// "10", "64K", "1.5G", "0x200": bytes. Nothing for text that is not a size, or does not fit.
std::optional<uint64_t> ParseSize(std::string_view text);

}  // namespace imgfsck

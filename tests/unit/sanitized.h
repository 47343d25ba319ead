// SPDX-License-Identifier: Apache-2.0
// Whether this build has the address sanitizer, under which tests take five times as long and so
// repeat less.
#pragma once

namespace imgfsck {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
inline constexpr bool kSanitized = __has_feature(address_sanitizer);
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
// What every fallible call returns. An Error says that the tool could not do something; what is
// wrong with an image is never an Error but a finding (model/findings.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace imgfsck {

enum class ErrorCode {
  kIo,           // the medium failed (EIO and the like)
  kNoSpace,      // ENOSPC, EDQUOT, EFBIG
  kNotFound,     // no such file or entry
  kPermission,   // EACCES, EPERM, EROFS
  kExists,       // an output that must not be overwritten
  kUnsupported,  // a feature this build or format does not have
  kInvalid,      // a request that makes no sense, or bytes that cannot be read as what they claim
  kLocked,       // another process holds the image
  kTooLarge,     // beyond a stated bound
  kOutOfMemory,
  kInterrupted,  // a signal asked to stop
  kNeedsKey,     // encrypted, and no passphrase was given (or a wrong one)
  kConflict,     // the file is not what a record (undo, plan) says it was
};

struct Error {
  ErrorCode code = ErrorCode::kInvalid;
  std::string message;             // a sentence without trailing full stop, fit for a user
  std::optional<uint64_t> offset;  // host byte offset concerned, where there is one
};

// tl::expected under a type that the compiler refuses to let anybody drop.
template <class T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
  Result(Error error)
      : tl::expected<T, Error>(tl::unexpected<Error>(std::move(error))) {}  // NOLINT
};

using Status = Result<void>;
inline Status Ok() { return {}; }

// The error for errno `os_error` of `what` ("open /x", "read at 512").
Error ErrorFromErrno(int os_error, const std::string& what,
                     std::optional<uint64_t> offset = std::nullopt);

// Ends the program: a broken promise inside our own code, never something an image can cause.
[[noreturn]] void CheckFailed(const char* file, int line, const char* expression);

}  // namespace imgfsck

#define IMG_CHECK(expression) \
  ((expression) ? static_cast<void>(0) : ::imgfsck::CheckFailed(__FILE__, __LINE__, #expression))

#define IMG_CONCAT_INNER(a, b) a##b
#define IMG_CONCAT(a, b) IMG_CONCAT_INNER(a, b)

// Passes an error on to the caller.
#define IMG_RETURN_IF_ERROR(expression) \
  IMG_RETURN_IF_ERROR_INNER(IMG_CONCAT(img_status_, __COUNTER__), expression)
#define IMG_RETURN_IF_ERROR_INNER(temporary, expression)     \
  do {                                                       \
    if (auto temporary = (expression); !temporary) {         \
      return ::imgfsck::Error(std::move(temporary).error()); \
    }                                                        \
  } while (false)

// IMG_ASSIGN_OR_RETURN(auto x, F()): x becomes F()'s value, or its error is passed on.
#define IMG_ASSIGN_OR_RETURN(declaration, expression) \
  IMG_ASSIGN_OR_RETURN_INNER(IMG_CONCAT(img_result_, __COUNTER__), declaration, expression)
#define IMG_ASSIGN_OR_RETURN_INNER(temporary, declaration, expression)   \
  auto temporary = (expression);                                         \
  if (!temporary) return ::imgfsck::Error(std::move(temporary).error()); \
  declaration = std::move(*temporary)

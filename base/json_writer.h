// SPDX-License-Identifier: Apache-2.0
// Writes JSON as it comes, without a tree. The caller nests properly; commas are put here. Strings
// may be any bytes: invalid UTF-8 becomes U+FFFD, and whatever could act on a terminal is escaped.
#pragma once

#include <concepts>
#include <optional>
#include <string_view>

#include "base/text_writer.h"

namespace imgfsck {

class JsonWriter {
 public:
  explicit JsonWriter(TextWriter& out) : out_(out) {}

  void BeginObject() { Open('{'); }
  void EndObject() { Close('}'); }
  void BeginArray() { Open('['); }
  void EndArray() { Close(']'); }
  void Key(std::string_view name) {
    Separate();
    Quote(name);
    out_.Put(": ");
    first_ = true;
  }

  void Value(std::string_view text) { Separate(), Quote(text); }
  void Value(const char* text) { Value(std::string_view(text)); }
  void Value(bool value) { Separate(), out_.Put(value ? "true" : "false"); }
  template <std::unsigned_integral T>
  void Value(T value) {
    Separate(), out_.PutNumber(value);
  }
  template <std::signed_integral T>
  void Value(T value) {
    Separate(), out_.PutSigned(value);
  }
  void Value(double value);  // null when not finite
  template <class T>
  void Value(const std::optional<T>& value) {
    value ? Value(*value) : Null();
  }
  void Null() { Separate(), out_.Put("null"); }

  template <class T>
  void Member(std::string_view name, const T& value) {
    Key(name);
    Value(value);
  }

 private:
  void Separate() {
    if (!first_) out_.Put(", ");
    first_ = false;
  }
  void Open(char bracket) {
    Separate();
    out_.Put(bracket);
    first_ = true;
  }
  void Close(char bracket) {
    out_.Put(bracket);
    first_ = false;
  }
  void Quote(std::string_view text);
  void Escape(uint32_t code_point);

  TextWriter& out_;
  bool first_ = true;
};

}  // namespace imgfsck

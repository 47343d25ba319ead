// SPDX-License-Identifier: Apache-2.0
// Plain data through a pipe between processes of one program. A type says once, in a function
// Fields(archive, value), what it consists of; Packer writes it, Unpacker reads it. What arrives
// may come from a process that a hostile image has taken over: lengths are checked against what is
// there, and after the first wrong byte everything reads as empty and ok() is false.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace imgfsck {

template <class T>
concept ArchiveNumber = std::integral<T> || std::is_enum_v<T>;

class Packer {
 public:
  static constexpr bool kReads = false;

  template <class... T>
  void operator()(T&... values) {
    (Put(values), ...);
  }
  // An enum from 0 to `last`; anything else is refused when it is read.
  template <class E>
  void Choice(E& value, E) {
    Put(value);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  template <ArchiveNumber T>
  void Put(T value) {
    char raw[8];
    const auto number = static_cast<uint64_t>(value);
    StoreLe(reinterpret_cast<uint8_t*>(raw), number);
    bytes_.append(raw, sizeof raw);
  }
  void Put(double value) { Put(std::bit_cast<uint64_t>(value)); }
  void Put(std::string& text) {
    Put(text.size());
    bytes_ += text;
  }
  void Put(ByteVector& raw) {
    Put(raw.size());
    bytes_.append(AsText(raw));
  }
  template <class T>
  void Put(std::vector<T>& list) {
    Put(list.size());
    for (T& each : list) Put(each);
  }
  template <class T, size_t N>
  void Put(std::array<T, N>& list) {
    for (T& each : list) Put(each);
  }
  template <class T>
  void Put(std::optional<T>& value) {
    Put(value.has_value());
    if (value) Put(*value);
  }
  template <class K, class V>
  void Put(std::map<K, V>& map) {
    Put(map.size());
    for (auto& [key, value] : map) {
      K copy = key;
      Put(copy);
      Put(value);
    }
  }
  template <class T>
  requires(!ArchiveNumber<T>) void Put(T& value) { Fields(*this, value); }

  std::string bytes_;
};

class Unpacker {
 public:
  static constexpr bool kReads = true;

  explicit Unpacker(std::string_view bytes) : rest_(bytes) {}

  template <class... T>
  void operator()(T&... values) {
    (Get(values), ...);
  }
  template <class E>
  void Choice(E& value, E last) {
    const uint64_t number = Number();
    if (number > static_cast<uint64_t>(last)) return Fail();
    value = static_cast<E>(number);
  }
  void Fail() {
    ok_ = false;
    rest_ = {};
  }
  bool ok() const { return ok_; }
  bool complete() const { return ok_ && rest_.empty(); }

 private:
  uint64_t Number() {
    if (rest_.size() < 8) {
      Fail();
      return 0;
    }
    const auto number = LoadLe<uint64_t>(reinterpret_cast<const uint8_t*>(rest_.data()));
    rest_.remove_prefix(8);
    return number;
  }
  // How many things follow, each of at least `least` bytes.
  size_t Count(size_t least) {
    const uint64_t count = Number();
    if (count <= rest_.size() / least) return count;
    Fail();
    return 0;
  }
  template <ArchiveNumber T>
  void Get(T& value) {
    value = static_cast<T>(Number());
  }
  void Get(bool& value) { value = Number() != 0; }
  void Get(double& value) { value = std::bit_cast<double>(Number()); }
  void Get(std::string& text) {
    const size_t size = Count(1);
    text.assign(rest_.substr(0, size));
    rest_.remove_prefix(size);
  }
  void Get(ByteVector& raw) {
    const size_t size = Count(1);
    const Bytes bytes = AsBytes(rest_.substr(0, size));
    raw.assign(bytes.begin(), bytes.end());
    rest_.remove_prefix(size);
  }
  template <class T>
  void Get(std::vector<T>& list) {
    const size_t count = Count(8);  // nothing takes less room than a number
    list.clear();
    for (size_t i = 0; i < count && ok_; ++i) Get(list.emplace_back());
    if (!ok_) list.clear();
  }
  template <class T, size_t N>
  void Get(std::array<T, N>& list) {
    for (T& each : list) Get(each);
  }
  template <class T>
  void Get(std::optional<T>& value) {
    bool there = false;
    Get(there);
    value.reset();
    if (there && ok_) Get(value.emplace());
  }
  template <class K, class V>
  void Get(std::map<K, V>& map) {
    const size_t count = Count(16);
    map.clear();
    for (size_t i = 0; i < count && ok_; ++i) {
      K key{};
      Get(key);
      Get(map[std::move(key)]);
    }
  }
  template <class T>
  requires(!ArchiveNumber<T>) void Get(T& value) { Fields(*this, value); }

  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace imgfsck

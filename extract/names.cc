// SPDX-License-Identifier: Apache-2.0
#include "extract/names.h"

#include <algorithm>

#include "analyzers/common/linked_file.h"

namespace imgfsck {
namespace {

// Counting in these, names begin with xxxx.
constexpr std::string_view kDigits = "x0123456789abcdefghijklmnopqrstuvwyz";

bool IsSeparator(char16_t unit) { return unit == u'/' || unit == u'\\'; }

bool Stays(const std::u16string& component) {
  return component == u"." || component == u".." || component.ends_with(u':');
}

std::u16string Widen(std::string_view text) {
  std::u16string wide;
  for (char c : text) wide.push_back(static_cast<unsigned char>(c));
  return wide;
}

std::string Narrow(const std::u16string& wide) {
  std::string text;
  for (char16_t unit : wide) text.push_back(static_cast<char>(unit));
  return text;
}

}  // namespace

std::u16string Pseudonyms::Name(const std::u16string& name) {
  if (name.empty()) return name;
  auto [known, fresh] = known_.try_emplace(name);
  if (!fresh) return known->second;
  uint64_t number = used_[name.size()]++;
  std::u16string other(name.size(), u'x');
  for (size_t i = name.size(); i-- > 0;) {
    if (name[i] == 0) {
      other[i] = 0;
      continue;
    }
    other[i] = static_cast<unsigned char>(kDigits[number % kDigits.size()]);
    number /= kDigits.size();
  }
  return known->second = other;
}

std::string Pseudonyms::Name(std::string_view name) { return Narrow(Name(Widen(name))); }

std::u16string Pseudonyms::Path(const std::u16string& path) {
  std::u16string out;
  for (size_t begin = 0; begin <= path.size();) {
    size_t end = begin;
    while (end < path.size() && !IsSeparator(path[end])) ++end;
    std::u16string component = path.substr(begin, end - begin);
    size_t colon = component.find(u':');
    if (Stays(component)) {
      out += component;
    } else if (out.empty() && colon != std::u16string::npos) {
      out += component.substr(0, colon + 1) + Name(component.substr(colon + 1));
    } else {
      out += Name(component);
    }
    if (end < path.size()) out.push_back(path[end]);
    begin = end + 1;
  }
  return out;
}

std::string Pseudonyms::Path(std::string_view path, bool found) {
  if (!found) return Narrow(Path(Widen(path)));
  return StandInName(path.size(), path.starts_with('/'));
}

ByteVector WithoutText(Bytes bytes, bool all) {
  constexpr size_t kShortest = 4;
  ByteVector out(bytes.begin(), bytes.end());
  for (size_t begin = 0; begin < out.size();) {
    size_t end = begin;
    while (end < out.size() && out[end] >= 0x20 && out[end] < 0x7F) ++end;
    if (end - begin >= kShortest)
      std::fill(out.begin() + static_cast<ptrdiff_t>(begin),
                out.begin() + static_cast<ptrdiff_t>(end), uint8_t{'x'});
    begin = std::max(end, begin + 1);
  }
  if (all) {
    for (uint8_t& byte : out) byte = byte == 0 ? uint8_t{0} : uint8_t{'x'};
  }
  return out;
}

}  // namespace imgfsck

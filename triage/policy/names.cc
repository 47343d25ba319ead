// SPDX-License-Identifier: Apache-2.0
#include "triage/policy/names.h"

#include <algorithm>
#include <cctype>
#include <string>

#include "base/text.h"

namespace imgfsck {
namespace {

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// "C:": a drive of Windows, not a protocol.
bool HasDrive(std::string_view name) {
  return name.size() >= 2 && IsLetter(name[0]) && name[1] == ':';
}

// What stands before a colon that no slash precedes: "json", "nbd", "https" …
std::string_view SchemeOf(std::string_view name) {
  const size_t colon = name.find(':'), slash = name.find_first_of("/\\");
  if (colon == std::string_view::npos || HasDrive(name)) return {};
  return slash < colon ? std::string_view() : name.substr(0, colon);
}

bool HidesSomething(std::string_view name) {
  while (!name.empty()) {
    uint32_t code_point = 0;
    const size_t length = DecodeUtf8(name, &code_point);
    if (length == 0 || !IsHarmless(code_point)) return true;
    name.remove_prefix(length);
  }
  return false;
}

// With forward slashes, in lower case, without "." and empty components.
std::vector<std::string> Components(std::string_view name) {
  std::vector<std::string> components;
  std::string current;
  auto end = [&] {
    if (!current.empty() && current != ".") components.push_back(current);
    current.clear();
  };
  for (char c : name) {
    if (c == '/' || c == '\\') {
      end();
    } else {
      current += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  end();
  return components;
}

// The first folder of the path once ".." is carried out: /tmp/../dev/sda leads into /dev.
bool LeadsToADevice(std::string_view name) {
  if (name.starts_with("\\\\.\\") || name.starts_with("\\\\?\\") || name.starts_with("//./")) {
    return true;
  }
  std::vector<std::string> path;
  for (const std::string& component : Components(name)) {
    if (component != "..") {
      path.push_back(component);
    } else if (!path.empty()) {
      path.pop_back();
    }
  }
  const bool absolute = name.starts_with('/');
  const bool climbs = name.find("..") != std::string_view::npos;
  if (path.empty() || !(absolute || climbs)) return false;
  return path[0] == "dev" || path[0] == "proc" || path[0] == "sys";
}

}  // namespace

std::vector<ReasonCode> JudgeName(std::string_view name) {
  std::vector<ReasonCode> codes;
  // QEMU takes "file:" off; what follows is the name.
  while (name.starts_with("file:")) name.remove_prefix(5);
  if (!SchemeOf(name).empty()) codes.push_back(ReasonCode::kRefPseudo);
  if (LeadsToADevice(name)) {
    codes.push_back(ReasonCode::kRefDevice);
  } else if (name.starts_with("\\\\") || (name.starts_with("//") && !name.starts_with("///"))) {
    codes.push_back(ReasonCode::kRefNetwork);
  }
  const std::vector<std::string> components = Components(name);
  const bool leaves = std::ranges::find(components, "..") != components.end();
  const bool absolute = name.starts_with('/') || name.starts_with('\\') || HasDrive(name);
  if (absolute || leaves || HidesSomething(name)) codes.push_back(ReasonCode::kRefAbsolute);
  return codes;
}

}  // namespace imgfsck

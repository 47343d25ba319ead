// SPDX-License-Identifier: Apache-2.0
// VMDK: the descriptor, text inside the image or a file of its own, which names the files that the
// disk consists of. Only a descriptor that names nothing but the image itself passes; whatever is
// not understood does not. The tables of a VMDK are not examined.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

#include "base/checked.h"
#include "triage/policy/collector.h"
#include "triage/policy/names.h"

namespace imgfsck {
namespace {

constexpr uint64_t kMostText = kMiB;          // of a descriptor, as QEMU has it
constexpr uint64_t kHeaderLength = 79;        // of a sparse extent
constexpr uint64_t kTableAtEnd = UINT64_MAX;  // the grain directory's place is in the footer

struct SparseHeader {
  uint32_t version = 0;
  uint64_t descriptor_sector = 0, descriptor_sectors = 0, directory_sector = 0;
};

std::optional<SparseHeader> ReadHeader(const ByteSource& file, uint64_t offset) {
  std::array<uint8_t, kHeaderLength> bytes{};
  if (!ReadExact(file, offset, bytes) || AsText(bytes).substr(0, 4) != "KDMV") return std::nullopt;
  return SparseHeader{LeAt<uint32_t>(bytes, 4), LeAt<uint64_t>(bytes, 28),
                      LeAt<uint64_t>(bytes, 36), LeAt<uint64_t>(bytes, 56)};
}

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

std::string_view Unquote(std::string_view text) {
  text = Trim(text);
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') {
    return text.substr(1, text.size() - 2);
  }
  return text;
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

class Descriptor {
 public:
  Descriptor(uint64_t offset, std::string_view text, bool embedded, ReasonCollector& out)
      : offset_(offset), text_(text), embedded_(embedded), out_(out) {}

  void Judge() {
    for (size_t at = 0; at < text_.size();) {
      const size_t end = std::min(text_.find('\n', at), text_.size());
      Line(at, text_.substr(at, end - at));
      at = end + 1;
    }
    const std::string type = Lower(type_);
    if (type != "monolithicsparse" && type != "streamoptimized") {
      out_.AddAt(ReasonCode::kRefDescriptor, offset_, std::min<uint64_t>(text_.size(), kSector),
                 type.empty() ? "no createType" : "createType " + std::string(type_));
    } else if (!embedded_) {
      out_.AddAt(ReasonCode::kRefDescriptor, offset_, std::min<uint64_t>(text_.size(), kSector),
                 "a descriptor without its disk");
    }
    if (extents_ != 1) {
      out_.AddAt(ReasonCode::kRefExtent, offset_, std::min<uint64_t>(text_.size(), kSector),
                 fmt::format("{} extents", extents_));
    }
  }

 private:
  void Add(ReasonCode code, size_t at, std::string_view line) {
    out_.AddAt(code, offset_ + at, line.size(), std::string(line));
  }

  void Line(size_t at, std::string_view raw) {
    const std::string_view line = Trim(raw);
    if (line.empty() || line.starts_with('#')) return;
    const bool odd =
        std::ranges::any_of(line, [](char c) { return (c < ' ' && c != '\t') || c > '~'; });
    if (odd) return Add(ReasonCode::kRefDescriptor, at, raw);
    if (IsExtent(line)) return Extent(at, line);
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) return Add(ReasonCode::kRefDescriptor, at, raw);
    const std::string key = Lower(Trim(line.substr(0, equals)));
    const std::string_view value = Unquote(line.substr(equals + 1));
    if (key == "createtype") {
      // Readers differ in which of two they believe.
      if (!type_.empty()) Add(ReasonCode::kRefDescriptor, at, raw);
      type_ = value;
    }
    if (key == "parentcid" && Lower(value) != "ffffffff") Add(ReasonCode::kRefParent, at, raw);
    if (key == "parentfilenamehint") {
      out_.AddName(ReasonCode::kRefParent, value, offset_ + at, raw.size());
    }
  }

  static bool IsExtent(std::string_view line) {
    const std::string lower = Lower(line);
    return lower.starts_with("rw ") || lower.starts_with("rdonly ") ||
           lower.starts_with("noaccess ") || lower.starts_with("rw\t");
  }

  // "RW 131072 SPARSE "name.vmdk"": access, sectors, kind, and the file in quotation marks.
  void Extent(size_t at, std::string_view line) {
    ++extents_;
    const size_t quote = line.find('"');
    const std::string lower = Lower(line);
    const bool sparse = lower.find(" sparse ") != std::string::npos && embedded_;
    if (quote == std::string_view::npos) return Add(ReasonCode::kRefExtent, at, line);
    const size_t end = line.find('"', quote + 1);
    const std::string_view name =
        line.substr(quote + 1, end == std::string_view::npos ? end : end - quote - 1);
    const auto against = JudgeName(name);
    const bool plain = name.find_first_of("/\\") == std::string_view::npos && !name.empty();
    if (!sparse || !plain || !against.empty()) Add(ReasonCode::kRefExtent, at, line);
    for (ReasonCode code : against) Add(code, at, line);
  }

  uint64_t offset_;
  std::string_view text_;
  bool embedded_;
  ReasonCollector& out_;
  std::string_view type_;
  uint64_t extents_ = 0;
};

// A stream-optimised image has its header again at the end; readers go by either.
void JudgeFooter(const SparseHeader& header, ReasonCollector& out) {
  if (header.directory_sector != kTableAtEnd) return;
  const uint64_t size = out.file().Size();
  const uint64_t at = size < 3 * kSector ? 0 : size - 2 * kSector;
  const auto footer = at == 0 ? std::nullopt : ReadHeader(out.file(), at);
  if (!footer) return out.AddAt(ReasonCode::kBrokenHeader, 56, 8, "its footer is missing");
  if (footer->version != header.version || footer->directory_sector == kTableAtEnd ||
      footer->descriptor_sector != header.descriptor_sector ||
      footer->descriptor_sectors != header.descriptor_sectors) {
    out.AddAt(ReasonCode::kPolyglot, at, kHeaderLength, "header and footer differ");
  }
}

}  // namespace

void JudgeVmdk(ReasonCollector& out) {
  const ByteSource& file = out.file();
  const auto header = ReadHeader(file, 0);
  uint64_t offset = 0, length = file.Size();
  if (header) {
    if (header->version < 1 || header->version > 3) {
      out.AddAt(ReasonCode::kFeatureUnknown, 4, 4, fmt::format("version {}", header->version));
    }
    JudgeFooter(*header, out);
    offset = SaturatingMul(header->descriptor_sector, kSector);
    length = SaturatingMul(header->descriptor_sectors, kSector);
    if (offset == 0 || length == 0 || !RangeFits(offset, length, file.Size())) {
      return out.AddAt(ReasonCode::kRefDescriptor, 28, 16, "no descriptor in the file");
    }
  }
  if (length > kMostText) {
    return out.AddAt(ReasonCode::kDosTable, offset, kSector,
                     fmt::format("a descriptor of {} bytes", length));
  }
  ByteVector bytes(length);
  if (!ReadExact(file, offset, bytes)) return out.Add(ReasonCode::kUnreadable, "the descriptor");
  std::string_view text = AsText(bytes);
  text = text.substr(0, text.find('\0'));
  Descriptor(offset, text, header.has_value(), out).Judge();
  out.Add(ReasonCode::kTablesUnchecked);
}

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
// VMDK: the descriptor, text inside the image or a file of its own, which names the files that the
// disk consists of. Only a descriptor that names nothing but the image itself passes; whatever is
// not understood does not. Readers differ in where they look for it and in how: what any of them
// would find counts.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

#include "base/checked.h"
#include "base/text.h"
#include "triage/policy/collector.h"
#include "triage/policy/names.h"
#include "triage/policy/vmdk_header.h"

namespace imgfsck {
namespace {

using std::string_view_literals::operator""sv;

constexpr uint64_t kMostText = kMiB;             // of a descriptor, as QEMU has it
constexpr uint64_t kUsualPlace = kSector;        // QEMU looks for a parent there, whatever
constexpr uint64_t kUsualLength = 20 * kSector;  // the header says

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
  // `header`: that the text was found by, if it stands in a disk.
  Descriptor(uint64_t offset, std::string_view text, const VmdkHeader* header, ReasonCollector& out)
      : offset_(offset), text_(text), header_(header), out_(out) {}

  void Judge() {
    Anywhere();
    for (size_t at = 0; at < text_.size();) {
      const size_t end = std::min(text_.find('\n', at), text_.size());
      Line(at, text_.substr(at, end - at));
      at = end + 1;
    }
    const std::string type = Lower(type_);
    if (type != "monolithicsparse" && type != "streamoptimized") {
      out_.AddAt(ReasonCode::kRefDescriptor, offset_, std::min<uint64_t>(text_.size(), kSector),
                 type.empty() ? "no createType" : "createType " + std::string(type_));
    } else if (header_ == nullptr) {
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

  // Some readers take a key where they find it first, be it in a comment.
  void Anywhere() {
    constexpr std::array<std::string_view, 3> kKeys = {"createtype", "parentcid",
                                                       "parentfilenamehint"};
    const std::string lower = Lower(text_);
    for (size_t end = 0, at = 0; at < lower.size(); at = end + 1) {
      end = std::min(lower.find('\n', at), lower.size());
      const std::string_view line = std::string_view(lower).substr(at, end - at);
      const std::string_view key = Trim(line.substr(0, line.find('=')));
      for (std::string_view hidden : kKeys) {
        if (key == hidden || line.find(hidden) == std::string_view::npos) continue;
        const std::string_view shown = text_.substr(at, end - at);
        Add(ReasonCode::kRefDescriptor, at, shown);
        if (hidden != "createtype") Add(ReasonCode::kRefParent, at, shown);
      }
    }
  }

  static bool IsExtent(std::string_view line) {
    const std::string word = Lower(line.substr(0, line.find_first_of(" \t")));
    return word == "rw" || word == "rdonly" || word == "noaccess";
  }

  // "RW 131072 SPARSE "name.vmdk"": access, sectors, kind, and the file in quotation marks.
  void Extent(size_t at, std::string_view line) {
    ++extents_;
    const size_t quote = line.find('"');
    const std::string lower = Lower(line);
    const bool sparse = lower.find(" sparse ") != std::string::npos && header_ != nullptr;
    if (quote == std::string_view::npos) return Add(ReasonCode::kRefExtent, at, line);
    const size_t end = line.find('"', quote + 1);
    const std::string_view name =
        line.substr(quote + 1, end == std::string_view::npos ? end : end - quote - 1);
    const auto against = JudgeName(name);
    const bool plain = name.find_first_of("/\\") == std::string_view::npos && !name.empty();
    if (!sparse || !plain || !against.empty()) Add(ReasonCode::kRefExtent, at, line);
    for (ReasonCode code : against) Add(code, at, line);
    uint64_t sectors = 0;
    const size_t number = std::min(line.find_first_of("0123456789"), line.size());
    const auto parsed = std::from_chars(line.data() + number, line.data() + line.size(), sectors);
    if (header_ != nullptr && (parsed.ec != std::errc() || sectors != header_->capacity)) {
      out_.AddAt(ReasonCode::kDamaged, offset_ + at, line.size(),
                 fmt::format("the header says {} sectors: {}", header_->capacity, line));
    }
  }

  uint64_t offset_;
  std::string_view text_;
  const VmdkHeader* header_;
  ReasonCollector& out_;
  std::string_view type_;
  uint64_t extents_ = 0;
};

void JudgeDescriptor(uint64_t offset, uint64_t length, const VmdkHeader* header,
                     ReasonCollector& out) {
  ByteVector bytes(length);
  if (!ReadExact(out.file(), offset, bytes)) {
    return out.AddAt(ReasonCode::kUnreadable, offset, length, "the descriptor");
  }
  const std::string_view text = AsText(bytes).substr(0, AsText(bytes).find('\0'));
  const auto behind = std::ranges::find_if(bytes.begin() + static_cast<ptrdiff_t>(text.size()),
                                           bytes.end(), [](uint8_t b) { return b != 0; });
  if (behind != bytes.end()) {
    const auto at = static_cast<uint64_t>(behind - bytes.begin());
    out.AddAt(ReasonCode::kRemnant, offset + at, length - at, "behind the descriptor's end");
  }
  Descriptor(offset, text, header, out).Judge();
}

// What stands where some readers look for a parent, though the descriptor is not there or is
// shorter.
void JudgeUsualPlace(uint64_t offset, uint64_t length, ReasonCollector& out) {
  ByteVector bytes(kUsualLength);
  if (!ReadPadded(out.file(), kUsualPlace, bytes)) return;
  const size_t known = offset == kUsualPlace ? std::min(length, kUsualLength) : 0;
  const std::string text = Lower(AsText(bytes).substr(known));
  const size_t found = text.find("parentfilenamehint");
  if (found == std::string::npos) return;
  const uint64_t at = kUsualPlace + known + found;
  const std::string_view name = AsText(bytes).substr(known + found, kReasonBytes);
  out.AddAt(ReasonCode::kRefParent, at, kReasonBytes,
            std::string(name.substr(0, name.find_first_of("\r\n\0"sv))));
}

bool SameDisk(const VmdkHeader& a, const VmdkHeader& b) {
  return a.version == b.version && a.flags == b.flags && a.capacity == b.capacity &&
         a.grain == b.grain && a.descriptor_sector == b.descriptor_sector &&
         a.descriptor_sectors == b.descriptor_sectors && a.table_entries == b.table_entries &&
         a.compression == b.compression;
}

// A stream-optimised image has its header again at the end; readers go by either. The header that
// says where the tables are, or none.
std::optional<VmdkHeader> HeaderWithTables(const VmdkHeader& header, ReasonCollector& out) {
  if (header.directory != kVmdkTableAtEnd) return header;
  constexpr uint64_t kMarkFooter = 3;
  const uint64_t size = out.file().Size();
  const uint64_t at = size < 4 * kSector ? 0 : size - 2 * kSector;
  auto footer = at == 0 ? std::nullopt : ReadVmdkHeader(out.file(), at);
  if (!footer) {
    out.AddAt(ReasonCode::kBrokenHeader, 56, 8, "its footer is missing");
    return std::nullopt;
  }
  std::array<uint8_t, 3 * kSector> bytes{};
  if (!ReadExact(out.file(), at - kSector, bytes)) return std::nullopt;
  const Bytes marks(bytes);
  if (LeAt<uint32_t>(marks, 8) != 0 || LeAt<uint32_t>(marks, 12) != kMarkFooter) {
    out.AddAt(ReasonCode::kBrokenHeader, at - kSector, 16, "its footer is not marked as one");
  }
  if (!AllZero(marks.subspan(2 * kSector))) {
    out.AddAt(ReasonCode::kBrokenHeader, at + kSector, kSector, "its end is not marked");
  }
  if (!SameDisk(header, *footer) || footer->directory == kVmdkTableAtEnd) {
    out.AddAt(ReasonCode::kPolyglot, at, kVmdkHeaderLength, "header and footer differ");
  }
  if (footer->directory == kVmdkTableAtEnd) return std::nullopt;
  return footer;
}

void JudgeHeader(const VmdkHeader& header, uint64_t most_disk, ReasonCollector& out) {
  constexpr uint32_t kKnown =
      kVmdkLineEnds | kVmdkSecondDirectory | kVmdkZeroGrains | kVmdkCompressed | kVmdkMarkers;
  if (header.version < 1 || header.version > 3) {
    out.AddAt(ReasonCode::kFeatureUnknown, 4, 4, fmt::format("version {}", header.version));
  }
  if ((header.flags & ~kKnown) != 0) {
    out.AddAt(ReasonCode::kFeatureUnknown, 8, 4, fmt::format("flags {}", Hex(header.flags)));
  }
  if (header.compression > 1 || (header.Flag(kVmdkCompressed) && header.compression != 1)) {
    out.AddAt(ReasonCode::kFeatureUnknown, 77, 2,
              fmt::format("method of compression {}", header.compression));
  }
  if (header.Flag(kVmdkLineEnds) && !header.line_ends_kept) {
    out.AddAt(ReasonCode::kBrokenHeader, 73, 4, "bytes were changed, as by a transfer as text");
  }
  if (header.unclean != 0) out.AddAt(ReasonCode::kTimeBomb, 72, 1, "it was not closed");
  if (header.capacity == 0) {
    out.AddAt(ReasonCode::kRefDescriptor, 12, 8,
              "the header gives no size, so the descriptor's files make up the disk");
  }
  const uint64_t size = SaturatingMul(header.capacity, kSector);
  if (size > most_disk) {
    out.AddAt(ReasonCode::kDosSize, 12, 8,
              fmt::format("{} in a file of {}", HumanSize(size), HumanSize(out.file().Size())));
  }
}

}  // namespace

void JudgeVmdk(uint64_t most_disk, ReasonCollector& out) {
  const ByteSource& file = out.file();
  const auto header = ReadVmdkHeader(file, 0);
  uint64_t offset = 0, length = file.Size(), capacity = 0;
  std::optional<VmdkHeader> tables;
  if (header) {
    JudgeHeader(*header, most_disk, out);
    tables = HeaderWithTables(*header, out);
    capacity = header->capacity;
    offset = SaturatingMul(header->descriptor_sector, kSector);
    length = SaturatingMul(header->descriptor_sectors, kSector);
    JudgeUsualPlace(offset, length, out);
    if (offset == 0 || length == 0 || !RangeFits(offset, length, file.Size())) {
      out.AddAt(ReasonCode::kRefDescriptor, 28, 16, "no descriptor in the file");
      length = 0;
    } else if (offset != kUsualPlace) {
      out.AddAt(ReasonCode::kRefDescriptor, 28, 8, "some readers look elsewhere for a descriptor");
    }
  }
  if (length > kMostText) {
    out.AddAt(ReasonCode::kDosTable, offset, kSector,
              fmt::format("a descriptor of {} bytes", length));
  } else if (length > 0) {
    JudgeDescriptor(offset, length, header ? &*header : nullptr, out);
  }
  if (tables && capacity > 0) JudgeVmdkTables(*tables, out);
}

}  // namespace imgfsck

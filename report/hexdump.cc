// SPDX-License-Identifier: Apache-2.0
#include "report/hexdump.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/interrupt.h"
#include "base/text.h"
#include "report/words.h"

namespace imgfsck {
namespace {

constexpr size_t kLine = 16;

class Hexdump {
 public:
  Hexdump(const ByteSource& source, TextWriter& out)
      : source_(source), out_(out), file_size_(source.Size()), chunk_(TextWriter::kBuffer) {}

  // Lines for [begin, end); the note stands beside the first. Repeated lines without a note are
  // shown as one "*".
  Status Put(uint64_t begin, uint64_t end, const std::string& note) {
    for (uint64_t at = begin; at < end && out_.ok();) {
      IMG_RETURN_IF_ERROR(CheckStop());
      auto want = static_cast<size_t>(std::min<uint64_t>(end - at, chunk_.size()));
      const MutableBytes bytes(chunk_);
      auto read = source_.ReadAt(at, bytes.first(want));
      if (!read && want > kSector) {  // only what really cannot be read is left out
        want = kSector;
        read = source_.ReadAt(at, bytes.first(want));
      }
      if (!read) {
        PutUnreadable(at, want, read.error());
      } else {
        if (*read == 0) return Ok();  // the end of the file
        PutLines(at, Bytes(bytes).first(*read), at == begin ? note : "");
      }
      at += read ? *read : want;
    }
    return Ok();
  }

  uint64_t file_size() const { return file_size_; }

 private:
  void PutUnreadable(uint64_t offset, uint64_t length, const Error& error) {
    out_.Put(fmt::format("{:08x}  cannot be read for {}: {}\n", offset, HumanSize(length),
                         Printable(error.message)));
    last_.clear();
  }

  void PutLines(uint64_t offset, Bytes bytes, const std::string& note) {
    for (size_t at = 0; at < bytes.size(); at += kLine) {
      const Bytes line = bytes.subspan(at, std::min(kLine, bytes.size() - at));
      const bool noted = at == 0 && !note.empty();
      if (!noted && line.size() == kLine && std::ranges::equal(line, last_)) {
        if (!starred_) out_.Put("*\n");
        starred_ = true;
        continue;
      }
      PutLine(offset + at, line, noted ? note : "");
      last_.assign(line.begin(), line.end());
      if (noted || line.size() < kLine) last_.clear();
      starred_ = false;
    }
  }

  void PutLine(uint64_t offset, Bytes line, const std::string& note) {
    std::string hex, text;
    for (size_t i = 0; i < kLine; ++i) {
      if (i == kLine / 2) hex += ' ';
      hex += i < line.size() ? fmt::format("{:02x} ", line[i]) : "   ";
      if (i < line.size())
        text += line[i] >= 0x20 && line[i] < 0x7F ? static_cast<char>(line[i]) : '.';
    }
    std::string out = fmt::format("{:08x}  {} |{}|", offset, hex, text);
    if (!note.empty()) out += std::string(kLine - text.size() + 2, ' ') + note;
    out_.Put(out);
    out_.Put('\n');
  }

  const ByteSource& source_;
  TextWriter& out_;
  uint64_t file_size_;
  ByteVector chunk_, last_;
  bool starred_ = false;
};

std::string NoteOf(const FieldRow& field) {
  std::string note = Printable(field.name);
  if (field.value) note += fmt::format(" = {}", *field.value);
  if (!field.meaning.empty()) {
    note += (field.value ? " (" : " = ") + Printable(field.meaning) + (field.value ? ")" : "");
  }
  return note;
}

}  // namespace

std::vector<StructurePiece> FindStructures(const ImageRows& rows, std::string_view name) {
  std::vector<StructurePiece> found;
  const std::string prefix = std::string(name) + "[";
  for (StructurePiece& piece : rows.Structures()) {
    if (piece.name == name || piece.name.starts_with(prefix)) found.push_back(std::move(piece));
  }
  return found;
}

Status WriteHexdump(const ByteSource& source, const StructurePiece& piece,
                    const std::vector<FieldRow>& fields, TextWriter& out) {
  const uint64_t begin = piece.host.offset.value;
  const uint64_t end = SaturatingAdd(begin, piece.host.length);
  out.Put(fmt::format("{}: {}\n", Printable(piece.name), RangeText(begin, piece.host.length)));
  std::vector<const FieldRow*> inside;
  for (const FieldRow& field : fields) {
    if (field.length > 0 && field.host_offset >= begin && field.host_offset < end) {
      inside.push_back(&field);
    }
  }
  std::stable_sort(inside.begin(), inside.end(), [](const FieldRow* a, const FieldRow* b) {
    return a->host_offset < b->host_offset;
  });
  Hexdump dump(source, out);
  uint64_t at = begin;
  for (const FieldRow* field : inside) {
    if (field->host_offset < at) continue;  // a part of the field before
    IMG_RETURN_IF_ERROR(dump.Put(at, field->host_offset, ""));
    at = std::min(end, SaturatingAdd(field->host_offset, field->length));
    IMG_RETURN_IF_ERROR(dump.Put(field->host_offset, at, NoteOf(*field)));
  }
  IMG_RETURN_IF_ERROR(dump.Put(at, end, ""));
  if (end > dump.file_size()) {
    out.Put(fmt::format("{:08x}  the file ends here, {} before the end of {}\n",
                        std::max(begin, dump.file_size()),
                        HumanSize(end - std::max(begin, dump.file_size())), Printable(piece.name)));
  }
  return out.ok() ? Ok() : out.Finish();
}

}  // namespace imgfsck

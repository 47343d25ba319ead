// SPDX-License-Identifier: Apache-2.0
// Hands over the bytes that nothing refers to, for --orphans dir:PATH: first lost tables and the
// clusters below them, in the order of their entries, then all the rest. Changes nothing.
#include <fmt/format.h>

#include <algorithm>

#include "formats/common/stored.h"
#include "repair/qcow1/editor.h"
#include "repair/qcow1/passes.h"

namespace imgfsck::qcow1 {
namespace {

class Exporter {
 public:
  explicit Exporter(const PassContext& context) : editor_(context) {}

  Result<PassOutcome> Run() {
    for (const Span& span : editor_.state().space.covered()) taken_.Add(span.begin, span.end);
    for (const OrphanTable& orphan : editor_.state().orphans) TakeTable(orphan);
    taken_.Finish();
    uint64_t at = 0;
    for (const Span& span : taken_.covered()) {
      IMG_RETURN_IF_ERROR(TakeGap(at, span.begin));
      at = span.end;
    }
    IMG_RETURN_IF_ERROR(TakeGap(at, editor_.image().file_size));
    auto& pieces = editor_.outcome().pieces;
    uint64_t bytes = 0;
    for (const OrphanPiece& piece : pieces) bytes += piece.host.length;
    editor_.outcome().orphans.kept = pieces.size();
    editor_.Note(fmt::format("{} pieces ({} bytes) that nothing refers to", pieces.size(), bytes));
    return editor_.Finish();
  }

 private:
  void Piece(uint64_t begin, uint64_t length, std::string origin) {
    auto& pieces = editor_.outcome().pieces;
    if (!pieces.empty() && pieces.back().host.end() == begin && pieces.back().origin == origin) {
      pieces.back().host.length += length;
    } else {
      pieces.push_back({MakeHostRange(begin, length), std::nullopt, std::move(origin)});
    }
  }

  void TakeTable(const OrphanTable& orphan) {
    const Image& image = editor_.image();
    const Geometry& g = image.geometry;
    std::vector<uint64_t> entries;
    std::vector<HostRange> bad;
    ReadL2(image, orphan.offset, &entries, &bad);
    Piece(orphan.offset, g.l2_bytes, "lost l2 table");
    taken_.Add(orphan.offset, orphan.offset + g.l2_bytes);
    for (uint64_t raw : entries) {
      Entry entry{raw};
      if (entry.empty() || CheckEntry(image, entry).damaged()) continue;
      uint64_t length = std::min(entry.length(g), image.file_size - entry.offset(g));
      Piece(entry.offset(g), length,
            fmt::format("{} below the lost l2 table at {}",
                        entry.compressed() ? "compressed cluster" : "data", orphan.offset));
      taken_.Add(entry.offset(g), entry.offset(g) + length);
    }
  }

  Status TakeGap(uint64_t begin, uint64_t end) {
    if (begin >= end) return Ok();
    IMG_ASSIGN_OR_RETURN(bool zeros, ReadsAsZeros(editor_.bytes(), begin, end));
    if (!zeros) Piece(begin, end - begin, "unreferenced bytes");
    return Ok();
  }

  Editor editor_;
  RangeUnion taken_;
};

}  // namespace

Result<PassOutcome> ExportOrphans(const PassContext& context) { return Exporter(context).Run(); }

}  // namespace imgfsck::qcow1

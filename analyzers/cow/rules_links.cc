// SPDX-License-Identifier: Apache-2.0
// The backing file, and a header that was written over an older image. Without --chain at most one
// stat(); with it the file is opened read-only, as raw bytes.
#include <fmt/format.h>

#include "analyzers/cow/rules.h"
#include "base/text.h"
#include "chain/gate.h"
#include "formats/format.h"

namespace imgfsck::cow {
namespace {

Finding PathFinding(const Image& image, Problem problem, std::string detail) {
  Finding f = MakeFinding(problem, "header");
  f.host = MakeHostRange(image.header.spec().path_offset, image.header.path.size());
  f.detail = std::move(detail);
  return f;
}

// Of the relation between two files: it stays the same problem when the name moves in the header.
Finding SizeFinding(uint64_t recorded, uint64_t found) {
  Finding f = MakeFinding(Problem::kCowBackingSize, "backing-file");
  f.detail = fmt::format("{} bytes recorded, {} found", recorded, found);
  return f;
}

void JudgeStamp(const Image& image, const LinkedFile& base, Findings* out) {
  const Header& h = image.header;
  if (!base.regular) return;
  if (!h.spec().qemu && base.size != h.size) {
    out->Add(SizeFinding(h.size, base.size));
  }
  // QEMU writes 0 where it could not look; the field has 32 bits nearly everywhere.
  bool recorded = !h.spec().qemu || h.mtime != 0;
  if (recorded && static_cast<uint32_t>(base.mtime_seconds) != static_cast<uint32_t>(h.mtime)) {
    out->Add(PathFinding(image, Problem::kCowBackingMtime,
                         fmt::format("{} recorded, {} found", h.mtime, base.mtime_seconds)));
  }
}

void JudgeContent(const Image& image, const ByteSource& base, Findings* out) {
  const Header& h = image.header;
  const Format* format = ProbeFormat(base);
  bool is_cow = format != nullptr && format->name == "cow";
  if (is_cow && !h.spec().qemu) {
    out->Add(PathFinding(image, Problem::kCowBackingIsCow, Printable(h.path)));
  }
  // QEMU reads an image as an image: its length says nothing about the disk in it.
  if (h.spec().qemu && format == nullptr && base.Size() < image.geometry.virtual_size) {
    out->Add(SizeFinding(image.geometry.virtual_size, base.Size()));
  }
}

}  // namespace

void JudgeLinks(CheckState* state, const CheckOptions& options, Findings* out) {
  const Image& image = *state->image;
  if (image.header.path.empty() || !image.header.path_terminated) return;
  state->base = LookAtLinkedFile(options.path, image.header.path);
  switch (state->base.state) {
    case LinkedFile::State::kNotLooked:
      return;
    case LinkedFile::State::kMissing:
      if (!options.chain) {  // with --chain the chain's own check says so
        out->Add(PathFinding(image, Problem::kCowBackingMissing, Printable(image.header.path)));
      }
      return;
    case LinkedFile::State::kItself:
      if (options.chain) return;
      out->Add(PathFinding(image, Problem::kCowChainCycle, "it names itself"));
      return;
    case LinkedFile::State::kPresent:
      break;
  }
  JudgeStamp(image, state->base, out);
  if (!options.chain || !state->base.regular) return;
  auto opened = OpenNamed(state->base.path);
  if (!opened) return;  // the chain's own check says so
  state->base_bytes = std::move(*opened);
  JudgeContent(image, *state->base_bytes, out);
}

void JudgeUpgrade(CheckState* state, Findings* out) {
  const Image& image = *state->image;
  const Header& h = image.header;
  if (h.spec().version != 3 || !image.walkable) return;
  auto explains = [&](const Geometry& g) {
    return image.file_size >= g.data_end() &&
           image.file_size <= AlignUp(g.data_end(), g.sector_size);
  };
  if (explains(image.geometry)) return;
  for (LayoutId id : {LayoutId::kUml2, LayoutId::kUml2Wide, LayoutId::kUml2Long, LayoutId::kUml1,
                      LayoutId::kUml1Wide}) {
    Header older = h;
    older.layout = id;
    older.version = older.spec().version;
    older.alignment = 0;
    if (!older.geometry().valid || !explains(older.geometry())) continue;
    state->older = older;
    Finding f = MakeFinding(Problem::kCowHeaderUpgradedInPlace, "header");
    f.host = MakeHostRange(0, h.spec().header_length);
    f.detail = fmt::format("the file's length is that of {}", older.spec().name);
    f.confidence = 0.8;
    out->Add(std::move(f));
    return;
  }
}

}  // namespace imgfsck::cow

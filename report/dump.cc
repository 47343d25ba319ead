// SPDX-License-Identifier: Apache-2.0
#include "report/dump.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "base/json_writer.h"
#include "base/text.h"
#include "report/words.h"

namespace imgfsck {
namespace {

constexpr size_t kMostStructures = 40;  // listed in the text

std::string SizeText(uint64_t bytes) {
  return bytes < kKiB ? HumanSize(bytes) : fmt::format("{} ({} bytes)", HumanSize(bytes), bytes);
}

// "2024-05-01 12:00:00 UTC"; numbers no calendar has stay numbers.
std::string DateText(int64_t seconds) {
  constexpr int64_t kYear10000 = 253402300800;
  if (seconds < 0 || seconds >= kYear10000) return std::to_string(seconds);
  return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(static_cast<std::time_t>(seconds)));
}

class DumpText {
 public:
  DumpText(const ImageRows& rows, TextWriter& out) : rows_(rows), out_(out) {}

  Status Write() {
    PutImage();
    PutFields();
    PutSnapshots();
    PutBitmaps();
    PutLinks();
    PutStructures();
    return PutSpace();
  }

 private:
  template <class... Args>
  void Line(fmt::format_string<Args...> format, Args&&... args) {
    out_.Put(fmt::format(format, std::forward<Args>(args)...));
    out_.Put('\n');
  }

  void PutImage() {
    const ImageRow image = rows_.Image();
    Line("{}: {}{}", Printable(image.path), Printable(image.format),
         image.version.empty() ? "" : " (" + Printable(image.version) + ")");
    Line("  guest disk    {}", SizeText(image.virtual_size));
    Line("  file          {}, {} on the host", SizeText(image.file_size),
         HumanSize(image.allocated));
    if (image.cluster_size > 0) Line("  cluster       {}", HumanSize(image.cluster_size));
  }

  void PutFields() {
    std::string structure;
    bool first = true;
    for (const FieldRow& field : rows_.Fields()) {
      if (first || field.structure != structure) {
        Line("\n{}", Printable(field.structure));
        structure = field.structure;
        first = false;
      }
      std::string value = field.value ? std::to_string(*field.value)
                          : field.meaning.empty() && !field.raw.empty() ? "0x" + field.raw
                                                                        : "";
      if (!field.meaning.empty()) {
        value += (value.empty() ? "" : "  ") + Printable(field.meaning);
      }
      Line("  {:#010x} {:>3}  {:<28} {}", field.host_offset, field.length, Printable(field.name),
           value);
    }
  }

  void PutSnapshots() {
    const auto snapshots = rows_.Snapshots();
    if (snapshots.empty()) return;
    Line("\nsnapshots");
    for (const SnapshotRow& s : snapshots) {
      Line("  {} \"{}\", {}, disk of {}, VM state of {}, L1 at {:#x} with {}", Printable(s.id),
           Printable(s.name), DateText(s.date_seconds), HumanSize(s.virtual_size),
           HumanSize(s.vm_state_size), s.l1_offset, Plural(s.l1_entries, "entry", "entries"));
    }
  }

  void PutBitmaps() {
    const auto bitmaps = rows_.Bitmaps();
    if (bitmaps.empty()) return;
    Line("\ndirty bitmaps");
    for (const BitmapRow& b : bitmaps) {
      Line("  \"{}\", a bit for {}, {}{}{}, table at {:#x} with {}", Printable(b.name),
           HumanSize(b.granularity), b.enabled ? "enabled" : "disabled",
           b.in_use ? ", in use (not closed properly)" : "",
           b.consistent ? "" : ", not to be relied on", b.table_offset,
           Plural(b.table_entries, "entry", "entries"));
    }
  }

  void PutLinks() {
    const auto links = rows_.Links();
    if (links.empty()) return;
    Line("\nother files that it names (not opened)");
    for (const LinkRow& link : links) {
      Line("  {:<10} \"{}\"{}, named at {:#x}", Printable(link.kind), Printable(link.name),
           link.format.empty() ? "" : ", format " + Printable(link.format), link.host_offset);
    }
  }

  void PutStructures() {
    const auto pieces = rows_.Structures();
    if (pieces.empty()) return;
    Line("\nstructures (imgdump --hex NAME)");
    for (size_t i = 0; i < pieces.size() && i < kMostStructures; ++i) {
      Line("  {:<24} {}", Printable(pieces[i].name),
           RangeText(pieces[i].host.offset.value, pieces[i].host.length));
    }
    if (pieces.size() > kMostStructures) {
      Line("  and {} more (--json lists them)", pieces.size() - kMostStructures);
    }
  }

  Status PutSpace() {
    IMG_ASSIGN_OR_RETURN(std::vector<SpaceUse> uses, SpaceByKind(rows_));
    if (uses.empty()) return Ok();
    Line("\nspace in the file (what snapshots share counts for each)");
    for (const SpaceUse& use : uses) {
      Line("  {:<18} {:>10}  {}", use.kind, HumanSize(use.bytes),
           Plural(use.ranges, "range", "ranges"));
    }
    return Ok();
  }

  const ImageRows& rows_;
  TextWriter& out_;
};

class DumpJson {
 public:
  DumpJson(const ImageRows& rows, TextWriter& out) : rows_(rows), json_(out) {}

  Status Write() {
    json_.BeginObject();
    const ImageRow image = rows_.Image();
    json_.Member("filename", image.path);
    json_.Member("format", image.format);
    json_.Member("format-version", image.version);
    json_.Member("virtual-size", image.virtual_size);
    json_.Member("file-size", image.file_size);
    json_.Member("cluster-size", image.cluster_size);
    json_.Member("allocated", image.allocated);
    PutFields();
    PutSnapshots();
    PutBitmaps();
    PutLinks();
    PutStructures();
    IMG_RETURN_IF_ERROR(PutSpace());
    json_.EndObject();
    return Ok();
  }

 private:
  void PutFields() {
    Array("fields", rows_.Fields(), [&](const FieldRow& field) {
      json_.Member("structure", field.structure);
      json_.Member("name", field.name);
      json_.Member("host-offset", field.host_offset);
      json_.Member("length", field.length);
      json_.Member("value", field.value);
      json_.Member("raw", field.raw);
      json_.Member("meaning", field.meaning);
    });
  }
  void PutSnapshots() {
    Array("snapshots", rows_.Snapshots(), [&](const SnapshotRow& snapshot) {
      json_.Member("id", snapshot.id);
      json_.Member("name", snapshot.name);
      json_.Member("host-offset", snapshot.host_offset);
      json_.Member("l1-offset", snapshot.l1_offset);
      json_.Member("l1-entries", snapshot.l1_entries);
      json_.Member("virtual-size", snapshot.virtual_size);
      json_.Member("vm-state-size", snapshot.vm_state_size);
      json_.Member("date-seconds", snapshot.date_seconds);
      json_.Member("date-nanoseconds", snapshot.date_nanoseconds);
      json_.Member("vm-clock-nanoseconds", snapshot.vm_clock_nanoseconds);
    });
  }
  void PutBitmaps() {
    Array("bitmaps", rows_.Bitmaps(), [&](const BitmapRow& bitmap) {
      json_.Member("name", bitmap.name);
      json_.Member("host-offset", bitmap.host_offset);
      json_.Member("granularity", bitmap.granularity);
      json_.Member("table-offset", bitmap.table_offset);
      json_.Member("table-entries", bitmap.table_entries);
      json_.Member("in-use", bitmap.in_use);
      json_.Member("enabled", bitmap.enabled);
      json_.Member("consistent", bitmap.consistent);
    });
  }
  void PutLinks() {
    Array("links", rows_.Links(), [&](const LinkRow& link) {
      json_.Member("kind", link.kind);
      json_.Member("name", link.name);
      json_.Member("format", link.format);
      json_.Member("host-offset", link.host_offset);
      json_.Member("length", link.length);
    });
  }
  void PutStructures() {
    Array("structures", rows_.Structures(), [&](const StructurePiece& piece) {
      json_.Member("name", piece.name);
      json_.Member("host-offset", piece.host.offset.value);
      json_.Member("length", piece.host.length);
    });
  }
  Status PutSpace() {
    IMG_ASSIGN_OR_RETURN(std::vector<SpaceUse> uses, SpaceByKind(rows_));
    Array("space", uses, [&](const SpaceUse& use) {
      json_.Member("kind", use.kind);
      json_.Member("ranges", use.ranges);
      json_.Member("bytes", use.bytes);
    });
    return Ok();
  }

  template <class Row, class PutMembers>
  void Array(std::string_view key, const std::vector<Row>& rows, const PutMembers& put) {
    json_.Key(key);
    json_.BeginArray();
    for (const Row& row : rows) {
      json_.BeginObject();
      put(row);
      json_.EndObject();
    }
    json_.EndArray();
  }

  const ImageRows& rows_;
  JsonWriter json_;
};

}  // namespace

Result<std::vector<SpaceUse>> SpaceByKind(const ImageRows& rows) {
  std::vector<SpaceUse> uses;
  auto cursor = rows.Regions(RowQuery{});
  std::vector<RegionRow> batch;
  while (cursor != nullptr) {
    IMG_RETURN_IF_ERROR(CheckStop());
    IMG_RETURN_IF_ERROR(cursor->NextBatch(&batch));
    if (batch.empty()) break;
    for (const RegionRow& row : batch) {
      auto use = std::find_if(uses.begin(), uses.end(),
                              [&](const SpaceUse& known) { return known.kind == row.kind; });
      if (use == uses.end()) use = uses.insert(use, SpaceUse{row.kind});
      ++use->ranges;
      use->bytes = SaturatingAdd(use->bytes, row.length);
    }
  }
  return uses;
}

Status WriteDumpText(const ImageRows& rows, TextWriter& out) {
  IMG_RETURN_IF_ERROR(DumpText(rows, out).Write());
  return out.ok() ? Ok() : out.Finish();
}

Status WriteDumpJson(const ImageRows& rows, TextWriter& out) {
  IMG_RETURN_IF_ERROR(DumpJson(rows, out).Write());
  out.Put('\n');
  return out.ok() ? Ok() : out.Finish();
}

}  // namespace imgfsck

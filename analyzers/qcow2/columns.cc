// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/columns.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <map>

#include "base/text.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kChunkEntries = 1 << 18;            // of all layers together
constexpr uint64_t kMaxL1BytesOfAllLayers = 4 * kGiB;  // read at most; only overlaps get there

bool IsTable(const Image& image, uint64_t offset) {
  return offset != 0 && IsAligned(offset, image.geometry.cluster_size) && offset < image.file_size;
}

}  // namespace

bool LostItsTable(uint64_t l1_value) {
  return (l1_value & kOffsetMask) == 0 && (l1_value & kL1Reserved) != 0 &&
         std::popcount(l1_value) > 1;
}

Columns::Columns(const Image& image) : image_(image) {
  std::map<std::pair<uint64_t, uint64_t>, size_t> known;
  uint64_t bytes = 0;
  for (size_t layer = 0; layer < image.LayerCount(); ++layer) {
    const L1Location& l1 = image.L1Of(layer);
    if (l1.entries == 0) continue;
    auto [it, fresh] = known.try_emplace({l1.offset, l1.entries}, groups_.size());
    if (fresh) {
      bytes += l1.entries * 8;
      if (bytes > kMaxL1BytesOfAllLayers) {
        truncated_ = true;
        break;
      }
      groups_.push_back({l1, {}});
      count_ = std::max(count_, l1.entries);
    }
    groups_[it->second].layers.push_back(static_cast<uint32_t>(layer));
  }
  chunk_ = std::max<uint64_t>(64, kChunkEntries / std::max<uint64_t>(1, groups_.size()));
}

void Columns::Judge(const Group& group, uint64_t column, uint64_t value, Findings* findings) const {
  uint32_t layer = group.layers.front();
  bool active = layer == 0;
  const bool lost = LostItsTable(value);
  auto add = [&](Problem problem, std::string_view rule, std::string detail) {
    Finding f;
    if (lost) {
      f.effect = Effect::kZero;
      f.repair = RepairClass::kAll;
    }
    f.problem = problem;
    f.structure = active ? "l1" : fmt::format("snapshot[{}]/l1", layer - 1);
    f.host = MakeHostRange(group.l1.offset + column * 8, 8);
    f.layer = image_.LayerName(layer);
    f.guest = MakeGuestRange(column * image_.geometry.l2_span, image_.geometry.l2_span);
    f.detail = rule.empty() ? std::move(detail) : fmt::format("{}: {}", rule, detail);
    findings->Add(std::move(f));
  };
  auto pick = [&](Problem own) {
    bool snapshot = !active;
    Problem problem = snapshot ? Problem::kQcow2SnapL2Structure : own;
    return std::pair(problem, snapshot ? InfoOf(own).code : std::string_view());
  };
  uint64_t offset = value & kOffsetMask;
  if ((value & kL1Reserved) != 0) {
    auto [problem, rule] = pick(Problem::kQcow2L1EntryReserved);
    add(problem, rule, fmt::format("reserved bits {}", Hex(value & kL1Reserved)));
  }
  if (offset == 0) {
    if (active && (value & kCopied) != 0) {
      add(Problem::kQcow2L1Copied, "", "COPIED is set on an entry without a table");
    }
  } else if (!IsAligned(offset, image_.geometry.cluster_size)) {
    auto [problem, rule] = pick(Problem::kQcow2L1EntryUnaligned);
    add(problem, rule, fmt::format("table offset {}", Hex(offset)));
  } else if (offset >= image_.file_size) {
    auto [problem, rule] = pick(Problem::kQcow2L1EntryPastEof);
    add(problem, rule, fmt::format("table offset {}", Hex(offset)));
  }
}

void Columns::ReportUnreadable(const Group& group, const std::vector<HostRange>& bad,
                               Findings* findings) const {
  const uint32_t layer = group.layers.front();
  for (const HostRange& range : bad) {
    Finding f;
    f.problem = Problem::kImageUnreadable;
    f.structure = layer == 0 ? "l1" : fmt::format("snapshot[{}]/l1", layer - 1);
    f.host = range;
    f.layer = image_.LayerName(layer);
    const uint64_t first = (range.offset.value - group.l1.offset) / 8,
                   span = image_.geometry.l2_span;
    f.guest = MakeGuestRange(first * span, DivRoundUp(range.length, 8) * span);
    findings->Add(std::move(f));
  }
}

void Columns::ReadGroup(const Group& group, uint64_t begin, uint64_t end,
                        std::vector<TableRef>* tables, Findings* findings,
                        std::vector<HostRange>* bad) const {
  end = std::min(end, group.l1.entries);
  if (begin >= end) return;
  ByteVector raw((end - begin) * 8);
  std::vector<HostRange> unreadable;
  ReadTolerant(*image_.source, group.l1.offset + begin * 8, raw, &unreadable);
  if (findings != nullptr) ReportUnreadable(group, unreadable, findings);
  bad->insert(bad->end(), unreadable.begin(), unreadable.end());
  for (uint64_t column = begin; column < end; ++column) {
    uint64_t value = LoadBe<uint64_t>(&raw[(column - begin) * 8]);
    if (value == 0) continue;
    uint64_t offset = value & kOffsetMask;
    bool table = IsTable(image_, offset);
    if (findings != nullptr && (!table || (value & kL1Reserved) != 0)) {
      Judge(group, column, value, findings);
    }
    if (!table) continue;
    bool active = group.layers.front() == 0;
    tables->push_back({offset, column, group.layers.front(),
                       static_cast<uint32_t>(group.layers.size()), active,
                       active && (value & kCopied) != 0});
  }
}

void Columns::Read(uint64_t begin, uint64_t end, std::vector<TableRef>* tables, Findings* findings,
                   std::vector<HostRange>* bad) const {
  tables->clear();
  for (const Group& group : groups_) ReadGroup(group, begin, end, tables, findings, bad);
  if (groups_.size() <= 1) return;
  std::stable_sort(tables->begin(), tables->end(), [](const TableRef& a, const TableRef& b) {
    return std::tie(a.column, a.offset) < std::tie(b.column, b.offset);
  });
  size_t kept = 0;
  for (size_t i = 0; i < tables->size(); ++i) {
    const TableRef& next = (*tables)[i];
    if (kept > 0 && (*tables)[kept - 1].column == next.column &&
        (*tables)[kept - 1].offset == next.offset) {
      TableRef& same = (*tables)[kept - 1];
      same.weight += next.weight;
      same.active |= next.active;
      same.copied |= next.copied;
      same.layer = std::min(same.layer, next.layer);
    } else {
      (*tables)[kept++] = next;
    }
  }
  tables->resize(kept);
}

std::vector<uint32_t> Columns::LayersOf(uint64_t column, uint64_t table) const {
  std::vector<uint32_t> layers;
  std::vector<HostRange> bad;
  for (const Group& group : groups_) {
    if (column >= group.l1.entries) continue;
    uint8_t raw[8];
    ReadTolerant(*image_.source, group.l1.offset + column * 8, raw, &bad);
    if ((LoadBe<uint64_t>(raw) & kOffsetMask) != table) continue;
    layers.insert(layers.end(), group.layers.begin(), group.layers.end());
  }
  std::sort(layers.begin(), layers.end());
  return layers;
}

}  // namespace imgfsck::qcow2

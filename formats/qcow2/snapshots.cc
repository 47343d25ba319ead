// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/snapshots.h"

#include <algorithm>
#include <array>

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kFixedSize = 40;
constexpr size_t kUsualId = 20;       // digits of a 64-bit number
constexpr uint64_t kMaxNames = 2048;  // bytes of id and name looked at without their lengths

void ParseFixed(Bytes b, Snapshot* s) {
  s->l1_table_offset = BeAt<uint64_t>(b, 0);
  s->l1_size = BeAt<uint32_t>(b, 8);
  s->date_sec = BeAt<uint32_t>(b, 16);
  s->date_nsec = BeAt<uint32_t>(b, 20);
  s->vm_clock_nsec = BeAt<uint64_t>(b, 24);
  s->vm_state_size_32 = BeAt<uint32_t>(b, 32);
  s->extra_data_size = BeAt<uint32_t>(b, 36);
}

// Extra data, id and name of the entry at s->host_offset, taking the extra data as `extra_size`.
bool ReadTail(const ByteSource& source, uint32_t extra_size, uint16_t id_length,
              uint16_t name_length, Snapshot* s) {
  uint64_t names = uint64_t{id_length} + name_length;
  s->length = kFixedSize + extra_size + names;
  if (!RangeFits(s->host_offset, s->length, source.Size())) return false;
  s->extra.resize(std::min<uint64_t>(extra_size, kMaxSnapshotExtra));
  ByteVector text(names);
  if (!ReadPadded(source, s->host_offset + kFixedSize, s->extra) ||
      !ReadPadded(source, s->host_offset + kFixedSize + extra_size, text)) {
    return false;
  }
  s->id.assign(AsText(Bytes(text).first(id_length)));
  s->name.assign(AsText(Bytes(text).subspan(id_length)));
  return true;
}

// Id and name together: printable text, as long as an entry may be expected to have.
std::string ReadNames(const ByteSource& source, uint64_t offset) {
  ByteVector bytes(std::min<uint64_t>(kMaxNames, source.Size() - std::min(offset, source.Size())));
  if (!ReadPadded(source, offset, bytes)) return {};
  auto end = std::ranges::find_if(bytes, [](uint8_t b) { return b < 0x20 || b == 0x7F; });
  return std::string(AsText(Bytes(bytes).first(static_cast<size_t>(end - bytes.begin()))));
}

}  // namespace

bool IsSnapshotId(std::string_view id) {
  return !id.empty() && std::all_of(id.begin(), id.end(), [](char c) { return c > 32 && c < 127; });
}

uint64_t Snapshot::vm_state_size() const {
  return extra.size() >= 8 ? LoadBe<uint64_t>(extra.data()) : vm_state_size_32;
}

std::optional<uint64_t> Snapshot::disk_size() const {
  if (extra.size() < 16) return std::nullopt;
  return LoadBe<uint64_t>(extra.data() + 8);
}

std::optional<Snapshot> ParseSnapshotAt(const ByteSource& source, uint64_t offset) {
  std::array<uint8_t, kFixedSize> b{};
  if (!RangeFits(offset, kFixedSize, source.Size()) || !ReadPadded(source, offset, b)) {
    return std::nullopt;
  }
  Snapshot s;
  s.host_offset = offset;
  ParseFixed(b, &s);
  const uint16_t id_length = BeAt<uint16_t>(b, 12), name_length = BeAt<uint16_t>(b, 14);
  if (s.extra_data_size <= kMaxSnapshotExtra) {
    if (!ReadTail(source, s.extra_data_size, id_length, name_length, &s)) return std::nullopt;
    return s;
  }
  for (uint32_t usual : {24u, 16u}) {
    if (ReadTail(source, usual, id_length, name_length, &s) && IsSnapshotId(s.id)) {
      s.extra_guessed = true;
      return s;
    }
  }
  if (!ReadTail(source, s.extra_data_size, id_length, name_length, &s)) return std::nullopt;
  return s;
}

std::optional<Snapshot> ReparseSnapshotAt(const ByteSource& source, uint64_t offset) {
  std::array<uint8_t, kFixedSize> b{};
  if (!RangeFits(offset, kFixedSize, source.Size()) || !ReadPadded(source, offset, b)) {
    return std::nullopt;
  }
  Snapshot s;
  s.host_offset = offset;
  ParseFixed(b, &s);
  const uint16_t id_length = BeAt<uint16_t>(b, 12), name_length = BeAt<uint16_t>(b, 14);
  for (uint32_t extra : {s.extra_data_size, 24u, 16u}) {
    if (extra > kMaxSnapshotExtra) continue;
    const std::string names = ReadNames(source, offset + kFixedSize + extra);
    // One of the two lengths may be believed where the text has room for it.
    size_t id = id_length, name = name_length;
    if (id > 0 && id <= kUsualId && id <= names.size()) {
      name = std::min(name, names.size() - id);
    } else if (name < names.size()) {
      id = names.size() - name;
    } else {
      continue;
    }
    s.id = names.substr(0, id);
    s.name = names.substr(id, name);
    s.extra.resize(extra);
    s.extra_data_size = extra;
    s.length = kFixedSize + extra + id + name;
    if (IsSnapshotId(s.id) && ReadPadded(source, offset + kFixedSize, s.extra)) return s;
  }
  return std::nullopt;
}

SnapshotTable ParseSnapshots(const ByteSource& source, const Header& header, uint64_t entry_cap) {
  SnapshotTable table;
  table.declared = header.nb_snapshots;
  table.offset = table.end = header.snapshots_offset;
  uint64_t at = table.offset;
  for (uint64_t i = 0; i < header.nb_snapshots; ++i) {
    table.stopped_at = i;
    table.stopped_offset = at;
    if (i >= entry_cap) {
      table.stop = SnapshotTable::Stop::kCount;
      break;
    }
    auto entry = ParseSnapshotAt(source, at);
    // Once more: a read that fails now and works when it is asked for the reason is no damage.
    if (!entry) entry = ParseSnapshotAt(source, at);
    if (!entry) {
      table.stop = RangeFits(at, kFixedSize, source.Size()) ? SnapshotTable::Stop::kOverrun
                                                            : SnapshotTable::Stop::kPastEof;
      break;
    }
    if (at + entry->length - table.offset > kMaxSnapshotTableBytes) {
      table.stop = SnapshotTable::Stop::kCap;
      break;
    }
    table.end = at + entry->length;
    at = AlignUp(table.end, 8);
    table.entries.push_back(std::move(*entry));
  }
  return table;
}

ByteVector EncodeSnapshot(const Snapshot& s) {
  uint64_t used = kFixedSize + s.extra.size() + s.id.size() + s.name.size();
  ByteVector b(AlignUp(used, 8));
  PutBe(b, 0, s.l1_table_offset);
  PutBe(b, 8, s.l1_size);
  PutBe(b, 12, static_cast<uint16_t>(s.id.size()));
  PutBe(b, 14, static_cast<uint16_t>(s.name.size()));
  PutBe(b, 16, s.date_sec);
  PutBe(b, 20, s.date_nsec);
  PutBe(b, 24, s.vm_clock_nsec);
  PutBe(b, 32, s.vm_state_size_32);
  PutBe(b, 36, static_cast<uint32_t>(s.extra.size()));
  auto end = std::ranges::copy(s.extra, b.begin() + kFixedSize).out;
  end = std::ranges::copy(s.id, end).out;
  std::ranges::copy(s.name, end);
  return b;
}

}  // namespace imgfsck::qcow2

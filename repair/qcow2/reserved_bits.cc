// SPDX-License-Identifier: Apache-2.0
// Clears bits that must be clear, in L1, L2 and refcount table entries, where what remains makes
// sense: what the entry maps does not change. With a data file, where a cluster lies follows from
// its place on the disk; nothing reads an entry that says otherwise.
#include "analyzers/qcow2/entry_rules.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kReservedBitsProblems = {
    Problem::kQcow2L1EntryReserved,    Problem::kQcow2L2EntryReserved,
    Problem::kQcow2L2OffsetZeroCopied, Problem::kQcow2L2ZeroFlagExtl2,
    Problem::kQcow2L2EntryUnaligned,   Problem::kQcow2ComprCopied,
    Problem::kQcow2ComprReserved,      Problem::kQcow2RtEntryReserved,
    Problem::kQcow2SnapL2Structure,    Problem::kQcow2DatafileCopied,
    Problem::kQcow2L1Copied,           Problem::kQcow2DatafileOffset};

class ReservedBits {
 public:
  explicit ReservedBits(const PassContext& context)
      : context_(context), state_(StateOf(context.report)), image_(*state_.image) {}

  Result<PassOutcome> Run() {
    for (size_t layer = 0; layer < image_.LayerCount(); ++layer) {
      IMG_RETURN_IF_ERROR(MendL1(layer));
    }
    IMG_RETURN_IF_ERROR(ForEachTable(
        context_.image, state_, [&](const TableRef& table, MutableBytes bytes, bool* changed) {
          for (uint64_t i = 0; i < image_.geometry.l2_entries; ++i) {
            Entry entry = LoadEntry(image_.geometry, bytes, i);
            uint64_t guest = (table.column * image_.geometry.l2_entries + i)
                             << image_.geometry.cluster_bits;
            Entry mended =
                entry.compressed() ? MendCompressed(entry) : MendStandard(table, guest, entry);
            if (mended.descriptor == entry.descriptor) continue;
            if (image_.has_data_file() && mended.host() != entry.host()) {
              AddLayers(state_, table, i, &outcome_.settled);
            }
            StoreEntry(image_.geometry, bytes, i, mended);
            ++outcome_.changes;
            *changed = true;
          }
          return Ok();
        }));
    IMG_RETURN_IF_ERROR(MendRefcountTable());
    return outcome_;
  }

 private:
  bool May(Problem problem) const { return Allowed(problem, context_.options); }

  bool Sound(uint64_t host) const {
    return IsAligned(host, image_.geometry.cluster_size) &&
           (image_.has_data_file() || host < image_.file_size);
  }

  Entry MendStandard(const TableRef& table, uint64_t guest, Entry entry) const {
    uint64_t host = entry.host();
    if ((entry.descriptor & kL2Reserved) != 0 && Sound(host) &&
        May(Problem::kQcow2L2EntryReserved)) {
      entry.descriptor &= ~kL2Reserved;
    }
    if (image_.geometry.extended_l2 && May(Problem::kQcow2L2ZeroFlagExtl2)) {
      entry.descriptor &= ~kZeroFlag;
    }
    if (image_.has_data_file()) {
      if ((host != 0 || entry.copied()) && May(Problem::kQcow2DatafileOffset)) {
        entry.descriptor = (entry.descriptor & ~kOffsetMask) | guest;
      }
      bool copied_needed = host != 0 && table.active && May(Problem::kQcow2DatafileCopied);
      if (copied_needed) entry.descriptor |= kCopied;
      return entry;
    }
    if (host == 0 && May(Problem::kQcow2L2OffsetZeroCopied)) entry.descriptor &= ~kCopied;
    if (!IsAligned(host, image_.geometry.cluster_size) && OffsetIsIdle(image_, entry) &&
        May(Problem::kQcow2L2EntryUnaligned)) {
      entry.descriptor &= ~(kOffsetMask | kCopied);
    }
    return entry;
  }

  Entry MendCompressed(Entry entry) const {
    if (May(Problem::kQcow2ComprCopied)) entry.descriptor &= ~kCopied;
    uint64_t reserved = CompressedReserved(image_.geometry);
    if ((entry.descriptor & reserved) != 0 && May(Problem::kQcow2ComprReserved) &&
        DecodeCompressed(image_.geometry, entry.descriptor).offset < image_.file_size) {
      entry.descriptor &= ~reserved;
    }
    return entry;
  }

  Status MendL1(size_t layer) {
    const L1Location& l1 = image_.L1Of(layer);
    ByteVector raw(l1.bytes());
    std::vector<HostRange> bad;
    ReadTolerant(context_.image, l1.offset, raw, &bad);
    for (uint64_t i = 0; i < l1.entries; ++i) {
      uint64_t value = LoadBe<uint64_t>(&raw[8 * i]), mended = value;
      uint64_t offset = value & kOffsetMask;
      if ((value & kL1Reserved) != 0 && !LostItsTable(value) && Sound(offset) &&
          May(Problem::kQcow2L1EntryReserved)) {
        mended &= ~kL1Reserved;
      }
      if (offset == 0 && !LostItsTable(value) && May(Problem::kQcow2L1Copied)) mended &= ~kCopied;
      if (mended == value) continue;
      uint8_t bytes[8];
      StoreBe(bytes, mended);
      IMG_RETURN_IF_ERROR(context_.image.WriteAt(l1.offset + 8 * i, bytes));
      ++outcome_.changes;
    }
    return Ok();
  }

  Status MendRefcountTable() {
    if (!May(Problem::kQcow2RtEntryReserved)) return Ok();
    for (size_t i = 0; i < image_.refcount_table.size(); ++i) {
      uint64_t value = image_.refcount_table[i], mended = value & ~kRefcountTableReserved;
      if (mended == value || !Sound(mended)) continue;
      uint8_t bytes[8];
      StoreBe(bytes, mended);
      IMG_RETURN_IF_ERROR(
          context_.image.WriteAt(image_.header.refcount_table_offset + 8 * i, bytes));
      ++outcome_.changes;
    }
    return Ok();
  }

  const PassContext& context_;
  const CheckState& state_;
  const Image& image_;
  PassOutcome outcome_;
};

}  // namespace

const Pass kReservedBitsPass{
    "reserved-bits", 40,
    "clear bits that must be clear, set what the format leaves no choice about",
    [](const CheckReport& report, const RepairOptions& options) {
      return StateOf(report).walked && WantedAny(report, options, kReservedBitsProblems);
    },
    [](const PassContext& context) { return ReservedBits(context).Run(); }};

}  // namespace imgfsck::qcow2

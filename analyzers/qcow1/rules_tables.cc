// SPDX-License-Identifier: Apache-2.0
// Judges every L1 and L2 entry, and gathers what they claim. One table in memory at a time; no
// table is looked at twice, however many entries point to it.
#include <fmt/format.h>

#include <algorithm>

#include "analyzers/qcow1/rules.h"
#include "base/interrupt.h"
#include "formats/qcow1/walk.h"

namespace imgfsck::qcow1 {
namespace {

class Tables {
 public:
  Tables(CheckState* state, CheckReport* report)
      : state_(state), image_(*state->image), report_(report), out_(&report->findings) {}

  Status Run() {
    ClaimFixed();
    std::vector<size_t> first = FindShared();
    uint64_t budget = SaturatingAdd(SaturatingMul(image_.file_size, 4), 64 * kMiB);
    for (size_t slot = 0; slot < image_.l1.size(); ++slot) {
      IMG_RETURN_IF_ERROR(CheckStop());
      TableFate& fate = state_->fates[slot];
      fate = JudgeSlot(slot, first[slot]);
      if (fate != TableFate::kWalked) continue;
      if (budget < image_.geometry.l2_bytes) {
        if (!skipped_) {
          out_->Add(MakeFinding(Problem::kImageTooManyOverlaps, "l1"));
        }
        skipped_ = true;
        fate = TableFate::kSkipped;
        continue;
      }
      budget -= image_.geometry.l2_bytes;
      fate = JudgeTable(slot);
    }
    state_->space.Finish();
    state_->beyond.Finish();
    report_->counts.image_end_offset = end_;
    return Ok();
  }

 private:
  std::string L2Name(size_t slot) const { return fmt::format("l2[{}]", image_.l1[slot].index); }

  void ClaimFixed() {
    const Header& h = image_.header;
    Take(0, image_.HeaderEnd());
    if (image_.backing_name && image_.name_is_clear()) {
      Take(h.backing_file_offset, h.backing_file_size);
    }
    TakeWhole(h.l1_table_offset, image_.geometry.l1_bytes());
  }

  void Take(uint64_t offset, uint64_t length) {
    if (offset >= image_.file_size) return;
    uint64_t end = std::min(SaturatingAdd(offset, length), image_.file_size);
    state_->space.Add(offset, end);
    end_ = std::max(end_, end);
  }

  // The same of what readers take as going on with zeros when the file ends within it.
  void TakeWhole(uint64_t offset, uint64_t length) {
    Take(offset, length);
    if (offset >= image_.file_size) return;
    state_->cut_end = std::max(state_->cut_end, SaturatingAdd(offset, length));
  }

  void TakeBeyond(uint64_t offset, uint64_t length) {
    state_->beyond.Add(std::max(offset, image_.file_size), SaturatingAdd(offset, length));
  }

  // For each slot the first slot that names the same table.
  std::vector<size_t> FindShared() const {
    std::vector<size_t> first(image_.l1.size());
    for (size_t i = 0; i < first.size(); ++i) first[i] = i;
    std::vector<TableUse> tables = TablesByOffset(image_);
    for (size_t i = 1; i < tables.size(); ++i) {
      if (tables[i].offset == tables[i - 1].offset) {
        first[tables[i].slot] = first[tables[i - 1].slot];
      }
    }
    return first;
  }

  Finding SlotFinding(Problem problem, size_t slot) const {
    Finding f = MakeFinding(problem, "l1");
    f.host = MakeHostRange(image_.L1EntryOffset(image_.l1[slot].index), 8);
    GuestRange guest = image_.GuestOf(image_.l1[slot]);
    if (guest.length > 0) f.guest = guest;
    f.layer = kActiveLayer;
    return f;
  }

  TableFate JudgeSlot(size_t slot, size_t first) {
    const L1Slot& entry = image_.l1[slot];
    std::string at = fmt::format("entry {:#018x}", entry.value);
    switch (image_.StateOf(entry)) {
      case SlotState::kFlag: {
        Finding f = SlotFinding(Problem::kQcowL1EntryFlag, slot);
        f.detail = at;
        out_->Add(std::move(f));
        return TableFate::kFlag;
      }
      case SlotState::kPastEof: {
        Finding f = SlotFinding(Problem::kQcowL1EntryPastEof, slot);
        f.detail = at;
        out_->Add(std::move(f));
        TakeBeyond(entry.value, image_.geometry.l2_bytes);
        return TableFate::kPastEof;
      }
      case SlotState::kUsable:
        break;
    }
    if (!IsAligned(entry.value, image_.geometry.cluster_size)) {
      Finding f = SlotFinding(Problem::kQcowL1EntryUnaligned, slot);
      f.detail = at;
      if (IsAligned(entry.value, kSector)) {  // QEMU reads and writes there without a word
        f.severity = Severity::kWarning;
        f.repair = RepairClass::kNone;
        f.effect = Effect::kNone;
      }
      out_->Add(std::move(f));
    }
    if (first == slot) return TableFate::kWalked;
    if (state_->fates[first] != TableFate::kWalked) return state_->fates[first];
    Finding f = SlotFinding(Problem::kQcowL1EntryDuplicate, slot);
    f.also.push_back({std::string(kActiveLayer), image_.GuestOf(image_.l1[first]), "l1"});
    out_->Add(std::move(f));
    return TableFate::kShared;
  }

  TableFate JudgeTable(size_t slot) {
    uint64_t offset = image_.l1[slot].value, bytes = image_.geometry.l2_bytes;
    ReadL2(image_, offset, &entries_, &state_->unreadable);
    if (!PlausibleL2(image_, entries_)) {
      Finding f = SlotFinding(Problem::kQcowL2Implausible, slot);
      f.detail = fmt::format("at {}", offset);
      f.evidence = "most of its entries point nowhere";
      out_->Add(std::move(f));
      return TableFate::kImplausible;
    }
    if (!RangeFits(offset, bytes, image_.file_size)) {
      Finding f = MakeFinding(Problem::kQcowL2Short, L2Name(slot));
      f.host = MakeHostRange(offset, bytes);
      f.detail = fmt::format("{} bytes are missing", bytes - (image_.file_size - offset));
      out_->Add(std::move(f));
    }
    TakeWhole(offset, bytes);
    for (uint64_t index = 0; index < entries_.size(); ++index) {
      if (entries_[index] != 0) JudgeEntry({slot, index, Entry{entries_[index]}});
    }
    return TableFate::kWalked;
  }

  Finding EntryFinding(Problem problem, const EntryRef& ref) const {
    Finding f = MakeFinding(problem, L2Name(ref.slot));
    f.host = MakeHostRange(ref.entry.offset(image_.geometry), ref.entry.length(image_.geometry));
    GuestRange guest = ClusterRange(image_, ref.Guest(image_));
    if (guest.length > 0) f.guest = guest;
    f.layer = kActiveLayer;
    return f;
  }

  void AddEntry(Problem problem, const EntryRef& ref) {
    if (out_->WouldKeep(problem)) {
      out_->Add(EntryFinding(problem, ref));
    } else {
      out_->AddBare(problem, 1);
    }
  }

  void JudgeEntry(const EntryRef& ref) {
    const Geometry& g = image_.geometry;
    Entry entry = ref.entry;
    EntryCheck check = CheckEntry(image_, entry);
    if (ref.Guest(image_) >= AlignUp(image_.header.size, g.cluster_size)) {
      Finding f = EntryFinding(Problem::kQcowPastSize, ref);
      f.layer.clear();
      out_->Add(std::move(f));
    }
    if (entry.compressed()) {
      ++report_->counts.compressed_clusters;
      if (check.unreadable)
        AddEntry(Problem::kQcowComprSize, ref);
      else if (check.past_eof)
        AddEntry(Problem::kQcowComprPastEof, ref);
      if (image_.encrypted()) AddEntry(Problem::kQcowComprPlaintext, ref);
    } else {
      JudgePlain(ref, check);
    }
    ++report_->counts.allocated_clusters;
    if (check.past_eof) TakeBeyond(entry.offset(g), entry.length(g));
    if (!check.unreadable && entry.compressed()) Take(entry.offset(g), entry.length(g));
    if (!check.unreadable && !entry.compressed()) TakeWhole(entry.offset(g), entry.length(g));
    bool follows = entry.offset(g) == next_ || next_ == 0;
    if (!follows && !entry.compressed()) ++report_->counts.fragmented_clusters;
    next_ = entry.offset(g) + entry.length(g);
  }

  void JudgePlain(const EntryRef& ref, const EntryCheck& check) {
    if (check.unreadable) {
      AddEntry(Problem::kQcowL2EntryUnaligned, ref);
      return;
    }
    if (check.past_eof) {
      AddEntry(Problem::kQcowL2EntryPastEof, ref);
      return;
    }
    if (check.unaligned) {
      Finding f = EntryFinding(Problem::kQcowL2EntryUnaligned, ref);
      f.severity = Severity::kWarning;
      f.repair = RepairClass::kNone;
      f.effect = Effect::kNone;
      out_->Add(std::move(f));
    }
    if (check.cut) AddEntry(Problem::kQcowClusterShort, ref);
  }

  CheckState* state_;
  const Image& image_;
  CheckReport* report_;
  Findings* out_;
  std::vector<uint64_t> entries_;
  uint64_t end_ = 0;   // of the last byte claimed
  uint64_t next_ = 0;  // where the next cluster would lie in an unfragmented file
  bool skipped_ = false;
};

}  // namespace

GuestRange ClusterRange(const Image& image, uint64_t guest) {
  uint64_t size = image.geometry.virtual_size;
  if (guest >= size) return MakeGuestRange(guest, 0);
  return MakeGuestRange(guest, std::min(image.geometry.cluster_size, size - guest));
}

std::string StructureName(const Image& image, const Claim& claim) {
  switch (claim.kind) {
    case ClaimKind::kHeader:
      return "header";
    case ClaimKind::kXenHeader:
      return "xen-header";
    case ClaimKind::kName:
      return "backing-name";
    case ClaimKind::kL1:
      return "l1";
    case ClaimKind::kL2:
      return fmt::format("l2[{}]", claim.guest / image.geometry.span);
    case ClaimKind::kData:
    case ClaimKind::kCompressed:
      break;
  }
  return claim.kind == ClaimKind::kData ? "data" : "compressed";
}

Status ForEachEntry(const Image& image, const std::vector<TableFate>& fates,
                    const EntryVisitor& visit) {
  std::vector<uint64_t> entries;
  std::vector<HostRange> bad;
  for (size_t slot = 0; slot < fates.size(); ++slot) {
    if (fates[slot] != TableFate::kWalked) continue;
    IMG_RETURN_IF_ERROR(CheckStop());
    ReadL2(image, image.l1[slot].value, &entries, &bad);
    bad.clear();
    for (uint64_t index = 0; index < entries.size(); ++index) {
      if (entries[index] == 0) continue;
      IMG_RETURN_IF_ERROR(visit({slot, index, Entry{entries[index]}}));
    }
  }
  return Ok();
}

Status JudgeTables(CheckState* state, CheckReport* report) {
  state->fates.assign(state->image->l1.size(), TableFate::kSkipped);
  return Tables(state, report).Run();
}

}  // namespace imgfsck::qcow1

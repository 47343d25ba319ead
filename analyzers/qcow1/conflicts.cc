// SPDX-License-Identifier: Apache-2.0
// Who collides with whom: a second walk, only over bytes that were claimed more than once.
#include <algorithm>

#include "analyzers/qcow1/rules.h"
#include "formats/qcow1/walk.h"

namespace imgfsck::qcow1 {
namespace {

void Collect(CheckState* state, Claim claim) {
  claim.end = std::min(claim.end, state->image->file_size);
  if (Overlaps(state->space.repeated(), claim.begin, claim.end)) state->conflicts.push_back(claim);
}

void CollectMetadata(CheckState* state) {
  const Image& image = *state->image;
  const Header& h = image.header;
  Collect(state, {0, kHeaderLength, 0, ClaimKind::kHeader});
  if (image.xen) Collect(state, {kHeaderLength, image.HeaderEnd(), 0, ClaimKind::kXenHeader});
  if (image.backing_name && image.name_is_clear()) {
    Collect(state, {h.backing_file_offset, h.backing_file_offset + h.backing_file_size, 0,
                    ClaimKind::kName});
  }
  Collect(state,
          {h.l1_table_offset, h.l1_table_offset + image.geometry.l1_bytes(), 0, ClaimKind::kL1});
  for (size_t slot = 0; slot < image.l1.size(); ++slot) {
    if (state->fates[slot] != TableFate::kWalked) continue;
    uint64_t begin = image.l1[slot].value;
    Collect(state, {begin, begin + image.geometry.l2_bytes,
                    image.l1[slot].index * image.geometry.span, ClaimKind::kL2});
  }
}

Status CollectAll(CheckState* state) {
  const Image& image = *state->image;
  CollectMetadata(state);
  auto visit = [&](const EntryRef& ref) -> Status {
    if (CheckEntry(image, ref.entry).unreadable) return Ok();
    uint64_t begin = ref.entry.offset(image.geometry);
    Collect(state, {begin, SaturatingAdd(begin, ref.entry.length(image.geometry)), ref.Guest(image),
                    ref.entry.compressed() ? ClaimKind::kCompressed : ClaimKind::kData});
    return Ok();
  };
  IMG_RETURN_IF_ERROR(ForEachEntry(image, state->fates, visit));
  std::sort(state->conflicts.begin(), state->conflicts.end(), [](const Claim& a, const Claim& b) {
    return std::tie(a.begin, a.kind, a.guest) < std::tie(b.begin, b.kind, b.guest);
  });
  return Ok();
}

class Judge {
 public:
  Judge(const CheckState& state, Findings* out) : state_(state), image_(*state.image), out_(out) {}

  // The claims come by ascending start: what overlaps a claim from before is the one that reaches
  // farthest, of its sort.
  void Run() {
    for (const Claim& claim : state_.conflicts) {
      if (claim.metadata()) {
        if (table_ != nullptr && claim.begin < table_->end) TwoTables(*table_, claim);
        if (data_ != nullptr && claim.begin < data_->end) DataOnTable(*data_, claim);
        Advance(&table_, claim);
      } else {
        bool told = false;
        if (table_ != nullptr && claim.begin < table_->end) {
          DataOnTable(claim, *table_);
          told = true;
        }
        if (data_ != nullptr && claim.begin < data_->end) TwoData(*data_, claim, told);
        Advance(&data_, claim);
      }
    }
  }

 private:
  static void Advance(const Claim** farthest, const Claim& claim) {
    if (*farthest == nullptr || claim.end > (*farthest)->end) *farthest = &claim;
  }

  Finding About(Problem problem, const Claim& claim, const Claim& other) const {
    Finding f = MakeFinding(problem, StructureName(image_, claim));
    f.host = MakeHostRange(claim.begin, claim.end - claim.begin);
    if (auto guest = GuestOf(claim); guest.length > 0) f.guest = guest;
    f.layer = kActiveLayer;
    Claimant also{std::string(other.metadata() ? "" : kActiveLayer), std::nullopt,
                  StructureName(image_, other)};
    if (auto guest = GuestOf(other); guest.length > 0) also.guest = guest;
    f.also.push_back(std::move(also));
    return f;
  }

  GuestRange GuestOf(const Claim& claim) const {
    if (claim.kind == ClaimKind::kL2) {
      return image_.GuestOf({claim.guest / image_.geometry.span, claim.begin});
    }
    return claim.metadata() ? GuestRange{} : ClusterRange(image_, claim.guest);
  }

  void TwoTables(const Claim& first, const Claim& second) {
    out_->Add(About(Problem::kQcowMetaOverlap, second, first));
  }

  void DataOnTable(const Claim& data, const Claim& table) {
    if (&data == last_on_table_) return;  // one finding, however many tables it covers
    last_on_table_ = &data;
    out_->Add(About(data.kind == ClaimKind::kCompressed ? Problem::kQcowComprOverlap
                                                        : Problem::kQcowDataOnMetadata,
                    data, table));
  }

  void TwoData(const Claim& first, const Claim& second, bool told) {
    bool compressed = second.kind == ClaimKind::kCompressed;
    if (!compressed && first.kind == ClaimKind::kData) {
      out_->Add(About(Problem::kQcowDataCrosslink, second, first));
    } else if (compressed && !told) {
      out_->Add(About(Problem::kQcowComprOverlap, second, first));
    } else if (!compressed) {
      out_->Add(About(Problem::kQcowComprOverlap, first, second));
    }
  }

  const CheckState& state_;
  const Image& image_;
  Findings* out_;
  const Claim* table_ = nullptr;  // the metadata that reaches farthest so far
  const Claim* data_ = nullptr;   // the same of guest data
  const Claim* last_on_table_ = nullptr;
};

}  // namespace

Status JudgeConflicts(CheckState* state, Findings* findings) {
  if (state->space.repeated().empty()) return Ok();
  IMG_RETURN_IF_ERROR(CollectAll(state));
  Judge(*state, findings).Run();
  return Ok();
}

}  // namespace imgfsck::qcow1

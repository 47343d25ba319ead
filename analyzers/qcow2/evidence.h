// SPDX-License-Identifier: Apache-2.0
// Which of two claimants of one cluster the cluster's content and its surroundings speak for. Reads
// metadata only.
#pragma once

#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "analyzers/qcow2/claims.h"
#include "analyzers/qcow2/conflicts.h"

namespace imgfsck::qcow2 {

struct Verdict {
  enum class Favours : uint8_t { kNeither, kOwn, kOther } favours = Favours::kNeither;
  std::string evidence;     // empty for kNeither
  double confidence = 0.5;  // that it is so
};

class Evidence {
 public:
  Evidence(const Image& image, const ClaimMap& claims) : image_(image), claims_(claims) {}

  Verdict Weigh(const Claim& own, const Claim& other) const;

 private:
  Verdict WeighAgainstMetadata(const Claim& meta) const;
  Verdict WeighMetadata(const Claim& own, const Claim& other) const;
  Verdict WeighTables(const Claim& own, const Claim& other) const;
  Verdict WeighData(const Claim& own, const Claim& other) const;
  // What stands in the cluster can be what this claim, on metadata, takes it for.
  bool MakesSense(const Claim& claim) const;
  bool LookAt(const Claim& claim) const;
  std::pair<uint64_t, uint64_t> Matters(const Claim& claim) const;
  Bytes Read(uint64_t cluster) const;  // until the next call
  bool IsRefcountBlock(const Claim& claim, Bytes cluster) const;
  bool IsBitmapData(const Claim& claim, Bytes cluster) const;
  bool FollowsNeighbour(const Claim& claim) const;
  bool BehindTheDisk(const Claim& claim) const;

  const Image& image_;
  const ClaimMap& claims_;
  mutable std::map<std::tuple<uint64_t, MetaKind, uint64_t, uint64_t>, bool> known_;
  mutable std::map<std::pair<uint64_t, uint64_t>, bool> tails_;  // cluster, first entry: any used
  mutable ByteVector bytes_;
  mutable uint64_t read_ = 0;
};

}  // namespace imgfsck::qcow2

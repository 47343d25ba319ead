// SPDX-License-Identifier: Apache-2.0
// Which problems of the check are reasons against opening an image, and which ones.
#include <algorithm>

#include "triage/policy/collector.h"
#include "triage/policy/policy.h"

namespace imgfsck {
namespace {

struct Meaning {
  Problem problem;
  ReasonCode code;
};

constexpr Meaning kMeanings[] = {
    {Problem::kQcow2L2DataOnMetadata, ReasonCode::kMetaOverlap},
    {Problem::kQcow2HdrShapeOverlap, ReasonCode::kMetaOverlap},
    {Problem::kQcow2RbOverlap, ReasonCode::kMetaOverlap},
    {Problem::kQcowDataOnMetadata, ReasonCode::kMetaOverlap},
    {Problem::kVhdBatEntryInMetadata, ReasonCode::kMetaOverlap},
    {Problem::kVhdBatEntryOverlapsFooter, ReasonCode::kMetaOverlap},
    {Problem::kVhdFixedSpoofedHeader, ReasonCode::kProbeConfusion},
    {Problem::kVhdTypePlacement, ReasonCode::kProbeConfusion},
    {Problem::kQcow2L1Cap, ReasonCode::kDosTable},
    {Problem::kQcow2RtCap, ReasonCode::kDosTable},
    {Problem::kQcow2SnapCountCap, ReasonCode::kDosTable},
    {Problem::kQcow2SnapTableCap, ReasonCode::kDosTable},
    {Problem::kQcow2SnapL1Cap, ReasonCode::kDosTable},
    {Problem::kQcow2SnapExtraCap, ReasonCode::kDosTable},
    {Problem::kQcow2BitmapCount, ReasonCode::kDosTable},
    {Problem::kQcow2BitmapDirSize, ReasonCode::kDosTable},
    {Problem::kQcow2BitmapTableSize, ReasonCode::kDosTable},
    {Problem::kQcow2L1Unaligned, ReasonCode::kMemSafety},
    {Problem::kQcow2RtUnaligned, ReasonCode::kMemSafety},
    {Problem::kQcow2SnapTableUnaligned, ReasonCode::kMemSafety},
    {Problem::kQcow2SnapL1Unaligned, ReasonCode::kMemSafety},
    {Problem::kQcow2BitmapGranularity, ReasonCode::kMemSafety},
    {Problem::kQcow2HdrLengthOver, ReasonCode::kMemSafety},
    {Problem::kQcow2BackingSize, ReasonCode::kMemSafety},
    {Problem::kQcow2BackingOffset, ReasonCode::kNameOverlap},
    {Problem::kQcowSizeOverflow, ReasonCode::kDosSize},
    {Problem::kCowSizeOverflow, ReasonCode::kDosSize},
    {Problem::kVhdSizeLimit, ReasonCode::kDosSize},
    {Problem::kImageTooManyOverlaps, ReasonCode::kDosTable},
    {Problem::kImageUnreadable, ReasonCode::kUnreadable},
    {Problem::kImageRepairInterrupted, ReasonCode::kTimeBomb},
};

}  // namespace

std::vector<Reason> ReasonsOfFindings(const CheckFacts& check, const ByteSource& file) {
  ReasonCollector out(file);
  std::vector<Problem> seen;  // one reason a problem: the first place
  for (const Finding& finding : check.findings) {
    const auto meaning = std::ranges::find(kMeanings, finding.problem, &Meaning::problem);
    if (meaning == std::end(kMeanings)) continue;
    if (std::ranges::find(seen, finding.problem) != seen.end()) continue;
    seen.push_back(finding.problem);
    const HostRange host = finding.host.value_or(HostRange{});
    out.AddAt(meaning->code, host.offset.value, host.length,
              std::string(finding.info().code) +
                  (finding.structure.empty() ? "" : " in " + finding.structure));
  }
  if (check.Findings(Severity::kCorruption) > 0) {
    out.Add(ReasonCode::kDamaged,
            std::to_string(check.Units(Severity::kCorruption)) + " corruptions");
  }
  return out.Take();
}

}  // namespace imgfsck

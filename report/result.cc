// SPDX-License-Identifier: Apache-2.0
#include "report/result.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/checked.h"

namespace imgfsck {
namespace {

// Answers whether a range overlaps any of those added before Seal().
class RangeIndex {
 public:
  void Add(uint64_t offset, uint64_t length) {
    ranges_.emplace_back(offset, SaturatingAdd(offset, length));
  }
  void Seal() {
    std::sort(ranges_.begin(), ranges_.end());
    size_t merged = 0;
    for (size_t i = 1; i < ranges_.size(); ++i) {
      if (ranges_[i].first <= ranges_[merged].second) {
        ranges_[merged].second = std::max(ranges_[merged].second, ranges_[i].second);
      } else {
        ranges_[++merged] = ranges_[i];
      }
    }
    if (!ranges_.empty()) ranges_.resize(merged + 1);
  }
  bool Overlaps(uint64_t offset, uint64_t length) const {
    const uint64_t end = SaturatingAdd(offset, length);
    // The last range that starts before `end`; a range without bytes touches where it stands.
    auto after = std::upper_bound(
        ranges_.begin(), ranges_.end(), std::max(end, SaturatingAdd(offset, 1)) - 1,
        [](uint64_t position, const auto& range) { return position < range.first; });
    if (after == ranges_.begin()) return false;
    const auto& range = *std::prev(after);
    return range.second > offset || (range.first == range.second && range.first == offset);
  }

 private:
  std::vector<std::pair<uint64_t, uint64_t>> ranges_;
};

// Where the findings of one problem are.
struct Places {
  RangeIndex host;
  std::map<std::string, RangeIndex> guest;  // by layer
  std::set<std::string> structures;         // of findings without a range

  void Add(const Finding& finding) {
    if (finding.host) host.Add(finding.host->offset.value, finding.host->length);
    if (finding.guest) {
      guest[finding.layer].Add(finding.guest->offset.value, finding.guest->length);
    }
    if (!finding.host && !finding.guest) structures.insert(finding.structure);
  }
  void Seal() {
    host.Seal();
    for (auto& [layer, index] : guest) index.Seal();
  }
  bool Touches(const Finding& finding) const {
    if (finding.host && host.Overlaps(finding.host->offset.value, finding.host->length))
      return true;
    if (finding.guest) {
      auto index = guest.find(finding.layer);
      if (index != guest.end() &&
          index->second.Overlaps(finding.guest->offset.value, finding.guest->length)) {
        return true;
      }
    }
    return !finding.host && !finding.guest && structures.contains(finding.structure);
  }
};

bool RepairWritten(const ImageResult& result) {
  return result.repair && !result.repair->dry_run && result.before && result.after;
}

int QemuExitCode(const ImageResult& result) {
  if (result.error) return result.error->code == ErrorCode::kUnsupported ? 63 : 1;
  const CheckResult* check = FinalCheck(result);
  if (check == nullptr || check->check_errors > 0) return 1;
  if (check->findings->Units(Severity::kCorruption) > 0) return 2;
  return check->findings->Units(Severity::kLeak) > 0 ? 3 : 0;
}

bool AnyAtLeast(const Findings& findings, Severity severity) {
  for (Severity s : {Severity::kWarning, Severity::kLeak, Severity::kCorruption}) {
    if (s >= severity && findings.FindingsOf(s) > 0) return true;
  }
  return false;
}

}  // namespace

const CheckResult* FinalCheck(const ImageResult& result) {
  if (RepairWritten(result)) return &*result.after;
  return result.before ? &*result.before : nullptr;
}

int ExitCodeOf(const ImageResult& result, Severity fail_on, ExitStyle style) {
  if (style == ExitStyle::kQemu) return QemuExitCode(result);
  const CheckResult* check = FinalCheck(result);
  if (result.error || check == nullptr) return 8;
  if (AnyAtLeast(*check->findings, fail_on)) return 4;
  if (result.repair && result.repair->dry_run && result.repair->patches > 0) return 4;
  const uint64_t mended =
      FixedUnits(result, Severity::kCorruption) + FixedUnits(result, Severity::kLeak);
  return mended > 0 ? 1 : 0;
}

uint64_t FixedUnits(const ImageResult& result, Severity severity) {
  if (!RepairWritten(result)) return 0;
  uint64_t sum = 0;
  for (const auto& [problem, total] : result.before->findings->totals()) {
    const uint64_t before = result.before->findings->Units(problem, severity);
    const uint64_t after = result.after->findings->Units(problem, severity);
    if (before > after) sum = SaturatingAdd(sum, before - after);
  }
  return sum;
}

std::vector<Finding> FindingsToList(const ImageResult& result) {
  const CheckResult* check = FinalCheck(result);
  if (check == nullptr) return {};
  std::vector<Finding> list = check->findings->kept();
  std::stable_sort(list.begin(), list.end(), ComesBefore);
  if (!RepairWritten(result)) return list;
  std::map<Problem, Places> left;
  for (const Finding& finding : list) left[finding.problem].Add(finding);
  for (auto& [problem, places] : left) places.Seal();
  const auto& totals = check->findings->totals();
  const auto first_fixed = static_cast<std::ptrdiff_t>(list.size());
  for (const Finding& finding : result.before->findings->kept()) {
    // Where some that are left were not kept, this one may be among them.
    auto total = totals.find(finding.problem);
    if (total != totals.end() && total->second.dropped > 0) continue;
    auto places = left.find(finding.problem);
    if (places != left.end() && places->second.Touches(finding)) continue;
    list.push_back(finding);
    list.back().fixed = true;
  }
  std::stable_sort(list.begin() + first_fixed, list.end(), ComesBefore);
  return list;
}

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
// Header extension records that stand twice or make no sense.
#include <algorithm>

#include "repair/qcow2/extension_area.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {

void RewriteExtensions(const ExtensionArea& area, MutableBytes cluster,
                       const std::function<bool(const Extension&)>& keep) {
  ByteVector out;
  for (const Extension& record : area.records) {
    if (!keep(record) || record.data.size() < record.length) continue;
    size_t at = out.size();
    out.resize(at + 8 + AlignUp(record.length, 8));
    PutBe(out, at, record.type);
    PutBe(out, at + 4, record.length);
    std::ranges::copy(record.data, out.begin() + static_cast<ptrdiff_t>(at) + 8);
  }
  out.resize(out.size() + 8);  // END
  uint64_t end = std::max(area.end, area.begin);
  out.resize(std::min<uint64_t>(std::max<uint64_t>(out.size(), end - area.begin),
                                cluster.size() - area.begin));
  std::ranges::copy(out, cluster.begin() + static_cast<ptrdiff_t>(area.begin));
}

namespace {

constexpr std::initializer_list<Problem> kProblems = {
    Problem::kQcow2ExtDuplicate, Problem::kQcow2ExtFeatureTable, Problem::kQcow2ExtOverrun,
    Problem::kQcow2ExtBackingFormatLong};

Result<PassOutcome> Run(const PassContext& context) {
  const Image& image = *StateOf(context.report).image;
  PassOutcome outcome;
  auto should = [&](Problem problem) {
    return context.report.findings.Has(problem) && Allowed(problem, context.options);
  };
  std::vector<const Extension*> seen;
  auto keep = [&](const Extension& record) {
    bool twin = std::ranges::any_of(seen, [&](const Extension* other) {
      return other->type == record.type && std::ranges::equal(other->data, record.data);
    });
    seen.push_back(&record);
    bool overrun = image.extensions.overrun == record.offset;
    bool drop = (twin && should(Problem::kQcow2ExtDuplicate)) ||
                (overrun && should(Problem::kQcow2ExtOverrun)) ||
                // QEMU writes a fresh table of names with its next header.
                (record.type == kExtFeatureNames && should(Problem::kQcow2ExtFeatureTable)) ||
                (record.type == kExtBackingFormat && record.length > kMaxBackingFormatLength &&
                 should(Problem::kQcow2ExtBackingFormatLong));
    outcome.changes += drop;
    return !drop;
  };
  ByteVector cluster = image.first_cluster;
  RewriteExtensions(image.extensions, cluster, keep);
  if (outcome.changes == 0) return outcome;
  IMG_RETURN_IF_ERROR(context.image.WriteAt(0, cluster));
  return outcome;
}

}  // namespace

const Pass kExtensionPass{"header-extensions", 20,
                          "drop header extensions that are doubled or make no sense",
                          [](const CheckReport& report, const RepairOptions& options) {
                            return WantedAny(report, options, kProblems);
                          },
                          Run};

}  // namespace imgfsck::qcow2

// SPDX-License-Identifier: Apache-2.0
// Header extension records that stand twice or make no sense.
#include <algorithm>

#include "repair/qcow2/extension_area.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {

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

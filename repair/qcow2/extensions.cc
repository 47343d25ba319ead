// SPDX-License-Identifier: Apache-2.0
// Header extension records that stand twice, make no sense or belong to nothing, and what lies
// around them. A record with a damaged length gets the one after which the rest can be read.
#include <algorithm>
#include <map>

#include "repair/qcow2/extension_area.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kExtensionsProblems = {
    Problem::kQcow2ExtDuplicate,
    Problem::kQcow2ExtFeatureTable,
    Problem::kQcow2ExtOverrun,
    Problem::kQcow2ExtBackingFormatLong,
    Problem::kQcow2ExtBackingFormatOrphan,
    Problem::kQcow2ExtDatafileOrphan,
    Problem::kQcow2ExtNoEnd,
    Problem::kQcow2HdrAreaJunk};

// A record such as QEMU writes it.
bool IsKnown(const Extension& record) {
  switch (record.type) {
    case kExtBackingFormat:
      return IsBackingFormat(record);
    case kExtFeatureNames:
      return record.length % kFeatureNameSize == 0;
    case kExtBitmaps:
      return record.length == kBitmapsExtLength;
    case kExtEncryption:
      return record.length == kEncryptionExtLength;
    case kExtDataFile:
      return record.length <= kMaxBackingNameLength;
    default:
      return false;
  }
}

class ExtensionRepair {
 public:
  explicit ExtensionRepair(const PassContext& context)
      : context_(context), image_(*StateOf(context.report).image), cluster_(image_.first_cluster) {}

  Result<PassOutcome> Run() {
    if (!MendLength() && DropRecords()) {
      PutEnd();
      ClearJunk();
    }
    if (outcome_.changes == 0) return outcome_;
    IMG_RETURN_IF_ERROR(context_.image.WriteAt(0, cluster_));
    return outcome_;
  }

 private:
  bool Should(Problem problem) const { return Mends(context_, problem); }

  // Lengths that the record at `at` may really have, ascending.
  std::vector<uint32_t> Lengths(const Extension& record) const {
    const uint64_t room = record.data.size();
    std::vector<uint32_t> lengths;
    if (record.type == kExtBitmaps) return {kBitmapsExtLength};
    if (record.type == kExtEncryption) return {kEncryptionExtLength};
    if (record.type == kExtBackingFormat || record.type == kExtDataFile) {
      auto end = std::ranges::find(record.data, uint8_t{0});
      return {static_cast<uint32_t>(end - record.data.begin())};
    }
    const uint32_t step = record.type == kExtFeatureNames ? kFeatureNameSize : 8;
    for (uint64_t length = step; length <= room; length += step) {
      lengths.push_back(static_cast<uint32_t>(length));
    }
    return lengths;
  }

  // The record that runs out of the area: with its right length the rest reads to the end.
  bool MendLength() {
    if (!image_.extensions.overrun || image_.extensions.records.empty()) return false;
    const Extension& record = image_.extensions.records.back();
    const bool may = Should(Problem::kQcow2ExtOverrun) ||
                     (record.type == kExtFeatureNames && Should(Problem::kQcow2ExtFeatureTable));
    if (!may) return false;
    if (record.type == kExtEnd) {
      PutBe(cluster_, record.offset + 4, uint32_t{0});
      ++outcome_.changes;
      return true;
    }
    for (uint32_t length : Lengths(record)) {
      ByteVector trial = cluster_;
      PutBe(trial, record.offset + 4, length);
      const ExtensionArea area = ParseExtensions(image_.header, trial);
      const auto first =
          area.records.begin() + static_cast<ptrdiff_t>(image_.extensions.records.size());
      if (area.overrun || !area.end_marker || BeAt<uint32_t>(trial, *area.end_marker + 4) != 0 ||
          !std::all_of(first, area.records.end(), IsKnown)) {
        continue;
      }
      cluster_ = std::move(trial);
      ++outcome_.changes;
      return true;
    }
    return false;
  }

  void FindLast() {
    for (const Extension& record : image_.extensions.records) {
      if (record.data.size() >= record.length &&
          (IsKnown(record) || !last_.contains(record.type))) {
        last_[record.type] = record.offset;
      }
    }
  }

  // False: the area cannot be written again without losing a record that has to stay.
  bool DropRecords() {
    FindLast();
    bool cut = false;
    RewriteExtensions(image_.extensions, cluster_, [&](const Extension& record) {
      const bool drop = HasToGo(record);
      outcome_.changes += drop;
      cut |= !drop && record.data.size() < record.length;
      return !drop;
    });
    if (cut) outcome_.changes = 0;
    if (outcome_.changes == 0) cluster_ = image_.first_cluster;
    return !cut;
  }

  // The same again; by --fix, of several with different content all but the last sound one.
  bool IsDoubled(const Extension& record) {
    const bool twin = std::ranges::any_of(seen_, [&](const Extension* other) {
      return other->type == record.type && std::ranges::equal(other->data, record.data);
    });
    seen_.push_back(&record);
    if (!context_.options.also_fix.contains(Problem::kQcow2ExtDuplicate)) return twin;
    auto last = last_.find(record.type);
    return last != last_.end() && last->second != record.offset;
  }

  bool HasToGo(const Extension& record) {
    const bool doubled = IsDoubled(record);
    if (doubled && Should(Problem::kQcow2ExtDuplicate)) return true;
    if (image_.extensions.overrun == record.offset && Should(Problem::kQcow2ExtOverrun))
      return true;
    switch (record.type) {
      case kExtFeatureNames:
        // QEMU writes a fresh table of names with its next header.
        return Should(Problem::kQcow2ExtFeatureTable);
      case kExtBackingFormat:
        return (!IsBackingFormat(record) && Should(Problem::kQcow2ExtBackingFormatLong)) ||
               Should(Problem::kQcow2ExtBackingFormatOrphan);
      case kExtDataFile:
        return Should(Problem::kQcow2ExtDatafileOrphan);
      default:
        return false;
    }
  }

  // Only by --fix.
  void PutEnd() {
    const ExtensionArea area = ParseExtensions(image_.header, cluster_);
    if (!Should(Problem::kQcow2ExtNoEnd) || area.end_marker || area.overrun ||
        area.limit - area.end < 8) {
      return;
    }
    std::fill_n(cluster_.begin() + static_cast<ptrdiff_t>(area.end), 8, uint8_t{0});
    ++outcome_.changes;
  }
  void ClearJunk() {
    if (!Should(Problem::kQcow2HdrAreaJunk)) return;
    for (const Finding& f : context_.report.findings.kept()) {
      if (f.problem != Problem::kQcow2HdrAreaJunk || !f.host || f.host->end() > cluster_.size()) {
        continue;
      }
      std::fill_n(cluster_.begin() + static_cast<ptrdiff_t>(f.host->offset.value), f.host->length,
                  uint8_t{0});
      ++outcome_.changes;
    }
  }

  const PassContext& context_;
  const Image& image_;
  ByteVector cluster_;
  std::vector<const Extension*> seen_;
  std::map<uint32_t, uint64_t> last_;  // by type, the last sound record's offset
  PassOutcome outcome_;
};

}  // namespace

const Pass kExtensionPass{
    "header-extensions", 20, "drop header extensions that are doubled or make no sense",
    [](const CheckReport& report, const RepairOptions& options) {
      return WantedAny(report, options, kExtensionsProblems);
    },
    [](const PassContext& context) { return ExtensionRepair(context).Run(); }};

}  // namespace imgfsck::qcow2

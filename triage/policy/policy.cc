// SPDX-License-Identifier: Apache-2.0
// What does not depend on the format: which formats a file belongs to at once, what its guest wrote
// at the beginning of the disk, how large the disk is.
#include "triage/policy/policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "base/text.h"
#include "triage/policy/collector.h"

namespace imgfsck {
namespace {

constexpr uint64_t kHead = 4096;  // every format's header, or most of it

class Judgement {
 public:
  Judgement(const Subject& subject, const IdentityFacts& facts, const PolicyOptions& options)
      : subject_(subject), facts_(facts), options_(options), out_(*subject.file) {}

  std::vector<Reason> Run() {
    if (facts_.kind != FileKind::kImage) return {};
    // What cannot be read must not be judged as if it were zeros.
    ByteVector head(std::min<uint64_t>(subject_.file->Size(), kHead));
    if (auto readable = ReadExact(*subject_.file, 0, head); !readable) {
      out_.AddAt(ReasonCode::kUnreadable, 0, kHead, readable.error().message);
    } else {
      Format();
      Polyglot();
      Disguise();
      Size();
      Placement();
      if (facts_.in_use) out_.Add(ReasonCode::kTimeBomb, "a running program writes to it");
    }
    return out_.Take();
  }

 private:
  bool Is(std::string_view format) const { return facts_.format == format; }

  void Format() {
    if (subject_.damaged_header) out_.Add(ReasonCode::kBrokenHeader);
    if (Is("qcow2")) JudgeQcow2(out_);
    if (Is("qcow")) JudgeQcow1(out_);
    if (Is("cow")) JudgeCow(out_);
    if (Is("vpc")) JudgeVhd(out_);
    if (!facts_.examined && !JudgeForeign(facts_.format, options_.max_disk, out_)) {
      out_.Add(ReasonCode::kFormatUnchecked, facts_.format);
    }
    constexpr std::array<std::string_view, 5> kRefused = {"qcow", "cow", "qed", "bochs", "cloop"};
    if (std::ranges::find(kRefused, facts_.format) != kRefused.end()) {
      out_.Add(ReasonCode::kFormatRefused, facts_.format);
    }
  }

  bool IsFixedVhd() const { return Is("vpc") && facts_.version == "fixed"; }

  // A reader that tries formats in another order sees another disk.
  void Polyglot() {
    for (const imgfsck::Format* format : AllFormats()) {
      const bool other = format->name != facts_.format && format->name != "raw";
      if (other && format->probe(*subject_.file) > ProbeScore::kHeaderDamaged) {
        out_.AddAt(ReasonCode::kPolyglot, 0, kReasonBytes, "also " + std::string(format->name));
      }
    }
    for (const Signature& s : facts_.signatures) {
      if (s.name == facts_.format) continue;
      const bool container = s.kind == ContentKind::kContainer;
      // In a raw disk these are what it is; and a fixed VHD is a raw disk with something behind it.
      if (!container && (Is("raw") || IsFixedVhd())) continue;
      const bool known = FindFormat(s.name) != nullptr && container;
      if (known && !Is("raw") && !IsFixedVhd()) continue;  // its own probe has spoken
      const ReasonCode code = container && (Is("raw") || IsFixedVhd()) ? ReasonCode::kProbeConfusion
                                                                       : ReasonCode::kPolyglot;
      out_.AddAt(code, s.offset, s.length, "also " + s.name);
    }
  }

  // The start of the disk in the image: copied out as it is, it would be taken for an image.
  void Disguise() {
    for (const Signature& s : facts_.guest_signatures) {
      if (s.kind != ContentKind::kContainer || s.offset > kSector) continue;
      const bool repeated =
          IsFixedVhd() && std::ranges::any_of(facts_.signatures, [&](const Signature& of_file) {
            return of_file.name == s.name;
          });
      if (!repeated) {
        out_.Add(ReasonCode::kProbeConfusion,
                 fmt::format("{} at {} of the disk", s.name, Hex(s.offset)));
      }
    }
  }

  void Size() {
    if (facts_.virtual_size <= options_.max_disk) return;
    out_.Add(ReasonCode::kDosSize, fmt::format("{} in a file of {}", HumanSize(facts_.virtual_size),
                                               HumanSize(facts_.file_size)));
  }

  // A name that lies where something else is kept can change after it was looked at.
  void Placement() {
    constexpr std::array<std::string_view, 5> kHomes = {
        "header", "header-extension", "backing-name", "locator", "dynamic-header"};
    for (const LinkRow& link : facts_.links) {
      if (subject_.rows == nullptr || link.length == 0) continue;
      RowQuery query;
      query.host_begin = link.host_offset;
      query.host_end = SaturatingAdd(link.host_offset, link.length);
      auto regions = subject_.rows->Regions(query);
      std::vector<RegionRow> batch;
      bool found = false;
      while (!found && regions != nullptr && regions->NextBatch(&batch) && !batch.empty()) {
        for (const RegionRow& region : batch) {
          const bool overlaps = region.host_offset < query.host_end &&
                                SaturatingAdd(region.host_offset, region.length) > query.host_begin;
          if (!overlaps || std::ranges::find(kHomes, region.kind) != kHomes.end()) continue;
          out_.AddAt(ReasonCode::kNameOverlap, link.host_offset, link.length,
                     fmt::format("{} at {} on the name", region.kind, Hex(region.host_offset)));
          found = true;
          break;
        }
      }
    }
  }

  const Subject& subject_;
  const IdentityFacts& facts_;
  const PolicyOptions& options_;
  ReasonCollector out_;
};

}  // namespace

std::vector<Reason> FindReasons(const Subject& subject, const IdentityFacts& facts,
                                const PolicyOptions& options) {
  return Judgement(subject, facts, options).Run();
}

}  // namespace imgfsck

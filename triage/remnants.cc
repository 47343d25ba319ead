// SPDX-License-Identifier: Apache-2.0
#include "triage/remnants.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "base/checked.h"
#include "base/interrupt.h"
#include "base/range_set.h"
#include "base/text.h"
#include "io/file.h"
#include "io/sha256.h"
#include "triage/remnant_class.h"

namespace imgfsck {
namespace {

bool Overlaps(const std::vector<std::pair<uint64_t, uint64_t>>& ranges, uint64_t begin,
              uint64_t end) {
  auto after = std::upper_bound(ranges.begin(), ranges.end(), std::make_pair(end - 1, UINT64_MAX));
  return after != ranges.begin() && std::prev(after)->second > begin;
}

class Search {
 public:
  Search(const ByteSource& file, const ImageRows& rows, const CheckReport& report,
         const RemnantOptions& options)
      : file_(file),
        rows_(rows),
        report_(report),
        options_(options),
        unit_(std::clamp<uint64_t>(rows.Image().cluster_size, kSector, 64 * kKiB)),
        classifier_(file, rows.Image().format, rows.Image().cluster_size),
        buffer_(unit_) {}

  Result<RemnantFacts> Run() {
    IMG_RETURN_IF_ERROR(CollectClaims());
    const auto& claimed = claims_.Ranges();
    last_claim_ = claimed.empty() ? 0 : claimed.back().second;
    uint64_t at = 0;
    for (const auto& [begin, end] : claimed) {
      if (begin > at) IMG_RETURN_IF_ERROR(Gap(at, std::min(begin, file_.Size())));
      at = std::max(at, end);
      if (at >= file_.Size()) break;
    }
    if (at < file_.Size()) IMG_RETURN_IF_ERROR(Gap(at, file_.Size()));
    IMG_RETURN_IF_ERROR(End());
    facts_.done = true;
    return std::move(facts_);
  }

 private:
  // A header's cluster is claimed as a whole; of that only its fields hold something.
  Status CollectClaims() {
    HostRange header;
    auto regions = rows_.Regions({});
    std::vector<RegionRow> batch;
    while (regions != nullptr) {
      IMG_RETURN_IF_ERROR(CheckStop());
      IMG_RETURN_IF_ERROR(regions->NextBatch(&batch));
      if (batch.empty()) break;
      for (const RegionRow& region : batch) {
        if (region.kind == "header" && region.host_offset == 0 && region.length >= kSector) {
          header = MakeHostRange(0, region.length);
        } else {
          claims_.Add(region.host_offset, region.length);
        }
      }
    }
    for (const FieldRow& field : rows_.Fields()) {
      claims_.Add(field.host_offset, field.length);
      // An extension's data, whatever of it is understood.
      const bool extension = field.structure.starts_with("header-extension");
      if (extension && field.name == "length") {
        claims_.Add(field.host_offset, SaturatingAdd(field.length, field.value.value_or(0)));
      }
    }
    // Padding between fields is part of them.
    header_end_ = 0;
    for (const auto& [begin, end] : claims_.Ranges()) {
      if (begin > SaturatingAdd(header_end_, 8) || end > header.length) break;
      header_end_ = end;
    }
    claims_.Add(0, header_end_);
    header_limit_ = header.length;
    for (const Finding& finding : report_.findings.kept()) {
      if (finding.severity_or_default() != Severity::kLeak || !finding.host) continue;
      leaks_.Add(finding.host->offset.value, finding.host->length);
      if (finding.guest) guests_.push_back({*finding.host, finding.guest->offset.value});
    }
    std::ranges::stable_sort(guests_, {}, [](const auto& each) { return each.first.offset.value; });
    leak_ranges_ = &leaks_.Ranges();
    return Ok();
  }

  Status Gap(uint64_t begin, uint64_t end) {
    for (uint64_t at = begin; at < end;) {
      IMG_RETURN_IF_ERROR(CheckStop());
      auto extent = file_.ExtentAt(at);
      if (!extent || extent->length == 0) extent = HostExtent{at, end - at, false};
      const uint64_t stop = std::min(end, extent->offset + extent->length);
      if (extent->hole) facts_.zero_bytes += stop - at;  // whether they are stored is not certain
      for (uint64_t piece = at; piece < stop && !extent->hole;) {
        const uint64_t next = std::min(stop, AlignDown(piece, unit_) + unit_);
        IMG_RETURN_IF_ERROR(Piece(piece, next - piece, begin));
        piece = next;
      }
      at = stop;
    }
    return Ok();
  }

  RemnantOrigin OriginOf(uint64_t offset, uint64_t length, uint64_t gap) const {
    if (offset < header_limit_) return RemnantOrigin::kHeaderSlack;
    if (offset >= last_claim_) return RemnantOrigin::kTrailing;
    if (Overlaps(*leak_ranges_, offset, offset + length)) return RemnantOrigin::kLeaked;
    // In the unit in which the claimed bytes before the gap end.
    const bool begun = gap % unit_ != 0 && AlignDown(gap, unit_) == AlignDown(offset, unit_);
    return begun ? RemnantOrigin::kSlack : RemnantOrigin::kFree;
  }

  Status Piece(uint64_t offset, uint64_t length, uint64_t gap) {
    const MutableBytes bytes = MutableBytes(buffer_).first(length);
    if (!ReadExact(file_, offset, bytes)) {
      facts_.unreadable_bytes += length;
      return End();
    }
    if (AllZero(bytes)) {
      facts_.zero_bytes += length;
      return End();
    }
    const PieceClass found = classifier_.Classify(offset, bytes);
    const RemnantOrigin origin = OriginOf(offset, length, gap);
    const bool whole = found.kind == RemnantClass::kTable || origin == RemnantOrigin::kLeaked ||
                       origin == RemnantOrigin::kFree;
    const Kept kept = whole ? Kept{0, length} : SectorsInUse(bytes);
    facts_.zero_bytes += length - (kept.end - kept.begin);
    IMG_RETURN_IF_ERROR(Append(offset + kept.begin,
                               bytes.subspan(kept.begin, kept.end - kept.begin), origin, found));
    return kept.end < length ? End() : Ok();
  }

  struct Kept {
    uint64_t begin, end;
  };
  // Without the sectors of zeros before and after what is there.
  static Kept SectorsInUse(Bytes bytes) {
    Kept kept{0, bytes.size()};
    while (kept.begin + kSector < kept.end && AllZero(bytes.subspan(kept.begin, kSector))) {
      kept.begin += kSector;
    }
    while (kept.begin + kSector < kept.end && AllZero(bytes.subspan(kept.end - kSector, kSector))) {
      kept.end -= kSector;
    }
    return kept;
  }

  // A piece that goes on with the remnant before it, or begins one.
  Status Append(uint64_t offset, Bytes bytes, RemnantOrigin origin, const PieceClass& found) {
    const bool continues = current_ && current_->host_offset + current_->length == offset &&
                           current_->origin == origin && current_->kind == found.kind &&
                           current_->what == found.what && found.kind != RemnantClass::kKnownHeader;
    if (!continues) {
      IMG_RETURN_IF_ERROR(End());
      current_.emplace();
      current_->host_offset = offset;
      current_->origin = origin;
      current_->kind = found.kind;
      current_->what = found.what;
      current_->guest_offset = GuestOf(offset);
      entropy_sum_ = 0;
    }
    current_->length += bytes.size();
    entropy_sum_ += found.entropy * static_cast<double>(bytes.size());
    return Write(bytes);
  }

  std::optional<uint64_t> GuestOf(uint64_t offset) const {
    auto after = std::ranges::upper_bound(guests_, offset, {},
                                          [](const auto& each) { return each.first.offset.value; });
    if (after == guests_.begin()) return std::nullopt;
    const auto& [host, guest] = *std::prev(after);
    if (!host.Contains(offset)) return std::nullopt;
    return guest + (offset - host.offset.value);
  }

  Status Write(Bytes bytes) {
    if (options_.folder.empty()) return Ok();
    if (current_->file.empty()) {
      if (facts_.count >= options_.keep) return Ok();
      if (mkdir(options_.folder.c_str(), 0700) != 0 && errno != EEXIST) {
        return ErrorFromErrno(errno, "create " + Printable(options_.folder));
      }
      current_->file = fmt::format("{:06}-{:x}.bin", facts_.count + 1, current_->host_offset);
      IMG_ASSIGN_OR_RETURN(output_, FileStore::Open(options_.folder + "/" + current_->file,
                                                    FileStore::Mode::kCreateNew));
      digest_.emplace();
    }
    digest_->Add(bytes);
    return output_->WriteAt(output_->Size(), bytes);
  }

  Status End() {
    if (!current_) return Ok();
    current_->entropy = entropy_sum_ / static_cast<double>(current_->length);
    if (output_ != nullptr) {
      IMG_RETURN_IF_ERROR(output_->Sync());
      output_.reset();
      current_->sha256 = digest_->HexDigest();
    }
    facts_.bytes += current_->length;
    facts_.bytes_by_origin[static_cast<size_t>(current_->origin)] += current_->length;
    facts_.bytes_by_kind[static_cast<size_t>(current_->kind)] += current_->length;
    if (facts_.count < options_.keep) facts_.remnants.push_back(std::move(*current_));
    ++facts_.count;
    current_.reset();
    return Ok();
  }

  const ByteSource& file_;
  const ImageRows& rows_;
  const CheckReport& report_;
  const RemnantOptions& options_;
  uint64_t unit_;
  PieceClassifier classifier_;
  ByteVector buffer_;
  RangeSet claims_, leaks_;
  const std::vector<std::pair<uint64_t, uint64_t>>* leak_ranges_ = nullptr;
  std::vector<std::pair<HostRange, uint64_t>> guests_;  // leaks whose place on the disk is known
  uint64_t last_claim_ = 0, header_end_ = 0, header_limit_ = 0;
  std::optional<Remnant> current_;
  double entropy_sum_ = 0;
  std::unique_ptr<FileStore> output_;
  std::optional<Sha256> digest_;
  RemnantFacts facts_;
};

}  // namespace

Result<RemnantFacts> FindRemnants(const ByteSource& file, const ImageRows& rows,
                                  const CheckReport& report, const RemnantOptions& options) {
  return Search(file, rows, report, options).Run();
}

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
#include "triage/entropy.h"

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "base/text.h"
#include "triage/byte_statistics.h"

namespace imgfsck {
namespace {

constexpr uint64_t kBlock = 64 * kKiB;    // told apart
constexpr uint64_t kLargest = 64 * kTiB;  // looked at; a byte of memory for each block
constexpr size_t kMostRanges = 1000;      // listed
constexpr size_t kLeastRepeats = 3;       // of a plan
constexpr uint64_t kLeastHead = 4;        // blocks

enum class Look : uint8_t { kZero, kPlain, kNearly, kRandom };

struct Stretch {
  uint64_t begin = 0, length = 0;  // blocks
};

uint64_t Median(std::vector<uint64_t> values) {
  auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

bool Near(uint64_t a, uint64_t b) { return a > b ? a - b <= 1 : b - a <= 1; }

class Profile {
 public:
  explicit Profile(const ByteSource& file) : file_(file) {}

  Result<EntropyFacts> Run(const ImageRows* rows) {
    if (file_.Size() > kLargest) {
      facts_.trouble = "files of more than " + HumanSize(kLargest) + " are not looked at";
      return std::move(facts_);
    }
    IMG_RETURN_IF_ERROR(LookAtBlocks());
    HeadAndTail();
    FindPlan();
    if (rows != nullptr) {
      IMG_RETURN_IF_ERROR(MapToDisk(*rows));
    } else {
      KeepPlain();
    }
    facts_.done = true;
    facts_.block = kBlock;
    return std::move(facts_);
  }

 private:
  Status LookAtBlocks() {
    const uint64_t blocks = DivRoundUp(file_.Size(), kBlock);
    looks_.reserve(blocks);
    ByteVector buffer(kBlock);
    while (looks_.size() < blocks) {
      const uint64_t i = looks_.size(), at = i * kBlock;
      if (i % 64 == 0) IMG_RETURN_IF_ERROR(CheckStop());
      auto extent = file_.ExtentAt(at);
      if (extent && extent->hole && extent->length >= LengthOf(i)) {  // a vast one in one go
        const uint64_t whole = std::max<uint64_t>(1, extent->length / kBlock);
        looks_.resize(std::min(blocks, i + whole), Look::kZero);
      } else {
        looks_.push_back(LookAt(at, MutableBytes(buffer).first(LengthOf(i))));
      }
    }
    SettleDoubts();
    for (uint64_t i = 0; i < blocks; ++i) {
      (looks_[i] == Look::kZero    ? facts_.zero_bytes
       : looks_[i] == Look::kPlain ? facts_.plain_bytes
                                   : facts_.random_bytes) += LengthOf(i);
    }
    return Ok();
  }

  uint64_t LengthOf(uint64_t block) const {
    return std::min(kBlock, file_.Size() - block * kBlock);
  }

  Look LookAt(uint64_t offset, MutableBytes bytes) const {
    if (!ReadPadded(file_, offset, bytes) || AllZero(bytes)) return Look::kZero;
    const ByteStatistics statistics = StatisticsOf(bytes);
    if (LooksEncrypted(statistics, bytes.size())) return Look::kRandom;
    return NearlyLooksEncrypted(statistics, bytes.size()) ? Look::kNearly : Look::kPlain;
  }

  // One block in thousands of encrypted ones fails the test; one alone among others passes it.
  void SettleDoubts() {
    for (size_t i = 0; i < looks_.size(); ++i) {
      if (looks_[i] != Look::kNearly) continue;
      const bool before = i == 0 || looks_[i - 1] == Look::kRandom;
      const bool after = i + 1 == looks_.size() || looks_[i + 1] == Look::kRandom;
      looks_[i] = before && after ? Look::kRandom : Look::kPlain;
    }
  }

  void HeadAndTail() {
    uint64_t head = 0, tail = 0;
    while (head < looks_.size() && looks_[head] == Look::kRandom) ++head;
    while (tail < looks_.size() && looks_[looks_.size() - 1 - tail] == Look::kRandom) ++tail;
    if (head >= kLeastHead) facts_.head = std::min(head * kBlock, file_.Size());
    if (tail >= kLeastHead) facts_.tail = std::min(tail * kBlock, file_.Size());
  }

  // Stretches of one length, a gap of one length between each two, and nearly all that looks
  // encrypted belongs to them.
  void FindPlan() {
    std::vector<Stretch> stretches;
    for (uint64_t i = 0; i < looks_.size(); ++i) {
      if (looks_[i] != Look::kRandom) continue;
      if (stretches.empty() || stretches.back().begin + stretches.back().length != i) {
        stretches.push_back({i, 0});
      }
      ++stretches.back().length;
    }
    if (stretches.size() < kLeastRepeats) return;
    std::vector<uint64_t> lengths, steps;
    for (size_t i = 0; i < stretches.size(); ++i) {
      lengths.push_back(stretches[i].length);
      if (i > 0) steps.push_back(stretches[i].begin - stretches[i - 1].begin);
    }
    const uint64_t length = Median(lengths), step = Median(steps);
    uint64_t inside = 0, all = 0, repeats = 0;
    const Stretch *first = nullptr, *last = nullptr;
    for (size_t i = 0; i < stretches.size(); ++i) {
      all += stretches[i].length;
      const bool fits = Near(stretches[i].length, length) &&
                        (i == 0 || Near(steps[i - 1], step) || Near(steps[i - 1] % step, 0));
      if (!fits) continue;
      inside += stretches[i].length;
      ++repeats;
      if (first == nullptr) first = &stretches[i];
      last = &stretches[i];
    }
    if (repeats < kLeastRepeats || inside * 10 < all * 8) return;
    facts_.plan_on = length * kBlock;
    facts_.plan_off = (step - std::min(step, length)) * kBlock;
    facts_.plan_begin = first->begin * kBlock;
    facts_.plan_end = std::min((last->begin + last->length) * kBlock, file_.Size());
    facts_.plan_repeats = repeats;
  }

  // The parts of the file that are neither zero nor noise.
  void KeepPlain() {
    auto& plain = facts_.file_plain;
    for (uint64_t i = 0; i < looks_.size(); ++i) {
      if (looks_[i] != Look::kPlain) continue;
      if (!plain.empty() && plain.back().end() == i * kBlock) {
        plain.back().length += LengthOf(i);
      } else if (plain.size() < kMostRanges) {
        plain.push_back(MakeHostRange(i * kBlock, LengthOf(i)));
      } else {
        ++facts_.file_plain_more;
      }
    }
  }

  Status MapToDisk(const ImageRows& rows) {
    RowQuery query;
    query.layer = kActiveLayer;
    auto cursor = rows.Mappings(query);
    std::vector<MappingRow> batch;
    while (cursor != nullptr) {
      IMG_RETURN_IF_ERROR(CheckStop());
      IMG_RETURN_IF_ERROR(cursor->NextBatch(&batch));
      if (batch.empty()) break;
      for (const MappingRow& row : batch) {
        const bool plain_data = row.state == MappingState::kData && row.host_offset &&
                                (row.flags & (kMappingDataFile | kMappingEncrypted)) == 0;
        if (plain_data) MapRow(row);
      }
    }
    return Ok();
  }

  void MapRow(const MappingRow& row) {
    for (uint64_t done = 0; done < row.length;) {
      const uint64_t host = *row.host_offset + done;
      const uint64_t length = std::min(row.length - done, kBlock - host % kBlock);
      if (host / kBlock >= looks_.size()) return;
      const Look look = looks_[host / kBlock];
      if (look == Look::kRandom) {
        facts_.disk_random_bytes += length;
      } else if (look == Look::kPlain) {
        facts_.disk_plain_bytes += length;
        AddPlain(row.guest_offset + done, length);
      }
      done += length;
    }
  }
  void AddPlain(uint64_t offset, uint64_t length) {
    auto& plain = facts_.disk_plain;
    if (!plain.empty() && plain.back().end() == offset) {
      plain.back().length += length;
    } else if (plain.size() < kMostRanges) {
      plain.push_back(MakeGuestRange(offset, length));
    } else {
      ++facts_.disk_plain_more;
    }
  }

  const ByteSource& file_;
  std::vector<Look> looks_;
  EntropyFacts facts_;
};

}  // namespace

Result<EntropyFacts> ProfileEntropy(const ByteSource& file, const ImageRows* rows) {
  return Profile(file).Run(rows);
}

}  // namespace imgfsck

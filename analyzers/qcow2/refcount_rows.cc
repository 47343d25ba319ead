// SPDX-License-Identifier: Apache-2.0
// The SQL table `refcount`: runs of clusters with the same stored and found number of references.
#include <algorithm>

#include "analyzers/qcow2/refcounts.h"
#include "base/interrupt.h"

namespace imgfsck::qcow2 {
namespace {

class RefcountCursor : public RowCursor<RefcountRow> {
 public:
  RefcountCursor(std::shared_ptr<const Image> image, std::shared_ptr<const ClaimMap> claims,
                 const RowQuery& query)
      : image_(std::move(image)),
        claims_(std::move(claims)),
        blocks_(BlocksToCompare(*image_, claims_->clusters())) {
    unsigned bits = image_->geometry.cluster_bits;
    next_ = query.host_begin >> bits;
    uint64_t covered = image_->refcount_table.size() * image_->geometry.block_entries;
    end_ = std::max(covered, claims_->clusters());
    if (query.host_end != UINT64_MAX) end_ = std::min(end_, (query.host_end >> bits) + 1);
  }

  Status NextBatch(std::vector<RefcountRow>* batch) override {
    batch->clear();
    while (batch->size() < kBatch && next_ < end_) {
      IMG_RETURN_IF_ERROR(CheckStop());
      Step(batch);
    }
    if (next_ >= end_ && run_length_ > 0) Flush(batch);
    return Ok();
  }

 private:
  static constexpr size_t kBatch = 4096;

  // One refcount block, or what is left of it.
  void Step(std::vector<RefcountRow>* batch) {
    const Geometry& g = image_->geometry;
    uint64_t index = next_ / g.block_entries;
    uint64_t stop = std::min(end_, (index + 1) * g.block_entries);
    uint64_t offset = BlockOffset(*image_, index);
    if (next_ >= claims_->clusters() && !std::ranges::binary_search(blocks_, index)) {
      Flush(batch);
      next_ = stop;
      return;
    }
    if (offset != 0) {
      block_.resize(g.cluster_size);
      std::vector<HostRange> bad;
      ReadTolerant(*image_->source, offset, block_, &bad);
    }
    for (; next_ < stop; ++next_) {
      uint64_t stored =
          offset == 0 ? 0 : LoadRefcount(block_, g.refcount_order, next_ % g.block_entries);
      Add(stored, claims_->Count(next_), batch);
    }
  }

  void Add(uint64_t stored, uint64_t referenced, std::vector<RefcountRow>* batch) {
    if (run_length_ > 0 && run_.stored == stored && run_.referenced == referenced) {
      ++run_length_;
      return;
    }
    Flush(batch);
    run_.host_offset = next_ << image_->geometry.cluster_bits;
    run_.stored = stored;
    run_.referenced = referenced;
    run_length_ = 1;
  }
  // Clusters without a count and without a use are left out.
  void Flush(std::vector<RefcountRow>* batch) {
    if (run_length_ > 0 && (run_.stored != 0 || run_.referenced != 0)) {
      run_.length = run_length_ << image_->geometry.cluster_bits;
      batch->push_back(run_);
    }
    run_length_ = 0;
  }

  std::shared_ptr<const Image> image_;
  std::shared_ptr<const ClaimMap> claims_;
  std::vector<uint64_t> blocks_;
  uint64_t next_ = 0, end_ = 0, run_length_ = 0;
  RefcountRow run_;
  ByteVector block_;
};

}  // namespace

std::unique_ptr<RowCursor<RefcountRow>> RefcountRows(std::shared_ptr<const Image> image,
                                                     std::shared_ptr<const ClaimMap> claims,
                                                     const RowQuery& query) {
  return std::make_unique<RefcountCursor>(std::move(image), std::move(claims), query);
}

}  // namespace imgfsck::qcow2

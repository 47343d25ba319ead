// SPDX-License-Identifier: Apache-2.0
// The view: a page that was written comes from the page store; everything else from the base, as
// far as the base counts. It counts up to the smallest size the overlay ever had: what a SetSize
// cut off reads as zeros when the file grows again.
#include "io/overlay.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/checked.h"
#include "io/overlay_impl.h"

namespace imgfsck {
namespace {

static_assert(Overlay::kPage == PageStore::kPage);

constexpr uint64_t kLargestSize = std::numeric_limits<int64_t>::max();  // bytes; off_t's

}  // namespace

Overlay::Overlay(const ByteSource& base, OverlayOptions options)
    : base_(base), size_(base.Size()), impl_(std::make_unique<Impl>(options)) {
  impl_->base_counts = size_;
}

Overlay::~Overlay() = default;

Result<size_t> Overlay::ReadAt(uint64_t offset, MutableBytes buffer) const {
  if (offset >= size_) return size_t{0};
  buffer = buffer.first(std::min<uint64_t>(buffer.size(), size_ - offset));
  const uint64_t end = offset + buffer.size();
  uint64_t next_page = impl_->pages.NextHeld(offset / kPage);
  for (uint64_t at = offset; at < end;) {
    const auto rest = buffer.subspan(at - offset);
    const uint64_t next_start = SaturatingMul(next_page, kPage);
    if (at < next_start) {
      const uint64_t length = std::min(next_start, end) - at;
      const uint64_t from_base =
          at < impl_->base_counts ? std::min(length, impl_->base_counts - at) : 0;
      if (from_base > 0) IMG_RETURN_IF_ERROR(ReadPadded(base_, at, rest.first(from_base)));
      std::ranges::fill(rest.subspan(from_base, length - from_base), uint8_t{0});
      at += length;
      continue;
    }
    const uint64_t in_page = at - next_start;
    const uint64_t length = std::min(kPage - in_page, end - at);
    IMG_RETURN_IF_ERROR(impl_->pages.Read(next_page, in_page, rest.first(length)));
    at += length;
    if (at < end) next_page = impl_->pages.NextHeld(next_page + 1);
  }
  return buffer.size();
}

Result<HostExtent> Overlay::ExtentAt(uint64_t offset) const {
  if (offset >= size_) {
    return Error{ErrorCode::kInvalid, "no extent past the end of the file", offset};
  }
  const uint64_t page = offset / kPage;
  if (impl_->pages.Has(page)) {
    const uint64_t end = std::min(size_, impl_->pages.NextMissing(page) * kPage);
    return HostExtent{offset, end - offset, false};
  }
  const uint64_t end = std::min(size_, SaturatingMul(impl_->pages.NextHeld(page), kPage));
  if (offset >= impl_->base_counts) return HostExtent{offset, end - offset, true};
  IMG_ASSIGN_OR_RETURN(HostExtent extent, base_.ExtentAt(offset));
  extent.length = std::min({extent.length, end - offset, impl_->base_counts - offset});
  return extent;
}

void Overlay::Prefetch(uint64_t offset, uint64_t length) const {
  if (offset >= impl_->base_counts) return;
  base_.Prefetch(offset, std::min(length, impl_->base_counts - offset));
}

Status Overlay::WriteAt(uint64_t offset, Bytes bytes) {
  if (bytes.empty()) return Ok();
  const uint64_t end = SaturatingAdd(offset, bytes.size());
  if (end > kLargestSize) {
    return Error{ErrorCode::kNoSpace, fmt::format("a write at {:#x} does not fit", offset), offset};
  }
  ByteVector content(kPage);
  for (uint64_t at = offset; at < end;) {
    const uint64_t page = at / kPage, in_page = at % kPage;
    const uint64_t length = std::min(kPage - in_page, end - at);
    const Bytes part = bytes.subspan(at - offset, length);
    if (impl_->pages.Has(page)) {
      IMG_RETURN_IF_ERROR(impl_->pages.Write(page, in_page, part));
    } else {
      if (length < kPage) IMG_RETURN_IF_ERROR(ReadPadded(*this, page * kPage, content));
      std::ranges::copy(part, content.begin() + static_cast<ptrdiff_t>(in_page));
      IMG_RETURN_IF_ERROR(impl_->pages.Insert(page, content));
    }
    at += length;
    size_ = std::max(size_, at);
  }
  return Ok();
}

Status Overlay::SetSize(uint64_t size) {
  if (size > kLargestSize) {
    return Error{ErrorCode::kNoSpace, fmt::format("a file cannot have {} bytes", size), {}};
  }
  if (size < size_) {
    // The rest of a page that straddles the new end must read as zeros when the file grows again.
    const uint64_t page = size / kPage, in_page = size % kPage;
    if (in_page != 0 && impl_->pages.Has(page)) {
      const ByteVector zeros(kPage - in_page);
      IMG_RETURN_IF_ERROR(impl_->pages.Write(page, in_page, zeros));
    }
    impl_->pages.EraseFrom(DivRoundUp(size, kPage));
    impl_->base_counts = std::min(impl_->base_counts, size);
  }
  size_ = size;
  return Ok();
}

bool Overlay::Changed() const {
  return impl_->pages.Count() > 0 || size_ != base_.Size() || impl_->base_counts < size_;
}

uint64_t Overlay::PagesHeld() const { return impl_->pages.Count(); }

std::vector<HostRange> Overlay::TouchedRanges() const {
  std::vector<HostRange> ranges;
  const PageStore& pages = impl_->pages;
  for (uint64_t page = pages.NextHeld(0); page != UINT64_MAX;) {
    const uint64_t end = pages.NextMissing(page);
    ranges.push_back(MakeHostRange(page * kPage, std::min(end * kPage, size_) - page * kPage));
    page = pages.NextHeld(end);
  }
  return ranges;
}

Status Overlay::Absorb(const Overlay& other) {
  IMG_CHECK(&other.base_ == this);
  if (other.impl_->base_counts < size_) IMG_RETURN_IF_ERROR(SetSize(other.impl_->base_counts));
  IMG_RETURN_IF_ERROR(SetSize(other.size_));
  ByteVector content(kPage);
  const PageStore& pages = other.impl_->pages;
  for (uint64_t page = pages.NextHeld(0); page != UINT64_MAX; page = pages.NextHeld(page + 1)) {
    const auto part = MutableBytes(content).first(std::min(kPage, size_ - page * kPage));
    IMG_RETURN_IF_ERROR(pages.Read(page, 0, part));
    IMG_RETURN_IF_ERROR(WriteAt(page * kPage, part));
  }
  return Ok();
}

}  // namespace imgfsck

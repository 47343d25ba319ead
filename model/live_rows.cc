// SPDX-License-Identifier: Apache-2.0
#include "model/live_rows.h"

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"

namespace imgfsck {
namespace {

// Drops rows whose host range does not start, or hold the byte, where the scan wants it. A row
// without a host range meets no such constraint.
template <class Row>
void KeepHostWanted(const Scan& scan, std::vector<Row>* rows) {
  if (scan.host.all() && !scan.host_at) return;
  auto unwanted = [&](const Row& row) {
    std::optional<uint64_t> start(row.host_offset);
    if (!start || !scan.host.Contains(*start)) return true;
    uint64_t length = row.length;
    if constexpr (requires { row.host_length; }) length = row.host_length.value_or(length);
    return scan.host_at && !MakeHostRange(*start, length).Contains(*scan.host_at);
  };
  rows->erase(std::remove_if(rows->begin(), rows->end(), unwanted), rows->end());
}

// The rows that start in scan.host, or hold scan.host_at. One byte more below: a row that starts
// at `first` is then told from one that is cut there.
void SetHost(const Scan& scan, RowQuery* query) {
  if (!scan.host.all()) {
    query->host_begin = scan.host.first - (scan.host.first > 0 ? 1 : 0);
    query->host_end = SaturatingAdd(scan.host.last, 1);
  }
  if (scan.host_at) {
    query->host_begin = *scan.host_at;
    query->host_end = SaturatingAdd(*scan.host_at, 1);
  }
}

// Layer by layer. A format may cut extents at the ends of the range it is asked for; so that a row
// is the same whatever the WHERE says, we ask from one byte below the first start and without an
// end, and stop by ourselves.
class MappingScan : public RowCursor<MappingRow> {
 public:
  MappingScan(const ImageRows& rows, const Scan& scan,
              std::vector<std::optional<std::string>> layers)
      : rows_(rows), scan_(scan), layers_(std::move(layers)) {}

  Status NextBatch(std::vector<MappingRow>* batch) override {
    batch->clear();
    while (batch->empty()) {
      IMG_RETURN_IF_ERROR(CheckStop());
      if (cursor_ == nullptr && !OpenLayer()) return Ok();
      IMG_RETURN_IF_ERROR(cursor_->NextBatch(batch));
      if (batch->empty() || CutAtLastStart(batch)) cursor_.reset();
      KeepHostWanted(scan_, batch);
      if (scan_.guest_at) KeepGuestAt(*scan_.guest_at, batch);
    }
    return Ok();
  }

 private:
  static void KeepGuestAt(uint64_t guest, std::vector<MappingRow>* batch) {
    std::erase_if(*batch, [guest](const MappingRow& row) {
      return !MakeGuestRange(row.guest_offset, row.length).Contains(guest);
    });
  }
  bool OpenLayer() {
    if (next_layer_ == layers_.size()) return false;
    RowQuery query;
    query.layer = layers_[next_layer_++];
    query.per_cluster = scan_.per_cluster;
    query.guest_begin = scan_.guest.first - (scan_.guest.first > 0 ? 1 : 0);
    if (scan_.guest_at) {
      query.guest_begin = *scan_.guest_at;
      query.guest_end = SaturatingAdd(*scan_.guest_at, 1);
    }
    SetHost(scan_, &query);
    cursor_ = rows_.Mappings(query);
    return cursor_ != nullptr;
  }

  // Rows of a layer ascend: behind the last wanted start there is nothing more.
  bool CutAtLastStart(std::vector<MappingRow>* batch) const {
    const uint64_t last = std::min(scan_.guest.last, scan_.guest_at.value_or(UINT64_MAX));
    if (last == UINT64_MAX || !layers_[next_layer_ - 1]) return false;
    auto beyond = std::find_if(batch->begin(), batch->end(),
                               [&](const MappingRow& row) { return row.guest_offset > last; });
    const bool ends = beyond != batch->end();
    batch->erase(beyond, batch->end());
    return ends;
  }

  const ImageRows& rows_;
  Scan scan_;
  std::vector<std::optional<std::string>> layers_;
  size_t next_layer_ = 0;
  std::unique_ptr<RowCursor<MappingRow>> cursor_;
};

// Passes on what another cursor yields, as far as the scan wants it.
template <class Row>
class HostScan : public RowCursor<Row> {
 public:
  HostScan(std::unique_ptr<RowCursor<Row>> cursor, const Scan& scan)
      : cursor_(std::move(cursor)), scan_(scan) {}
  Status NextBatch(std::vector<Row>* batch) override {
    do {
      IMG_RETURN_IF_ERROR(CheckStop());
      IMG_RETURN_IF_ERROR(cursor_->NextBatch(batch));
      if (batch->empty()) return Ok();
      KeepHostWanted(scan_, batch);
    } while (batch->empty());
    return Ok();
  }

 private:
  std::unique_ptr<RowCursor<Row>> cursor_;
  Scan scan_;
};

class FindingScan : public RowCursor<FindingPointer> {
 public:
  explicit FindingScan(const Findings& findings) : findings_(findings) {}
  Status NextBatch(std::vector<FindingPointer>* batch) override {
    batch->clear();
    const auto& kept = findings_.kept();
    for (size_t i = 0; i < kBatch && next_ < kept.size(); ++i) batch->push_back(&kept[next_++]);
    return Ok();
  }

 private:
  static constexpr size_t kBatch = 4096;
  const Findings& findings_;
  size_t next_ = 0;
};

}  // namespace

Result<std::unique_ptr<RowCursor<MappingRow>>> OpenMappings(LiveState& state, const Scan& scan) {
  const ImageRows& rows = *state.source().rows;
  std::vector<std::string> names = rows.Layers();
  std::vector<std::string> sorted = names;
  std::sort(sorted.begin(), sorted.end());
  const bool unique = std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end();
  std::vector<std::optional<std::string>> layers;
  if (unique) {
    for (const std::string& name : names) {
      if (!scan.layer || ValidUtf8(name) == *scan.layer) layers.emplace_back(name);
    }
  } else {
    layers.emplace_back(std::nullopt);  // all in one walk, in whatever order; SQLite filters
  }
  return {std::make_unique<MappingScan>(rows, scan, std::move(layers))};
}

Result<std::unique_ptr<RowCursor<RegionRow>>> OpenRegions(LiveState& state, const Scan& scan) {
  RowQuery query;
  SetHost(scan, &query);
  auto cursor = state.source().rows->Regions(query);
  if (cursor == nullptr) return {nullptr};
  return {std::make_unique<HostScan<RegionRow>>(std::move(cursor), scan)};
}

Result<std::unique_ptr<RowCursor<RefcountRow>>> OpenRefcounts(LiveState& state, const Scan& scan) {
  if (!state.source().refcounts) return {nullptr};
  // Runs are few: we ask for all of them, whole, and filter here.
  IMG_ASSIGN_OR_RETURN(auto cursor, state.source().refcounts(RowQuery{}));
  if (cursor == nullptr) return {nullptr};
  return {std::make_unique<HostScan<RefcountRow>>(std::move(cursor), scan)};
}

Result<std::unique_ptr<RowCursor<BitmapRangeRow>>> OpenBitmapRanges(LiveState& state, const Scan&) {
  return state.source().rows->BitmapRanges();
}

Result<std::unique_ptr<RowCursor<FindingPointer>>> OpenFindings(LiveState& state, const Scan&) {
  IMG_ASSIGN_OR_RETURN(const Findings* findings, state.findings());
  return {std::make_unique<FindingScan>(*findings)};
}

}  // namespace imgfsck

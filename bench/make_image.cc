// SPDX-License-Identifier: Apache-2.0
// Makes a large qcow2 image whose guest disk is allocated throughout: all metadata is real, every
// data cluster is a hole, so that 1 TiB takes 200 MB. The same arguments make the same bytes. Never
// writes to a file that exists.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>

#include "base/text.h"
#include "bench/host_order.h"
#include "formats/qcow2/header.h"
#include "formats/qcow2/snapshots.h"
#include "io/file.h"

namespace imgfsck::bench {
namespace {

constexpr uint64_t kSeed = 20220914;
constexpr uint64_t kOwnEvery = 16;     // a snapshot has its own copy of one L2 table in so many …
constexpr uint64_t kOwnClusters = 64;  // … with so many data clusters of its own
constexpr uint64_t kCrossLinks = 1000;

struct Options {
  std::string path;
  uint64_t size = 0;  // bytes of the guest's disk
  unsigned cluster_bits = 16;
  uint32_t snapshots = 0;
  bool permute = false;
  bool damage = false;
  uint64_t wrong_every = 100;  // with damage: clusters of which one has a wrong count
  bool no_counts = false;      // all counts are 0
};

class ImageMaker {
 public:
  ImageMaker(const Options& options, FileStore& store);
  Status Make();
  std::string Summary() const;

 private:
  using L1 = std::vector<uint64_t>;

  Status MakeTable(uint64_t table);
  Status WriteTable(const std::vector<uint64_t>& entries, uint64_t host);
  Status WriteStart();
  Status WriteCounts();
  ByteVector SnapshotTableBytes() const;
  void Damage(std::vector<uint64_t>* entries, uint64_t table);
  // Whether snapshot `s` has its own copy of L2 table `table`, and its own cluster at entry `i`.
  bool OwnsTable(uint32_t s, uint64_t table) const { return (table + s) % kOwnEvery == 0; }
  bool OwnsCluster(uint32_t s, uint64_t i) const {
    return (i + geometry_.l2_entries - s * own_clusters_ % geometry_.l2_entries) %
               geometry_.l2_entries <
           own_clusters_;
  }
  uint16_t Owners(uint64_t table, uint64_t i) const;
  uint64_t OwnedClusters() const;
  uint64_t ClustersOfL1() const { return DivRoundUp(tables_ * 8, geometry_.cluster_size); }

  Options options_;
  FileStore& store_;
  qcow2::Geometry geometry_;
  uint64_t data_clusters_, tables_, own_clusters_;
  FilePlan plan_;
  std::optional<HostOrder> order_;
  Random damage_random_{kSeed + 1};
  uint64_t wrong_counts_ = 0, cross_links_ = 0;
  std::vector<L1> l1_;            // the active one, then each snapshot's
  std::vector<uint16_t> counts_;  // by host cluster
};

ImageMaker::ImageMaker(const Options& options, FileStore& store)
    : options_(options),
      store_(store),
      geometry_(qcow2::Geometry::Make(options.cluster_bits, false, 4)),
      data_clusters_(geometry_.ClustersOf(options.size)),
      tables_(geometry_.MinL1Entries(options.size)),
      own_clusters_(std::min(kOwnClusters, geometry_.l2_entries / 2)) {
  uint64_t contiguous = 1 + ClustersOfL1() * (1 + uint64_t{options.snapshots}) +
                        geometry_.ClustersOf(SnapshotTableBytes().size());
  plan_ = PlanFile(contiguous, data_clusters_ + tables_ + OwnedClusters(), geometry_.cluster_size,
                   geometry_.block_entries);
  order_.emplace(plan_, geometry_.block_entries, options.permute, Random(kSeed));
  l1_.assign(1 + options.snapshots, L1(tables_));
  counts_.resize(plan_.total);
  std::fill_n(counts_.begin(), plan_.fixed, uint16_t{1});
}

// Tables and data clusters that belong to snapshots alone.
uint64_t ImageMaker::OwnedClusters() const {
  uint64_t clusters = 0;
  for (uint32_t s = 0; s < options_.snapshots; ++s) {
    for (uint64_t t = 0; t < tables_; ++t) {
      if (!OwnsTable(s, t)) continue;
      uint64_t entries = std::min(geometry_.l2_entries, data_clusters_ - t * geometry_.l2_entries);
      ++clusters;
      for (uint64_t i = 0; i < entries; ++i) clusters += OwnsCluster(s, i) ? 1 : 0;
    }
  }
  return clusters;
}

// How many snapshots have a cluster of their own instead of the active disk's.
uint16_t ImageMaker::Owners(uint64_t table, uint64_t i) const {
  uint16_t owners = 0;
  for (uint32_t s = static_cast<uint32_t>((kOwnEvery - table % kOwnEvery) % kOwnEvery);
       s < options_.snapshots; s += kOwnEvery) {
    owners = static_cast<uint16_t>(owners + (OwnsCluster(s, i) ? 1 : 0));
  }
  return owners;
}

Status ImageMaker::WriteTable(const std::vector<uint64_t>& entries, uint64_t host) {
  ByteVector bytes(geometry_.cluster_size);
  for (size_t i = 0; i < entries.size(); ++i) StoreBe(&bytes[i * 8], entries[i]);
  return store_.WriteAt(host << geometry_.cluster_bits, bytes);
}

// One L2 table of the active disk with its data, and the snapshots' own copies of it.
Status ImageMaker::MakeTable(uint64_t table) {
  const uint64_t first = table * geometry_.l2_entries;
  const auto everybody = static_cast<uint16_t>(1 + options_.snapshots);
  const uint64_t host = order_->Next();
  std::vector<uint64_t> entries(std::min(geometry_.l2_entries, data_clusters_ - first));
  for (uint64_t i = 0; i < entries.size(); ++i) {
    uint64_t data = order_->Next();
    counts_[data] = static_cast<uint16_t>(everybody - Owners(table, i));
    entries[i] = (data << geometry_.cluster_bits) | (counts_[data] == 1 ? qcow2::kCopied : 0);
  }
  counts_[host] = everybody;
  for (uint32_t s = 0; s < options_.snapshots; ++s) {
    l1_[1 + s][table] = host << geometry_.cluster_bits;
    if (!OwnsTable(s, table)) continue;
    const uint64_t own_host = order_->Next();
    --counts_[host];
    counts_[own_host] = 1;
    l1_[1 + s][table] = own_host << geometry_.cluster_bits;
    std::vector<uint64_t> own = entries;
    for (uint64_t i = 0; i < own.size(); ++i) {
      own[i] &= ~qcow2::kCopied;  // set for the active disk only
      if (!OwnsCluster(s, i)) continue;
      uint64_t data = order_->Next();
      counts_[data] = 1;
      own[i] = data << geometry_.cluster_bits;
    }
    IMG_RETURN_IF_ERROR(WriteTable(own, own_host));
  }
  l1_[0][table] = (host << geometry_.cluster_bits) | (counts_[host] == 1 ? qcow2::kCopied : 0);
  if (options_.damage) Damage(&entries, table);
  return WriteTable(entries, host);
}

// Wrong counts, half of them 0 and half too high; entries that point to their neighbour's data.
void ImageMaker::Damage(std::vector<uint64_t>* entries, uint64_t table) {
  const uint64_t link_every = std::max<uint64_t>(data_clusters_ / kCrossLinks, 2);
  for (uint64_t i = 0; i < entries->size(); ++i) {
    uint64_t& entry = (*entries)[i];
    const uint64_t data = (entry & qcow2::kOffsetMask) >> geometry_.cluster_bits;
    if (damage_random_.Below(options_.wrong_every) == 0) {
      bool high = ++wrong_counts_ % 2 == 0;
      counts_[data] = high ? static_cast<uint16_t>(counts_[data] + 1) : uint16_t{0};
    } else if (i > 0 && (table * geometry_.l2_entries + i) % link_every == link_every - 1) {
      entry = (*entries)[i - 1];
      ++cross_links_;
    }
  }
}

ByteVector ImageMaker::SnapshotTableBytes() const {
  ByteVector bytes;
  for (uint32_t s = 0; s < options_.snapshots; ++s) {
    qcow2::Snapshot snapshot;
    // The L1 tables follow the header and the active L1 table.
    snapshot.l1_table_offset = (1 + ClustersOfL1() * (1 + uint64_t{s})) << geometry_.cluster_bits;
    snapshot.l1_size = static_cast<uint32_t>(tables_);
    snapshot.date_sec = 1660000000 + s * 86400;
    snapshot.extra.resize(qcow2::kMinSnapshotExtraV3);  // VM state size, disk size
    PutBe(snapshot.extra, 8, options_.size);
    snapshot.id = std::to_string(s + 1);
    snapshot.name = fmt::format("day-{}", s + 1);
    ByteVector entry = qcow2::EncodeSnapshot(snapshot);
    bytes.insert(bytes.end(), entry.begin(), entry.end());
  }
  return bytes;
}

// The contiguous part: header, L1 tables, snapshot table, refcount table.
Status ImageMaker::WriteStart() {
  const unsigned bits = geometry_.cluster_bits;
  const ByteVector snapshot_table = SnapshotTableBytes();
  const uint64_t snapshots_at = 1 + ClustersOfL1() * l1_.size();
  const uint64_t refcounts_at = snapshots_at + geometry_.ClustersOf(snapshot_table.size());
  qcow2::Header header;
  header.magic = qcow2::kMagic;
  header.version = 3;
  header.cluster_bits = bits;
  header.size = options_.size;
  header.l1_size = static_cast<uint32_t>(tables_);
  header.l1_table_offset = uint64_t{1} << bits;
  header.refcount_table_offset = refcounts_at << bits;
  header.refcount_table_clusters = static_cast<uint32_t>(plan_.table_clusters);
  header.nb_snapshots = options_.snapshots;
  header.snapshots_offset = options_.snapshots == 0 ? 0 : snapshots_at << bits;
  header.header_length = qcow2::kHeaderLengthCurrent;
  ByteVector start(plan_.fixed << bits);
  qcow2::EncodeHeader(header, start);
  for (size_t k = 0; k < l1_.size(); ++k) {
    for (uint64_t t = 0; t < tables_; ++t) {
      PutBe(start, ((1 + ClustersOfL1() * k) << bits) + t * 8, l1_[k][t]);
    }
  }
  std::ranges::copy(snapshot_table, start.begin() + static_cast<int64_t>(snapshots_at << bits));
  for (size_t k = 0; k < order_->blocks().size(); ++k) {
    PutBe(start, (refcounts_at << bits) + k * 8, order_->blocks()[k] << bits);
  }
  return store_.WriteAt(0, start);
}

Status ImageMaker::WriteCounts() {
  if (options_.no_counts) return Ok();  // holes
  ByteVector block(geometry_.cluster_size);
  for (uint64_t k = 0; k < order_->blocks().size(); ++k) {
    const uint64_t first = k * geometry_.block_entries;
    std::ranges::fill(block, uint8_t{0});
    const uint64_t count = std::min(geometry_.block_entries, plan_.total - first);
    for (uint64_t i = 0; i < count; ++i) StoreBe(&block[i * 2], counts_[first + i]);
    IMG_RETURN_IF_ERROR(store_.WriteAt(order_->blocks()[k] << geometry_.cluster_bits, block));
  }
  return Ok();
}

Status ImageMaker::Make() {
  IMG_RETURN_IF_ERROR(store_.SetSize(plan_.total << geometry_.cluster_bits));
  for (uint64_t t = 0; t < tables_; ++t) IMG_RETURN_IF_ERROR(MakeTable(t));
  IMG_CHECK(order_->complete());
  for (uint64_t block : order_->blocks()) counts_[block] = 1;
  IMG_RETURN_IF_ERROR(WriteCounts());
  IMG_RETURN_IF_ERROR(WriteStart());
  return store_.Sync();
}

std::string ImageMaker::Summary() const {
  return fmt::format(
      "{}: {} clusters, {} L2 tables, {} refcount blocks, {} wrong counts, "
      "{} cross-links\n",
      options_.path, plan_.total, tables_, plan_.blocks, wrong_counts_, cross_links_);
}

// What the format and 32-bit cluster numbers allow; empty when all is well.
std::string Complaint(const Options& o) {
  if (o.size == 0 || o.size % kSector != 0) return "--size: must be a multiple of 512, not 0";
  auto g = qcow2::Geometry::Make(o.cluster_bits, false, 4);
  if (g.ClustersOf(o.size) > uint64_t{3} << 30) return "--size: too many clusters";
  if (g.MinL1Entries(o.size) * 8 > qcow2::kMaxL1Bytes) return "--size: too large for the L1 table";
  return {};
}

int Main(int argc, char** argv) {
  CLI::App app("Makes a large, sparse qcow2 image for measurements");
  Options o;
  std::string size;
  app.add_option("FILE", o.path, "The new image")->required();
  app.add_option("--size", size, "Size of the guest's disk, as 1T")->required();
  app.add_option("--cluster-bits", o.cluster_bits)
      ->check(CLI::Range(qcow2::kMinClusterBits, qcow2::kMaxClusterBits));
  app.add_flag("--permute", o.permute, "A random order in the file, tables among the data");
  app.add_option("--snapshots", o.snapshots, "Snapshots that share most tables")
      ->check(CLI::Range(0, 1000));
  app.add_flag("--damage", o.damage, "1 % of the data's counts wrong, 1000 cross-links");
  app.add_option("--wrong-every", o.wrong_every, "With --damage: one count of so many is wrong")
      ->check(CLI::Range(2, 1 << 30));
  app.add_flag("--no-counts", o.no_counts, "All counts are 0");
  CLI11_PARSE(app, argc, argv);
  o.size = ParseSize(size).value_or(0);
  if (std::string complaint = Complaint(o); !complaint.empty()) {
    fmt::print(stderr, "make_image: {}\n", complaint);
    return 16;
  }
  auto store = FileStore::Open(o.path, FileStore::Mode::kCreateNew);
  Status status = store ? Ok() : Status(store.error());
  if (store) {
    ImageMaker maker(o, **store);
    status = maker.Make();
    if (status) fmt::print("{}", maker.Summary());
  }
  if (status) return 0;
  fmt::print(stderr, "make_image: {}\n", status.error().message);
  return 8;
}

}  // namespace
}  // namespace imgfsck::bench

int main(int argc, char** argv) { return imgfsck::bench::Main(argc, argv); }

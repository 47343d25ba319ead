// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/recover/compose.h"

#include <algorithm>

#include "formats/common/tolerant.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kFirstBytes = 64 * kKiB;  // the area of extensions that is looked at

// The header as version 3 would have it, whatever version it names.
Header AsVersion3(Bytes first) {
  ByteVector bytes(kHeaderLengthCurrent);
  std::copy_n(first.begin(), std::min(first.size(), bytes.size()), bytes.begin());
  PutBe(bytes, 4, uint32_t{3});
  return ParseHeader(bytes);
}

bool KnownExtension(const Extension& record) { return ExtensionName(record.type) != "unknown"; }

}  // namespace

Composer::Composer(const ByteSource& source, const Image& stored) : header_(stored.header) {
  first_.resize(std::min(source.Size(), kFirstBytes));
  std::vector<HostRange> bad;
  ReadTolerant(source, 0, first_, &bad);
  Header h = AsVersion3(first_);
  version3_ = h.header_length >= kHeaderLengthV3 && h.header_length <= 4096 &&
              h.header_length % 8 == 0 && h.refcount_order <= kMaxRefcountOrder &&
              (h.incompatible_features & ~kIncompatKnown) == 0 &&
              (h.compatible_features & ~kCompatKnown) == 0 &&
              (h.autoclear_features & ~kAutoclearKnown) == 0 && h.compression_type <= kZstd;
}

bool Composer::Trusts(const Layout& layout) const {
  int agree = header_.magic == kMagic;
  agree += header_.version == 2 || header_.version == 3;
  agree += header_.cluster_bits == layout.cluster_bits;
  agree += layout.l1_offset != 0 && header_.l1_table_offset == layout.l1_offset;
  if (layout.has_tree()) {
    agree += header_.refcount_table_offset == layout.rt_offset;
    agree += header_.refcount_table_clusters == layout.rt_clusters;
  }
  return agree >= 4;
}

// The extension area parses to its end, and holds nothing that nobody knows.
bool Composer::KeepsExtensions(const Layout& layout) const {
  uint64_t cluster = std::min<uint64_t>(first_.size(), uint64_t{1} << layout.cluster_bits);
  Header h = AsVersion3(first_);
  h.backing_file_offset = 0;
  ExtensionArea area = ParseExtensions(h, Bytes(first_).first(cluster));
  return version3_ && area.end_marker && !area.overrun &&
         std::ranges::all_of(area.records, KnownExtension);
}

Header Composer::Believed(const Wish& wish) const {
  Header h = header_;
  const Layout& layout = wish.layout;
  bool plain = layout.refcount_order == 4 && !layout.extended_l2 && !layout.data_file;
  if (h.version != 2 && h.version != 3) h.version = version3_ || !plain ? 3 : 2;
  if (!plain || (h.version == 2 && version3_)) h.version = 3;
  // Fields of version 3 that are none: zeros, or extensions of a version 2 header.
  if (h.version == 3 && header_.version == 3 && !version3_ && plain &&
      header_.header_length < kHeaderLengthV3 && header_.refcount_order != 4) {
    h.version = 2;
  }
  if (h.is_v3() && !header_.is_v3()) {
    Header other = AsVersion3(first_);
    h.incompatible_features = version3_ ? other.incompatible_features : 0;
    h.compatible_features = version3_ ? other.compatible_features : 0;
    h.autoclear_features = version3_ ? other.autoclear_features : 0;
    h.header_length = version3_ ? other.header_length : static_cast<uint32_t>(kHeaderLengthV3);
    h.compression_type = version3_ ? other.compression_type : uint8_t{kDeflate};
  }
  return h;
}

ByteVector Composer::Compose(const Wish& wish, Header* header) const {
  const Layout& layout = wish.layout;
  bool believed = Trusts(layout);
  bool keeps = !believed && KeepsExtensions(layout);
  Header h = believed ? Believed(wish) : HeaderFor(layout);
  if (keeps) {
    Header other = AsVersion3(first_);
    h.header_length = other.header_length;
    h.incompatible_features = other.incompatible_features;
    h.compatible_features = other.compatible_features;
    h.autoclear_features = other.autoclear_features;
    h.compression_type = other.compression_type;
  } else if (!believed && wish.compressed_zstd) {
    h.compression_type = kZstd;
    h.incompatible_features |= kIncompatCompression;
  }
  h.magic = kMagic;
  h.cluster_bits = layout.cluster_bits;
  h.l1_table_offset = layout.l1_offset;
  h.l1_size = static_cast<uint32_t>(layout.l1_entries);
  // Where no refcount structures were found, what is believed stays: they will be rebuilt.
  if (layout.has_tree() || !believed) {
    h.refcount_table_offset = layout.rt_offset;
    h.refcount_table_clusters = static_cast<uint32_t>(layout.rt_clusters);
  }
  if (h.is_v3()) {
    if (layout.has_tree() || !believed || h.refcount_order > kMaxRefcountOrder) {
      h.refcount_order = layout.refcount_order;
    }
    h.incompatible_features &= ~(kIncompatExtendedL2 | kIncompatDataFile);
    if (layout.extended_l2) h.incompatible_features |= kIncompatExtendedL2;
    if (layout.data_file) h.incompatible_features |= kIncompatDataFile;
  }
  if (wish.size != 0) h.size = wish.size;
  std::vector<ExtensionRecord> extensions;
  if (wish.side != nullptr) {
    h.snapshots_offset = wish.side->snapshots_offset;
    h.nb_snapshots = wish.side->nb_snapshots;
    if (!believed && !keeps && wish.side->encryption) {
      h.crypt_method = kCryptLuks;
      extensions.push_back({kExtEncryption, *wish.side->encryption});
    }
    if (!believed && !keeps && wish.side->bitmaps) {
      h.autoclear_features |= kAutoclearBitmaps;
      extensions.push_back({kExtBitmaps, *wish.side->bitmaps});
    }
  }
  if (header != nullptr) *header = h;
  if (!believed && !keeps) return EncodeFirstCluster(h, extensions);
  ByteVector bytes(first_.begin(), first_.begin() + static_cast<ptrdiff_t>(std::min<size_t>(
                                                        first_.size(), kHeaderLengthCurrent)));
  bytes.resize(kHeaderLengthCurrent);
  if (keeps) {
    ExtensionArea area = ParseExtensions(h, Bytes(first_));
    if (area.Find(kExtEncryption) != nullptr) h.crypt_method = kCryptLuks;
    if (header != nullptr) *header = h;
  }
  EncodeHeader(h, bytes);
  return bytes;
}

}  // namespace imgfsck::qcow2

// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/luks_search.h"

#include <algorithm>
#include <set>
#include <string>

#include "analyzers/qcow2/entry_rules.h"
#include "formats/common/tolerant.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kLuksSearchMaxOrphans = 1 << 20;  // clusters, 592 bytes of each
constexpr uint64_t kClustersSampled = 256;
constexpr size_t kTextRun = 64;  // bytes of text that ciphertext does not hold by chance

bool HasTextRun(Bytes sector) {
  size_t run = 0;
  for (uint8_t byte : sector) {
    const bool text = (byte >= 0x20 && byte < 0x7F) || byte == '\n' || byte == '\t' || byte == '\r';
    run = text ? run + 1 : 0;
    if (run == kTextRun) return true;
  }
  return false;
}

// Each sector is encrypted under its own number, so that equal sectors do not come out equal. Zeros
// prove nothing: space may be set aside without being written.
bool IsPlain(Bytes cluster) {
  std::set<std::string_view> seen;
  for (size_t at = 0; at + kSector <= cluster.size(); at += kSector) {
    const Bytes sector = cluster.subspan(at, kSector);
    if (AllZero(sector)) continue;
    if (HasTextRun(sector) || !seen.insert(AsText(sector)).second) return true;
  }
  return false;
}

// Only the extension's own claim, or none, on any cluster of the header and its keys.
bool IsUnshared(const CheckState& state, uint64_t offset, uint64_t length) {
  const Image& image = *state.image;
  const unsigned bits = image.geometry.cluster_bits;
  const bool claimed = image.encryption && image.encryption->offset == offset;
  for (uint64_t c = offset >> bits; c <= (offset + length - 1) >> bits; ++c) {
    if (state.claims().Count(c) > (claimed ? 1 : 0)) return false;
  }
  return true;
}

}  // namespace

std::optional<LuksHeader> PlausibleLuks(const ByteSource& bytes, const Image& image,
                                        uint64_t offset) {
  auto luks = ParseLuks(bytes, offset);
  if (!luks || offset == 0 || !IsAligned(offset, image.geometry.cluster_size) || !luks->magic_ok ||
      luks->version != 1 || !luks->strings_terminated || !luks->cipher_known() ||
      luks->master_key_length < 16 || luks->master_key_length > 128 ||
      luks->digest_iterations == 0) {
    return std::nullopt;
  }
  uint64_t end = kLuksFirstKeySector;
  for (const LuksSlot& slot : luks->slots) {
    if (slot.state == kLuksSlotActive) end = std::max(end, slot.key_sector + luks->SlotSectors());
  }
  const uint64_t limit = AlignUp(image.file_size, image.geometry.cluster_size);
  if (luks->payload_sector < end || !RangeFits(offset, luks->payload_sector * kSector, limit)) {
    return std::nullopt;
  }
  return luks;
}

bool LuksLost(const Image& image) {
  return image.header.crypt_method == kCryptLuks &&
         (!image.encryption || !image.luks || !image.luks->magic_ok);
}

std::optional<uint64_t> FindLuks(const ByteSource& bytes, const CheckState& state,
                                 std::optional<uint64_t> hint) {
  const Image& image = *state.image;
  auto fits = [&](uint64_t offset) {
    auto luks = PlausibleLuks(bytes, image, offset);
    return luks && IsUnshared(state, offset, luks->payload_sector * kSector);
  };
  if (hint) {
    const uint64_t offset = AlignDown(*hint, image.geometry.cluster_size);
    if (fits(offset)) return offset;
  }
  std::optional<uint64_t> found;
  uint64_t left = kLuksSearchMaxOrphans;
  for (const CountRun& run : state.leaks) {
    if (run.computed != 0) continue;
    for (uint64_t c = run.cluster; c < run.cluster + run.length; ++c) {
      if (left-- == 0) return std::nullopt;
      const uint64_t offset = c << image.geometry.cluster_bits;
      if (!fits(offset)) continue;
      if (found) return std::nullopt;
      found = offset;
    }
  }
  return found;
}

Result<bool> ProvenPlain(Overlay& image, const CheckState& state) {
  const Geometry& g = state.image->geometry;
  uint64_t sampled = 0, plain = 0;
  ByteVector cluster(g.cluster_size);
  Status status = ForEachTable(image, state, [&](const TableRef& table, MutableBytes bytes, bool*) {
    for (uint64_t i = 0; i < g.l2_entries && table.active && sampled < kClustersSampled; ++i) {
      const Entry entry = LoadEntry(g, bytes, i);
      const EntryClaim claim = ClaimOf(*state.image, entry);
      if (claim.kind != EntryClaim::Kind::kCluster || entry.zero_flag() ||
          state.claims().IsConflict(claim.first)) {
        continue;
      }
      std::vector<HostRange> bad;
      ReadTolerant(image, claim.first << g.cluster_bits, cluster, &bad);
      if (AllZero(cluster)) continue;
      ++sampled;
      plain += IsPlain(cluster);
    }
    return Ok();
  });
  IMG_RETURN_IF_ERROR(std::move(status));
  return plain > 0 && plain * 8 >= sampled;
}

}  // namespace imgfsck::qcow2

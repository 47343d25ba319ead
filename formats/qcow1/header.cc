// SPDX-License-Identifier: Apache-2.0
// Header bytes to fields and back; must not reject anything.
#include "formats/qcow1/header.h"

#include <algorithm>
#include <array>

namespace imgfsck::qcow1 {
namespace {

constexpr FieldSpec kHeaderFields[] = {
    {"magic", 0, 4},
    {"version", 4, 4},
    {"backing_file_offset", 8, 8},
    {"backing_file_size", 16, 4},
    {"mtime", 20, 4},
    {"size", 24, 8},
    {"cluster_bits", 32, 1},
    {"l2_bits", 33, 1},
    {"padding", 34, 2},
    {"crypt_method", 36, 4},
    {"l1_table_offset", 40, 8},
};
constexpr FieldSpec kXenFields[] = {
    {"magic", 48, 4}, {"cksum", 52, 4}, {"min_cluster_alloc", 56, 4}, {"flags", 60, 4}};

// The first N bytes, zeros where `bytes` is shorter.
template <size_t N>
std::array<uint8_t, N> Padded(Bytes bytes) {
  std::array<uint8_t, N> padded{};
  std::copy_n(bytes.begin(), std::min(N, bytes.size()), padded.begin());
  return padded;
}

}  // namespace

Header ParseHeader(Bytes bytes) {
  auto raw = Padded<kHeaderLength>(bytes);
  Header h;
  h.magic = BeAt<uint32_t>(raw, 0);
  h.version = BeAt<uint32_t>(raw, 4);
  h.backing_file_offset = BeAt<uint64_t>(raw, 8);
  h.backing_file_size = BeAt<uint32_t>(raw, 16);
  h.mtime = BeAt<uint32_t>(raw, 20);
  h.size = BeAt<uint64_t>(raw, 24);
  h.cluster_bits = raw[32];
  h.l2_bits = raw[33];
  h.padding = BeAt<uint16_t>(raw, 34);
  h.crypt_method = BeAt<uint32_t>(raw, 36);
  h.l1_table_offset = BeAt<uint64_t>(raw, 40);
  return h;
}

void EncodeHeader(const Header& h, MutableBytes bytes) {
  PutBe(bytes, 0, h.magic);
  PutBe(bytes, 4, h.version);
  PutBe(bytes, 8, h.backing_file_offset);
  PutBe(bytes, 16, h.backing_file_size);
  PutBe(bytes, 20, h.mtime);
  PutBe(bytes, 24, h.size);
  PutBe(bytes, 32, h.cluster_bits);
  PutBe(bytes, 33, h.l2_bits);
  PutBe(bytes, 34, h.padding);
  PutBe(bytes, 36, h.crypt_method);
  PutBe(bytes, 40, h.l1_table_offset);
}

std::optional<XenHeader> ParseXenHeader(const Header& header, Bytes bytes) {
  auto raw = Padded<kXenHeaderOffset + kXenHeaderLength>(bytes);
  if (header.l1_table_offset == 0 || !IsAligned(header.l1_table_offset, kXenL1Alignment) ||
      BeAt<uint32_t>(raw, kXenHeaderOffset) != kXenMagic) {
    return std::nullopt;
  }
  return XenHeader{BeAt<uint32_t>(raw, kXenHeaderOffset + 4),
                   BeAt<uint32_t>(raw, kXenHeaderOffset + 8),
                   BeAt<uint32_t>(raw, kXenHeaderOffset + 12)};
}

void EncodeXenHeader(const XenHeader& xen, MutableBytes bytes) {
  PutBe(bytes, 0, kXenMagic);
  PutBe(bytes, 4, xen.checksum);
  PutBe(bytes, 8, xen.min_cluster_alloc);
  PutBe(bytes, 12, xen.flags);
}

bool GeometryIsSane(const Header& header) {
  return header.cluster_bits >= kMinClusterBits && header.cluster_bits <= kMaxClusterBits &&
         header.l2_bits >= kMinL2Bits && header.l2_bits <= kMaxL2Bits;
}

Geometry GeometryOf(const Header& header) {
  return Geometry::Make(header.cluster_bits, header.l2_bits, header.size);
}

std::span<const FieldSpec> HeaderFields() { return kHeaderFields; }
std::span<const FieldSpec> XenFields() { return kXenFields; }

}  // namespace imgfsck::qcow1

// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow1/xen.h"

#include <openssl/evp.h>

#include <algorithm>
#include <memory>

#include "base/bytes.h"
#include "base/interrupt.h"
#include "base/units.h"

namespace imgfsck::qcow1 {
namespace {

struct FreeDigest {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

void SwapEntries(MutableBytes bytes) {
  for (size_t at = 0; at < bytes.size(); at += 8) {
    StoreLe(bytes.data() + at, LoadBe<uint64_t>(bytes.data() + at));
  }
}

}  // namespace

Result<uint32_t> XenChecksum(const ByteSource& source, const Geometry& geometry, uint64_t l1_offset,
                             bool little_endian) {
  std::unique_ptr<EVP_MD_CTX, FreeDigest> context(EVP_MD_CTX_new());
  Error failed{ErrorCode::kUnsupported, "the MD5 library refused to work", {}};
  if (!context || EVP_DigestInit_ex(context.get(), EVP_md5(), nullptr) != 1) return failed;
  ByteVector piece(kMiB);
  uint64_t total = geometry.l1_bytes();
  for (uint64_t done = 0; done < total;) {
    IMG_RETURN_IF_ERROR(CheckStop());
    MutableBytes part(piece.data(), std::min<uint64_t>(piece.size(), total - done));
    IMG_RETURN_IF_ERROR(ReadPadded(source, SaturatingAdd(l1_offset, done), part));
    if (little_endian) SwapEntries(part);
    if (EVP_DigestUpdate(context.get(), part.data(), part.size()) != 1) return failed;
    done += part.size();
  }
  uint8_t digest[EVP_MAX_MD_SIZE];
  if (EVP_DigestFinal_ex(context.get(), digest, nullptr) != 1) return failed;
  return LoadLe<uint32_t>(digest);  // as its little-endian writer loaded it
}

}  // namespace imgfsck::qcow1

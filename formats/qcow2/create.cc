// SPDX-License-Identifier: Apache-2.0
// New images: the smallest one that there is, of no size, is laid out by hand; the driver does the
// rest by growing it.
#include <algorithm>

#include "formats/qcow2/bitmap_ops.h"
#include "formats/qcow2/create_options.h"
#include "formats/qcow2/driver.h"
#include "formats/qcow2/driver_write.h"

namespace imgfsck::qcow2 {
namespace {

// Stands for the external data file, which is somebody else's to make.
class NoData : public ByteStore {
 public:
  uint64_t Size() const override { return UINT64_MAX / 2; }
  Result<size_t> ReadAt(uint64_t, MutableBytes buffer) const override {
    std::ranges::fill(buffer, uint8_t{0});
    return buffer.size();
  }
  Status WriteAt(uint64_t, Bytes) override { return Ok(); }
  Status SetSize(uint64_t) override { return Ok(); }
  Status Sync() override { return Ok(); }
  Status WriteZeros(uint64_t, uint64_t) override { return Ok(); }
};

HeaderArea MakeHeader(const CreatePlan& plan) {
  const uint64_t cluster = uint64_t{1} << plan.cluster_bits;
  HeaderArea area;
  Header& h = area.header;
  h.magic = kMagic;
  h.version = plan.v3 ? 3 : 2;
  h.cluster_bits = plan.cluster_bits;
  h.l1_size = 1;
  h.refcount_table_offset = cluster;
  h.refcount_table_clusters = 1;
  h.l1_table_offset = 3 * cluster;
  if (plan.encryption == "aes") h.crypt_method = kCryptAes;
  if (plan.v3) {
    h.header_length = kHeaderLengthCurrent;
    h.refcount_order = plan.refcount_order;
    if (plan.lazy) h.compatible_features = kCompatLazyRefcounts;
    if (plan.extended) h.incompatible_features |= kIncompatExtendedL2;
    if (plan.data_file) h.incompatible_features |= kIncompatDataFile;
    if (plan.zstd) h.incompatible_features |= kIncompatCompression;
    if (plan.zstd) h.compression_type = kZstd;
    if (plan.raw) h.autoclear_features = kAutoclearRawData;
  }
  area.fields.resize(plan.v3 ? kHeaderLengthCurrent : kHeaderLengthV2);
  auto text = [](std::string_view s) { return ByteVector(s.begin(), s.end()); };
  if (!plan.backing_format.empty()) {
    area.SetExtension(kExtBackingFormat, text(plan.backing_format));
  }
  if (plan.data_file) area.SetExtension(kExtDataFile, text(*plan.data_file));
  // In small clusters every byte is wanted for other things.
  if (plan.v3 && cluster > 4096) area.SetExtension(kExtFeatureNames, FeatureNames());
  area.backing_name = plan.backing;
  return area;
}

// Header, refcount table, refcount block, L1 table: a cluster each.
Status LayOut(const CreatePlan& plan, ByteStore& store) {
  const uint64_t cluster = uint64_t{1} << plan.cluster_bits;
  IMG_ASSIGN_OR_RETURN(ByteVector bytes, MakeHeader(plan).Encode());
  bytes.resize(4 * cluster);
  PutBe(bytes, cluster, 2 * cluster);
  for (uint64_t i = 0; i < 4; ++i) {
    PutCount(MutableBytes(bytes).subspan(2 * cluster, cluster), plan.refcount_order, i, 1);
  }
  return store.WriteAt(0, bytes);
}

Status AddLuks(Core& core, const CreatePlan& plan) {
  IMG_ASSIGN_OR_RETURN(NewLuks luks, MakeLuks(plan.passphrase, plan.luks));
  uint64_t clusters = core.g().ClustersOf(luks.header.size());
  IMG_ASSIGN_OR_RETURN(uint64_t offset, core.refcounts.AllocateExactly(clusters));
  ByteVector record(kEncryptionExtLength);
  StoreBe(&record[0], offset);
  StoreBe(&record[8], uint64_t{luks.header.size()});
  luks.header.resize(clusters * core.g().cluster_size);
  IMG_RETURN_IF_ERROR(core.file.Write(offset, luks.header));
  IMG_RETURN_IF_ERROR(core.Flush());
  IMG_ASSIGN_OR_RETURN(HeaderArea area, HeaderArea::Parse(core.image->first_cluster));
  area.SetExtension(kExtEncryption, record);
  area.header.crypt_method = kCryptLuks;
  return core.RewriteHeader(std::move(area));
}

Status WriteAllZeros(Core& core) {
  const ByteVector zeros(std::min<uint64_t>(kMiB, core.size));
  for (uint64_t at = 0; at < core.size; at += zeros.size()) {
    IMG_RETURN_IF_ERROR(
        WriteGuest(core, at, Bytes(zeros).first(std::min(zeros.size(), core.size - at))));
  }
  return Ok();
}

}  // namespace

Status CreateImage(ByteStore& store, uint64_t virtual_size, const CreateOptions& options) {
  IMG_ASSIGN_OR_RETURN(CreatePlan plan, ReadCreateOptions(options));
  if (virtual_size > uint64_t{1} << 62)
    return Error{ErrorCode::kInvalid, "the disk is too large", {}};
  IMG_RETURN_IF_ERROR(LayOut(plan, store));
  NoData data;
  OpenOptions open;
  open.writable = true;
  open.passphrase = plan.passphrase;
  open.data_store = plan.data_file ? &data : nullptr;
  {
    IMG_ASSIGN_OR_RETURN(auto core, Core::Open(store, &store, open));
    IMG_RETURN_IF_ERROR(core->BeginWriting());
    if (plan.encryption == "luks") IMG_RETURN_IF_ERROR(AddLuks(*core, plan));
    IMG_RETURN_IF_ERROR(ResizeGuest(*core, AlignUp(virtual_size, kSector)));
    IMG_RETURN_IF_ERROR(core->Close());
  }
  if (plan.preallocation == "off" || plan.raw) return store.Sync();
  // Opened anew, so that what is written is encrypted.
  IMG_ASSIGN_OR_RETURN(auto core, Core::Open(store, &store, open));
  IMG_RETURN_IF_ERROR(core->BeginWriting());
  IMG_RETURN_IF_ERROR(Preallocate(*core, 0, core->size));
  if (plan.preallocation != "metadata" || core->cipher != nullptr) {
    IMG_RETURN_IF_ERROR(WriteAllZeros(*core));
  }
  return core->Close();
}

}  // namespace imgfsck::qcow2

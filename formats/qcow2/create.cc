// SPDX-License-Identifier: Apache-2.0
// New images: the smallest one that there is, of no size, is laid out by hand; the driver does the
// rest by growing it.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>

#include "base/text.h"
#include "formats/qcow2/bitmap_ops.h"
#include "formats/qcow2/driver.h"
#include "formats/qcow2/driver_write.h"

namespace imgfsck::qcow2 {
namespace {

constexpr OptionHelp kOptions[] = {
    {"backing_file", "File name of a base image"},
    {"backing_fmt", "Image format of the base image"},
    {"cluster_size", "Cluster size, 512 to 2M (default: 64K)"},
    {"compat", "Compatibility level: v2 (0.10) or v3 (1.1, the default)"},
    {"compression_type", "Compression method for compressed clusters: zlib or zstd"},
    {"data_file", "File name of an external data file"},
    {"data_file_raw", "The external data file must stay valid as a raw image (on/off)"},
    {"encrypt.format", "Encrypt the image: aes or luks; the passphrase comes from a file"},
    {"extended_l2", "Extended L2 tables, with subclusters (on/off)"},
    {"lazy_refcounts", "Postpone refcount updates (on/off)"},
    {"preallocation", "off, metadata, falloc or full"},
    {"refcount_bits", "Width of a reference count in bits, 1 to 64 (default: 16)"},
};

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

Error Wrong(std::string message) { return {ErrorCode::kInvalid, std::move(message), {}}; }

// Options looked at one by one; what is left over at the end was not understood.
class OptionReader {
 public:
  explicit OptionReader(CreateOptions options) : options_(std::move(options)) {}

  std::optional<std::string> Text(const std::string& name) {
    auto found = options_.find(name);
    if (found == options_.end()) return std::nullopt;
    std::string value = std::move(found->second);
    options_.erase(found);
    return value;
  }
  std::string Choice(const std::string& name, std::initializer_list<std::string_view> allowed) {
    std::string value = Text(name).value_or(std::string(*allowed.begin()));
    if (std::ranges::find(allowed, value) == allowed.end()) Fail(name, value);
    return value;
  }
  bool Flag(const std::string& name) {
    std::string value = Text(name).value_or("off");
    if (value == "on" || value == "yes" || value == "true") return true;
    if (value != "off" && value != "no" && value != "false") Fail(name, value);
    return false;
  }
  unsigned PowerOfTwo(const std::string& name, uint64_t standard, uint64_t low, uint64_t high) {
    std::string value = Text(name).value_or(fmt::format("{}", standard));
    uint64_t number = ParseSize(value).value_or(0);
    if (!std::has_single_bit(number) || number < low || number > high) Fail(name, value);
    return static_cast<unsigned>(std::countr_zero(std::max<uint64_t>(number, 1)));
  }
  Status Done() {
    if (!options_.empty() && !error_) {
      error_ = Wrong(fmt::format("unknown option \"{}\"", Printable(options_.begin()->first)));
    }
    if (error_) return *error_;
    return Ok();
  }

 private:
  void Fail(const std::string& name, const std::string& value) {
    if (!error_)
      error_ = Wrong(fmt::format("option {}: \"{}\" does not go", name, Printable(value)));
  }
  CreateOptions options_;
  std::optional<Error> error_;
};

struct Plan {
  unsigned cluster_bits = 16, refcount_order = 4;
  bool v3 = true, lazy = false, extended = false, zstd = false, raw = false;
  std::string preallocation, passphrase, encryption;
  std::optional<std::string> backing, data_file;
  std::string backing_format;
};

Result<Plan> ReadOptions(const CreateOptions& options) {
  OptionReader reader(options);
  Plan plan;
  std::string compat = reader.Choice("compat", {"v3", "1.1", "v2", "0.10"});
  plan.v3 = compat == "v3" || compat == "1.1";
  plan.cluster_bits = reader.PowerOfTwo("cluster_size", 64 * kKiB, 512, 2 * kMiB);
  plan.refcount_order = reader.PowerOfTwo("refcount_bits", 16, 1, 64);
  plan.lazy = reader.Flag("lazy_refcounts");
  plan.extended = reader.Flag("extended_l2");
  std::string compression = reader.Choice("compression_type", {"zlib", "zstd", "deflate"});
  plan.zstd = compression == "zstd";
  plan.preallocation = reader.Choice("preallocation", {"off", "metadata", "falloc", "full"});
  plan.backing = reader.Text("backing_file");
  plan.backing_format = reader.Text("backing_fmt").value_or("");
  plan.data_file = reader.Text("data_file");
  plan.raw = reader.Flag("data_file_raw");
  plan.encryption = reader.Choice("encrypt.format", {"", "aes", "luks"});
  if (reader.Flag("encryption") && plan.encryption.empty()) plan.encryption = "aes";
  plan.passphrase = reader.Text("passphrase").value_or("");
  IMG_RETURN_IF_ERROR(reader.Done());
  if (!plan.v3 &&
      (plan.refcount_order != 4 || plan.lazy || plan.extended || plan.zstd || plan.data_file)) {
    return Wrong("refcount_bits, lazy_refcounts, extended_l2, zstd and data_file need compat=v3");
  }
  if (plan.extended && plan.cluster_bits < kMinClusterBitsExtendedL2) {
    return Wrong("extended_l2 needs clusters of 16K and more");
  }
  if (plan.raw && !plan.data_file) return Wrong("data_file_raw needs data_file");
  if (plan.raw && plan.backing) return Wrong("data_file_raw does not go with a backing file");
  if (plan.backing && plan.preallocation != "off" && !plan.extended) {
    return Wrong("preallocation over a backing file needs extended_l2");
  }
  if (plan.backing && (plan.backing->empty() || plan.backing->size() > kMaxBackingNameLength)) {
    return Wrong("a backing file's name has 1 to 1023 bytes");
  }
  if (plan.backing_format.size() > kMaxBackingFormatLength ||
      plan.backing_format.empty() != !plan.backing) {
    if (!plan.backing) return Wrong("backing_fmt needs backing_file");
    if (!plan.backing_format.empty()) return Wrong("backing_fmt is too long");
  }
  if (!plan.encryption.empty() && plan.passphrase.empty()) {
    return Error{ErrorCode::kNeedsKey, "an encrypted image needs a passphrase", {}};
  }
  return plan;
}

HeaderArea MakeHeader(const Plan& plan) {
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
Status LayOut(const Plan& plan, ByteStore& store) {
  const uint64_t cluster = uint64_t{1} << plan.cluster_bits;
  IMG_ASSIGN_OR_RETURN(ByteVector bytes, MakeHeader(plan).Encode());
  bytes.resize(4 * cluster);
  PutBe(bytes, cluster, 2 * cluster);
  for (uint64_t i = 0; i < 4; ++i) {
    PutCount(MutableBytes(bytes).subspan(2 * cluster, cluster), plan.refcount_order, i, 1);
  }
  return store.WriteAt(0, bytes);
}

Status AddLuks(Core& core, const std::string& passphrase) {
  IMG_ASSIGN_OR_RETURN(NewLuks luks, MakeLuks(passphrase));
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

std::span<const OptionHelp> CreateOptionHelp() { return kOptions; }

Status CreateImage(ByteStore& store, uint64_t virtual_size, const CreateOptions& options) {
  IMG_ASSIGN_OR_RETURN(Plan plan, ReadOptions(options));
  if (virtual_size > uint64_t{1} << 62) return Wrong("the disk is too large");
  IMG_RETURN_IF_ERROR(LayOut(plan, store));
  NoData data;
  OpenOptions open;
  open.writable = true;
  open.passphrase = plan.passphrase;
  open.data_store = plan.data_file ? &data : nullptr;
  {
    IMG_ASSIGN_OR_RETURN(auto core, Core::Open(store, &store, open));
    IMG_RETURN_IF_ERROR(core->BeginWriting());
    if (plan.encryption == "luks") IMG_RETURN_IF_ERROR(AddLuks(*core, plan.passphrase));
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

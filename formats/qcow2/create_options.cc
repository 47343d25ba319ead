// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/create_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/text.h"
#include "formats/qcow2/driver.h"
#include "formats/qcow2/layout.h"

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
    {"encrypt.cipher-alg", "Of luks: aes-128 or aes-256 (the default)"},
    {"encrypt.cipher-mode", "Of luks: xts (the default) or cbc"},
    {"encrypt.format", "Encrypt the image: aes or luks; the passphrase comes from a file"},
    {"encrypt.hash-alg", "Of luks: sha1, sha256 (the default) or sha512"},
    {"encrypt.iter-time", "Of luks: milliseconds that trying a passphrase takes"},
    {"encrypt.ivgen-alg", "Of luks: plain, plain64 (the default of xts) or essiv (of cbc)"},
    {"encrypt.ivgen-hash-alg", "Of essiv: sha256"},
    {"extended_l2", "Extended L2 tables, with subclusters (on/off)"},
    {"lazy_refcounts", "Postpone refcount updates (on/off)"},
    {"preallocation", "off, metadata, falloc or full"},
    {"refcount_bits", "Width of a reference count in bits, 1 to 64 (default: 16)"},
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
  void Refuse(std::string why) {
    if (!error_) error_ = Wrong(std::move(why));
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

// Everything that an image can be encrypted with.
void ReadEncryption(OptionReader& reader, CreatePlan* plan) {
  plan->encryption = reader.Choice("encrypt.format", {"", "aes", "luks"});
  if (reader.Flag("encryption") && plan->encryption.empty()) plan->encryption = "aes";
  plan->passphrase = reader.Text("passphrase").value_or("");
  if (plan->encryption != "luks") return;  // the others remain, unknown
  LuksChoice& luks = plan->luks;
  std::string cipher = reader.Choice("encrypt.cipher-alg", {"aes-256", "aes-128"});
  std::string mode = reader.Choice("encrypt.cipher-mode", {"xts", "cbc"});
  std::string vector = reader.Choice(
      "encrypt.ivgen-alg", {mode == "cbc" ? "essiv" : "plain64", "plain64", "plain", "essiv"});
  std::string hash = vector == "essiv" ? reader.Choice("encrypt.ivgen-hash-alg", {"sha256"}) : "";
  luks.mode = fmt::format("{}-{}{}{}", mode, vector, hash.empty() ? "" : ":", hash);
  luks.hash = reader.Choice("encrypt.hash-alg", {"sha256", "sha1", "sha512"});
  luks.key_bytes = cipher == "aes-128" ? 16 : 32;
  if (mode == "xts") luks.key_bytes *= 2;
  if (auto time = reader.Text("encrypt.iter-time")) {
    auto milliseconds = ParseSize(*time);
    if (!milliseconds || *milliseconds > 100000) reader.Refuse("encrypt.iter-time is out of range");
    luks.milliseconds = static_cast<unsigned>(milliseconds.value_or(0));
  }
}

Status CheckPlan(const CreatePlan& plan) {
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
  return Ok();
}

}  // namespace

std::span<const OptionHelp> CreateOptionHelp() { return kOptions; }

Result<CreatePlan> ReadCreateOptions(const CreateOptions& options) {
  OptionReader reader(options);
  CreatePlan plan;
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
  ReadEncryption(reader, &plan);
  IMG_RETURN_IF_ERROR(reader.Done());
  IMG_RETURN_IF_ERROR(CheckPlan(plan));
  return plan;
}

}  // namespace imgfsck::qcow2

// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/create.h"

#include <fmt/format.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>

#include "base/checked.h"
#include "base/text.h"
#include "formats/vhd/encode.h"
#include "formats/vhd/image.h"
#include "formats/vhd/names.h"

namespace imgfsck::vhd {
namespace {

constexpr OptionHelp kHelp[] = {
    {"subformat", "dynamic (default), fixed or differencing"},
    {"force_size", "on: exactly the size asked for; off (default): as the geometry rounds it up"},
    {"block_size", "of dynamic and differencing disks: a power of two, default 2M"},
    {"backing_file", "the parent of a differencing disk"},
    {"backing_fmt", "vpc, or raw: a parent without an id"},
    {"parent_uuid", "the parent's unique id, 32 hex digits as in its footer"},
    {"parent_timestamp", "the parent's modification time, Unix seconds"},
    {"uuid", "the new disk's unique id, 32 hex digits; default random"},
    {"timestamp", "the new disk's creation time, Unix seconds; default now"},
};

struct Plan {
  uint64_t size = 0;  // bytes
  DiskType type = DiskType::kDynamic;
  bool force_size = false;
  uint64_t block_size = kDefaultBlockSize;
  std::string parent;
  UniqueId parent_id{}, id{};
  uint32_t parent_timestamp = 0, timestamp = 0;
};

Error Bad(std::string message) { return {ErrorCode::kInvalid, std::move(message), std::nullopt}; }

Result<bool> ParseBool(std::string_view name, std::string_view text) {
  if (text == "on" || text == "true" || text == "yes") return true;
  if (text == "off" || text == "false" || text == "no") return false;
  return Bad(fmt::format("{} is on or off", name));
}

Result<UniqueId> ParseId(std::string_view name, std::string text) {
  std::erase(text, '-');
  ByteVector bytes;
  if (!HexDecode(text, &bytes) || bytes.size() != 16) {
    return Bad(fmt::format("{} needs 32 hex digits", name));
  }
  UniqueId id;
  std::ranges::copy(bytes, id.begin());
  return id;
}

Result<uint32_t> ParseTimestamp(std::string_view name, std::string_view text) {
  int64_t seconds = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size()) {
    return Bad(fmt::format("{} is a number of seconds", name));
  }
  return static_cast<uint32_t>(std::clamp<int64_t>(seconds - kEpoch, 0, UINT32_MAX));
}

Status SetSubformat(std::string_view value, Plan* plan) {
  if (value == "dynamic")
    plan->type = DiskType::kDynamic;
  else if (value == "fixed")
    plan->type = DiskType::kFixed;
  else if (value == "differencing")
    plan->type = DiskType::kDifferencing;
  else
    return Bad("subformat is dynamic, fixed or differencing");
  return Ok();
}

Status SetOption(const std::string& name, const std::string& value, Plan* plan) {
  if (name == "subformat") return SetSubformat(value, plan);
  if (name == "backing_file") {
    plan->parent = value;
  } else if (name == "force_size") {
    IMG_ASSIGN_OR_RETURN(plan->force_size, ParseBool(name, value));
  } else if (name == "block_size") {
    plan->block_size = ParseSize(value).value_or(0);
  } else if (name == "parent_uuid") {
    IMG_ASSIGN_OR_RETURN(plan->parent_id, ParseId(name, value));
  } else if (name == "uuid") {
    IMG_ASSIGN_OR_RETURN(plan->id, ParseId(name, value));
  } else if (name == "parent_timestamp") {
    IMG_ASSIGN_OR_RETURN(plan->parent_timestamp, ParseTimestamp(name, value));
  } else if (name == "timestamp") {
    IMG_ASSIGN_OR_RETURN(plan->timestamp, ParseTimestamp(name, value));
  } else if (name == "backing_fmt") {
    if (value != "vpc" && value != "vhd" && value != "raw") return Bad("backing_fmt is vpc or raw");
  } else {
    return Bad(fmt::format("unknown option {}", name));
  }
  return Ok();
}

Result<Plan> MakePlan(uint64_t size, const CreateOptions& options) {
  Plan plan;
  plan.size = size;
  plan.timestamp = static_cast<uint32_t>(std::max<int64_t>(std::time(nullptr) - kEpoch, 0));
  if (options.contains("backing_file")) plan.type = DiskType::kDifferencing;
  for (const auto& [name, value] : options) {
    IMG_RETURN_IF_ERROR(SetOption(name, value, &plan));
  }
  bool child = plan.type == DiskType::kDifferencing;
  if (child != !plan.parent.empty()) {
    return Bad("a differencing disk, and no other, has a backing_file");
  }
  auto format = options.find("backing_fmt");
  if (child && IsNull(plan.parent_id) && (format == options.end() || format->second != "raw")) {
    return Bad("a child of a VHD needs the unique id of its parent");
  }
  if (size == 0 || size > kMaxSectors * kSectorSize) {
    return Bad("the size of a VHD is between one sector and 2040 GiB");
  }
  if (!std::has_single_bit(plan.block_size) || plan.block_size < kMinBlockSize ||
      plan.block_size > 256 * kMiB) {
    return Bad("block_size is a power of two between 4K and 256M");
  }
  if (IsNull(plan.id) && RAND_bytes(plan.id.data(), static_cast<int>(plan.id.size())) != 1) {
    return Error{ErrorCode::kIo, "no random numbers to be had", std::nullopt};
  }
  if (!options.contains("uuid")) {
    plan.id[6] = static_cast<uint8_t>((plan.id[6] & 0x0F) | 0x40);  // RFC 9562 version 4
    plan.id[8] = static_cast<uint8_t>((plan.id[8] & 0x3F) | 0x80);
  }
  return plan;
}

// QEMU's two policies: "qemu" images have the size of their geometry, "qem2" images the size asked
// for and a geometry that says "do not go by me". A child has exactly its parent's size.
Footer MakeFooter(const Plan& plan) {
  Footer f;
  uint64_t sectors = DivRoundUp(plan.size, kSectorSize);
  bool exact = plan.force_size || plan.type == DiskType::kDifferencing ||
               RoundUpToGeometry(sectors) >= kMaxGeometrySectors;
  f.creator_app =
      plan.force_size || plan.type == DiskType::kDifferencing ? kCreatorQem2 : kCreatorQemu;
  if (!exact) sectors = RoundUpToGeometry(sectors);
  f.geometry = exact ? kSaturatedGeometry : GeometryFor(sectors);
  f.features = kFeatureReserved;
  f.version = kVersion1;
  f.data_offset = plan.type == DiskType::kFixed ? kNoOffset : kFooterSize;
  f.timestamp = plan.timestamp;
  f.creator_version = 0x00050003;
  f.creator_os = kHostWindows;
  f.original_size = f.current_size = sectors * kSectorSize;
  f.disk_type = static_cast<uint32_t>(plan.type);
  f.unique_id = plan.id;
  Seal(&f);
  return f;
}

// Name, id and locators of the parent; the payloads lie from `offset` on. Returns where they end.
Result<uint64_t> WriteParent(ByteStore& store, const Plan& plan, uint64_t offset, DynHeader* h) {
  h->parent_id = plan.parent_id;
  h->parent_timestamp = plan.parent_timestamp;
  SetParentName(h, Basename(plan.parent));
  size_t slot = 0;
  for (uint32_t code : {kLocatorMacX, kLocatorW2ku, kLocatorW2ru}) {
    if (code == kLocatorW2ru && plan.parent.starts_with('/')) continue;  // not relative
    ByteVector payload = EncodeLocator(code, plan.parent);
    auto length = static_cast<uint32_t>(payload.size());
    payload.resize(AlignUp(payload.size(), kSectorSize));
    h->locators[slot++] = {code, static_cast<uint32_t>(payload.size()), length, 0, offset};
    IMG_RETURN_IF_ERROR(store.WriteAt(offset, payload));
    offset += payload.size();
  }
  return offset;
}

Status CreateSparse(ByteStore& store, const Plan& plan, const Footer& footer) {
  DynHeader header;
  header.next_offset = kNoOffset;
  header.table_offset = kDefaultTableOffset;
  header.version = kVersion1;
  header.block_size = static_cast<uint32_t>(plan.block_size);
  uint64_t entries = DivRoundUp(footer.current_size, plan.block_size);
  header.max_entries = static_cast<uint32_t>(entries);
  uint64_t end = kDefaultTableOffset + AlignUp(entries * 4, kSectorSize);
  const ByteVector ones(std::min(end - kDefaultTableOffset, kMiB), 0xFF);
  for (uint64_t at = kDefaultTableOffset; at < end; at += ones.size()) {
    IMG_RETURN_IF_ERROR(
        store.WriteAt(at, Bytes(ones).first(std::min<uint64_t>(ones.size(), end - at))));
  }
  if (plan.type == DiskType::kDifferencing) {
    IMG_ASSIGN_OR_RETURN(end, WriteParent(store, plan, end, &header));
  }
  IMG_RETURN_IF_ERROR(store.WriteAt(0, footer.raw));
  IMG_RETURN_IF_ERROR(store.WriteAt(kFooterSize, Seal(&header)));
  IMG_RETURN_IF_ERROR(store.WriteAt(end, footer.raw));
  return store.Sync();
}

}  // namespace

std::span<const OptionHelp> CreateOptionHelp() { return kHelp; }

Status Create(ByteStore& store, uint64_t virtual_size, const CreateOptions& options) {
  IMG_ASSIGN_OR_RETURN(Plan plan, MakePlan(virtual_size, options));
  Footer footer = MakeFooter(plan);
  if (plan.type != DiskType::kFixed) return CreateSparse(store, plan, footer);
  IMG_RETURN_IF_ERROR(store.WriteAt(footer.current_size, footer.raw));
  return store.Sync();
}

Status DescribeParent(const ByteSource& parent, int64_t mtime, CreateOptions* options) {
  IMG_ASSIGN_OR_RETURN(auto image, ParseImage(parent, {.search = false}));
  (*options)["parent_timestamp"] = fmt::to_string(mtime);
  bool is_vhd = image->trailing.believable() || image->leading.believable();
  if (!is_vhd) {
    (*options)["backing_fmt"] = "raw";
    return Ok();
  }
  if (IsNull(image->footer.unique_id)) return Bad("the parent disk has no unique id");
  (*options)["backing_fmt"] = "vpc";
  (*options)["parent_uuid"] = HexEncode(image->footer.unique_id);
  return Ok();
}

}  // namespace imgfsck::vhd

// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow1/create.h"

#include <fmt/format.h>

#include <bit>
#include <charconv>

#include "base/text.h"
#include "formats/qcow1/header.h"

namespace imgfsck::qcow1 {
namespace {

constexpr OptionHelp kHelp[] = {
    {"backing_file", "name of the file that holds what the image does not"},
    {"cluster_size", "512 to 64K (default 4K, with a backing file 512)"},
    {"cluster_bits", "the same as a power of two, 9 to 16"},
    {"l2_bits", "entries of a mapping table as a power of two, 6 to 13"},
    {"encryption", "on: AES with the passphrase (weak; only for old programs)"},
};

Error BadOption(std::string_view name, std::string_view value) {
  return {ErrorCode::kInvalid, fmt::format("{}={} is not possible for qcow", name, value), {}};
}

Result<uint8_t> ParseBits(const std::string& name, const std::string& text, unsigned low,
                          unsigned high) {
  unsigned value = 0;
  const char* end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < low || value > high) {
    return BadOption(name, text);
  }
  return static_cast<uint8_t>(value);
}

Status ApplyOption(const std::string& name, const std::string& value, Header* header,
                   std::string* backing) {
  if (name == "backing_file") {
    *backing = value;
  } else if (name == "backing_fmt") {
    // The format has no place for it; content decides.
  } else if (name == "cluster_bits") {
    IMG_ASSIGN_OR_RETURN(header->cluster_bits,
                         ParseBits(name, value, kMinClusterBits, kMaxClusterBits));
  } else if (name == "cluster_size") {
    auto size = ParseSize(value);
    if (!size || !std::has_single_bit(*size) || *size < 512 || *size > 65536) {
      return BadOption(name, value);
    }
    header->cluster_bits = static_cast<uint8_t>(std::countr_zero(*size));
  } else if (name == "l2_bits") {
    IMG_ASSIGN_OR_RETURN(header->l2_bits, ParseBits(name, value, kMinL2Bits, kMaxL2Bits));
  } else if (name == "passphrase") {
    // Nothing of it is stored: no file tells a wrong one.
  } else if (name == "encryption") {
    if (value != "on" && value != "off") return BadOption(name, value);
    header->crypt_method = value == "on" ? kCryptAes : kCryptNone;
  } else if (name == "encrypt.format") {
    if (value != "aes" && value != "qcow") return BadOption(name, value);
    header->crypt_method = kCryptAes;
  } else {
    return BadOption(name, value);
  }
  return Ok();
}

}  // namespace

std::span<const OptionHelp> CreateOptionHelp() { return kHelp; }

Status Create(ByteStore& store, uint64_t virtual_size, const CreateOptions& options) {
  Header header;
  std::string backing;
  if (auto named = options.find("backing_file"); named != options.end() && !named->second.empty()) {
    header.cluster_bits = 9;
    header.l2_bits = 12;
  }
  for (const auto& [name, value] : options) {
    IMG_RETURN_IF_ERROR(ApplyOption(name, value, &header, &backing));
  }
  if (virtual_size > UINT64_MAX - kSector || virtual_size == 0) {
    return Error{ErrorCode::kInvalid, "a qcow disk has at least one sector", {}};
  }
  header.size = AlignUp(virtual_size, kSector);
  if (backing.size() > kMaxBackingNameLength || backing.find('\0') != std::string::npos) {
    return Error{ErrorCode::kInvalid, "the backing file's name is too long", {}};
  }
  if (GeometryOf(header).l1_entries > kMaxL1Entries) {
    return Error{
        ErrorCode::kTooLarge, "the disk is too large for these cluster and table sizes", {}};
  }
  if (!backing.empty()) {
    header.backing_file_offset = kHeaderLength;
    header.backing_file_size = static_cast<uint32_t>(backing.size());
  }
  header.l1_table_offset = AlignUp(kHeaderLength + backing.size(), 8);
  ByteVector start(header.l1_table_offset);
  EncodeHeader(header, start);
  std::copy(backing.begin(), backing.end(), start.begin() + kHeaderLength);
  // The length first: a header never promises a table that is not there.
  IMG_RETURN_IF_ERROR(store.SetSize(0));
  IMG_RETURN_IF_ERROR(
      store.SetSize(header.l1_table_offset + AlignUp(GeometryOf(header).l1_bytes(), kSector)));
  IMG_RETURN_IF_ERROR(store.WriteAt(0, start));
  return store.Sync();
}

}  // namespace imgfsck::qcow1

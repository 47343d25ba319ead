// SPDX-License-Identifier: Apache-2.0
// Writing and opening undo records. meta holds what the members of Impl are named after; patch has
// the patches in ascending order, seq from 1. Everything is written in one transaction, so that a
// record is complete or none.
#include "io/undo_record.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "base/text.h"
#include "io/sha256.h"
#include "io/undo_impl.h"

namespace imgfsck {
namespace {

constexpr uint64_t kLongestPatch = kMiB;  // bytes
constexpr uint64_t kRecordHeaderLength = kSector;
constexpr uint64_t kZeroBlock = 4096;  // bytes; the granularity in which a cut-off tail is searched
constexpr size_t kLongestPath = 4096;
constexpr std::string_view kStateNames[] = {"prepared", "applied", "rolled-back"};

using Visitor = std::function<Status(uint64_t offset, Bytes old_bytes, Bytes new_bytes)>;

bool IsBlockDevice(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISBLK(info.st_mode);
}

// The length the image will have: a block device keeps its own.
Result<uint64_t> NewSize(const std::string& image_path, const Overlay& overlay) {
  if (!IsBlockDevice(image_path)) return overlay.Size();
  if (overlay.Size() <= overlay.base().Size()) return overlay.base().Size();
  return Error{ErrorCode::kNoSpace,
               fmt::format("the repair needs {} bytes, and the block device {} has {}",
                           overlay.Size(), Printable(image_path), overlay.base().Size()),
               {}};
}

// What a shorter new length cuts off, as patches without new bytes. Zeros need no patch: a file
// that grows again has them.
Status ForEachCutOff(const ByteSource& base, uint64_t new_size, const Visitor& visit) {
  ByteVector window;
  for (uint64_t at = new_size; at < base.Size();) {
    IMG_RETURN_IF_ERROR(CheckStop());
    IMG_ASSIGN_OR_RETURN(const HostExtent extent, base.ExtentAt(at));
    if (extent.hole) {
      at += extent.length;
      continue;
    }
    window.resize(std::min(extent.length, kLongestPatch));
    IMG_RETURN_IF_ERROR(ReadPadded(base, at, window));
    const Bytes bytes(window);
    for (size_t i = 0; i < bytes.size();) {
      size_t end = i;
      while (end < bytes.size()) {
        const size_t length = std::min(kZeroBlock, bytes.size() - end);
        if (AllZero(bytes.subspan(end, length))) break;
        end += length;
      }
      if (end > i) IMG_RETURN_IF_ERROR(visit(at + i, bytes.subspan(i, end - i), {}));
      i = std::min(std::max(end, i + kZeroBlock), bytes.size());
    }
    at += bytes.size();
  }
  return Ok();
}

Status ForEachChange(const Overlay& overlay, uint64_t new_size, const Visitor& visit) {
  IMG_RETURN_IF_ERROR(overlay.ForEachPatch(visit));
  return ForEachCutOff(overlay.base(), new_size, visit);
}

// How many of `length` bytes at `offset` a file of `size` bytes has.
uint64_t BytesWithin(uint64_t offset, uint64_t length, uint64_t size) {
  return offset >= size ? 0 : std::min(length, size - offset);
}

// Starts the hash with all that is not a patch.
void HashMeta(Sha256* hash, const std::string& image_path, uint64_t old_size, uint64_t new_size,
              uint64_t header_length, const std::string& header_hash) {
  hash->AddNumber(image_path.size());
  hash->Add(AsBytes(image_path));
  for (uint64_t number : {old_size, new_size, header_length}) hash->AddNumber(number);
  hash->Add(AsBytes(header_hash));
}

void HashPatch(Sha256* hash, uint64_t offset, Bytes old_bytes, Bytes new_bytes) {
  hash->AddNumber(offset);
  hash->AddNumber(old_bytes.size());
  hash->AddNumber(new_bytes.size());
  hash->Add(old_bytes);
  hash->Add(new_bytes);
}

Error Broken(const std::string& path, std::string_view why) {
  return Error{ErrorCode::kInvalid,
               fmt::format("the undo record {} is damaged: {}", Printable(path), why),
               {}};
}

}  // namespace

UndoRecord::UndoRecord(std::string path, std::unique_ptr<Impl> impl)
    : path_(std::move(path)), impl_(std::move(impl)) {}

UndoRecord::~UndoRecord() = default;

UndoRecord::State UndoRecord::state() const { return impl_->state; }
uint64_t UndoRecord::old_size() const { return impl_->old_size; }
uint64_t UndoRecord::new_size() const { return impl_->new_size; }
uint64_t UndoRecord::patch_count() const { return impl_->patch_count; }
uint64_t UndoRecord::bytes() const { return impl_->bytes; }
const std::string& UndoRecord::image_path() const { return impl_->image_path; }

Result<uint64_t> UndoRecord::SpaceNeeded(const std::string& image_path, const Overlay& overlay) {
  IMG_ASSIGN_OR_RETURN(const uint64_t new_size, NewSize(image_path, overlay));
  uint64_t needed = 64 * kKiB;
  IMG_RETURN_IF_ERROR(ForEachChange(overlay, new_size, [&](uint64_t, Bytes o, Bytes n) {
    const uint64_t payload = o.size() + n.size() + 32;
    // A value that does not fit a page of 4 KiB ends in a page of its own.
    needed += payload + payload / 512 + (payload > 2048 ? 4096 : 0);
    return Ok();
  }));
  return needed;
}

Status UndoRecord::CopyPatches(const Overlay& overlay) {
  Impl& impl = *impl_;
  if (ByteVector header(std::min(kRecordHeaderLength, impl.old_size));
      ReadExact(overlay.base(), 0, header)) {
    impl.header_length = header.size();
    impl.header_hash = HexSha256(header);
  }
  Sha256 hash;
  HashMeta(&hash, impl.image_path, impl.old_size, impl.new_size, impl.header_length,
           impl.header_hash);
  const auto insert = impl.database->Prepare("INSERT INTO patch VALUES(?,?,?,?)");
  const auto add = [&](uint64_t offset, Bytes old_bytes, Bytes new_bytes) -> Status {
    insert->BindNumber(1, ++impl.patch_count);
    insert->BindNumber(2, offset);
    insert->BindBlob(3, old_bytes);
    insert->BindBlob(4, new_bytes);
    if (auto row = insert->Step(); !row) return Error(std::move(row).error());
    impl.bytes += new_bytes.size();
    HashPatch(&hash, offset, old_bytes, new_bytes);
    return insert->Reset();
  };
  IMG_RETURN_IF_ERROR(ForEachChange(overlay, impl.new_size, add));
  impl.hash = hash.HexDigest();

  const std::pair<const char*, uint64_t> numbers[] = {{"old_size", impl.old_size},
                                                      {"new_size", impl.new_size},
                                                      {"patch_count", impl.patch_count},
                                                      {"bytes", impl.bytes},
                                                      {"header_length", impl.header_length}};
  const std::pair<const char*, std::string_view> texts[] = {{"state", kStateNames[0]},
                                                            {"image", impl.image_path},
                                                            {"header_sha256", impl.header_hash},
                                                            {"sha256", impl.hash}};
  const auto meta = impl.database->Prepare("INSERT INTO meta VALUES(?,?)");
  const auto put = [&meta](const char* key, const auto& bind) -> Status {
    meta->BindText(1, key);
    bind();
    if (auto row = meta->Step(); !row) return Error(std::move(row).error());
    return meta->Reset();
  };
  for (const auto& [key, value] : numbers) {
    IMG_RETURN_IF_ERROR(put(key, [&, number = value] { meta->BindNumber(2, number); }));
  }
  for (const auto& [key, value] : texts) {
    IMG_RETURN_IF_ERROR(put(key, [&, text = value] { meta->BindText(2, text); }));
  }
  return Ok();
}

Result<std::unique_ptr<UndoRecord>> UndoRecord::Create(const std::string& path,
                                                       const std::string& image_path,
                                                       const Overlay& overlay) {
  IMG_ASSIGN_OR_RETURN(const uint64_t new_size, NewSize(image_path, overlay));
  IMG_ASSIGN_OR_RETURN(const uint64_t needed, SpaceNeeded(image_path, overlay));
  IMG_ASSIGN_OR_RETURN(const uint64_t free, FreeSpaceFor(path));
  if (needed > free) {
    return Error{ErrorCode::kNoSpace,
                 fmt::format("the undo record {} needs {}, and {} are free", Printable(path),
                             HumanSize(needed), HumanSize(free)),
                 {}};
  }
  auto impl = std::make_unique<Impl>();
  impl->image_path = image_path;
  impl->old_size = overlay.base().Size();
  impl->new_size = new_size;
  IMG_ASSIGN_OR_RETURN(impl->database, UndoDatabase::Create(path));
  auto record = std::unique_ptr<UndoRecord>(new UndoRecord(path, std::move(impl)));
  auto status = record->CopyPatches(overlay);
  if (status) status = record->impl_->database->Execute("COMMIT");
  if (status) status = SyncDirectoryOf(path);
  if (status) return record;
  record.reset();
  UndoDatabase::Remove(path);
  return Error(std::move(status).error());
}

Status UndoRecord::LoadMeta() {
  Impl& impl = *impl_;
  const auto find = impl.database->Prepare("SELECT value FROM meta WHERE key=?");
  const auto seek = [&](const char* key) -> Status {
    IMG_RETURN_IF_ERROR(find->Reset());
    find->BindText(1, key);
    IMG_ASSIGN_OR_RETURN(const bool row, find->Step());
    return row ? Ok() : Status(Broken(path_, fmt::format("it has no {}", key)));
  };
  const std::pair<const char*, uint64_t*> numbers[] = {{"old_size", &impl.old_size},
                                                       {"new_size", &impl.new_size},
                                                       {"patch_count", &impl.patch_count},
                                                       {"bytes", &impl.bytes},
                                                       {"header_length", &impl.header_length}};
  for (const auto& [key, to] : numbers) {
    IMG_RETURN_IF_ERROR(seek(key));
    IMG_ASSIGN_OR_RETURN(*to, find->Number(0));
  }
  std::string state;
  const std::pair<const char*, std::string*> texts[] = {{"state", &state},
                                                        {"image", &impl.image_path},
                                                        {"header_sha256", &impl.header_hash},
                                                        {"sha256", &impl.hash}};
  for (const auto& [key, to] : texts) {
    IMG_RETURN_IF_ERROR(seek(key));
    IMG_ASSIGN_OR_RETURN(const auto text, find->Text(0));
    if (text.size() > kLongestPath) return Broken(path_, fmt::format("its {} is too long", key));
    *to = text;
  }
  const auto* known = std::ranges::find(kStateNames, state);
  if (known == std::end(kStateNames)) return Broken(path_, "its state is unknown");
  impl.state = static_cast<State>(known - std::begin(kStateNames));
  if (impl.header_length > kRecordHeaderLength)
    return Broken(path_, "its header length is impossible");
  return Ok();
}

Status UndoRecord::CheckContent() const {
  Sha256 hash;
  HashMeta(&hash, impl_->image_path, impl_->old_size, impl_->new_size, impl_->header_length,
           impl_->header_hash);
  uint64_t count = 0, bytes = 0;
  IMG_RETURN_IF_ERROR(ForEachPatch([&](const Patch& patch) -> Status {
    IMG_RETURN_IF_ERROR(CheckStop());
    HashPatch(&hash, patch.offset, patch.old_bytes, patch.new_bytes);
    ++count;
    bytes += patch.new_bytes.size();
    return Ok();
  }));
  if (count != impl_->patch_count || bytes != impl_->bytes) {
    return Broken(path_, "patches are missing");
  }
  if (hash.HexDigest() != impl_->hash) return Broken(path_, "its checksum is wrong");
  return Ok();
}

Result<std::unique_ptr<UndoRecord>> UndoRecord::Open(const std::string& path) {
  auto impl = std::make_unique<Impl>();
  IMG_ASSIGN_OR_RETURN(impl->database, UndoDatabase::Open(path));
  auto record = std::unique_ptr<UndoRecord>(new UndoRecord(path, std::move(impl)));
  IMG_RETURN_IF_ERROR(record->LoadMeta());
  IMG_RETURN_IF_ERROR(record->CheckContent());
  return record;
}

Status UndoRecord::SetState(State state) {
  const auto update = impl_->database->Prepare("UPDATE meta SET value=? WHERE key='state'");
  update->BindText(1, kStateNames[static_cast<size_t>(state)]);
  if (auto row = update->Step(); !row) return Error(std::move(row).error());
  impl_->state = state;
  return SyncDirectoryOf(path_);
}

Status UndoRecord::ForEachPatch(const std::function<Status(const Patch&)>& visit) const {
  const auto rows =
      impl_->database->Prepare("SELECT seq, offset, old, new FROM patch ORDER BY seq");
  Patch patch{};
  uint64_t last_end = 0;
  for (uint64_t expected = 1;; ++expected) {
    IMG_ASSIGN_OR_RETURN(const bool row, rows->Step());
    if (!row) return Ok();
    IMG_ASSIGN_OR_RETURN(const uint64_t seq, rows->Number(0));
    IMG_ASSIGN_OR_RETURN(patch.offset, rows->Number(1));
    IMG_ASSIGN_OR_RETURN(const Bytes old_bytes, rows->Blob(2));
    IMG_ASSIGN_OR_RETURN(const Bytes new_bytes, rows->Blob(3));
    const uint64_t length = std::max(old_bytes.size(), new_bytes.size());
    if (seq != expected || patch.offset < last_end || length == 0 || length > kLongestPatch ||
        old_bytes.size() != BytesWithin(patch.offset, length, impl_->old_size) ||
        new_bytes.size() != BytesWithin(patch.offset, length, impl_->new_size)) {
      return Broken(path_, fmt::format("patch {} makes no sense", expected));
    }
    last_end = patch.offset + length;
    patch.old_bytes.assign(old_bytes.begin(), old_bytes.end());
    patch.new_bytes.assign(new_bytes.begin(), new_bytes.end());
    IMG_RETURN_IF_ERROR(visit(patch));
  }
}

}  // namespace imgfsck

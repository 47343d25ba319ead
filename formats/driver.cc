// SPDX-License-Identifier: Apache-2.0
// What a driver answers to requests that its format cannot meet.
#include "formats/driver.h"

#include <fmt/format.h>

namespace imgfsck {
namespace {

Error Unsupported(std::string_view format, std::string_view what) {
  return {
      ErrorCode::kUnsupported, fmt::format("the {} format does not support {}", format, what), {}};
}

}  // namespace

Status Driver::Write(uint64_t, Bytes) { return Unsupported(format(), "writing"); }
Status Driver::WriteCompressed(uint64_t, Bytes) {
  return Unsupported(format(), "writing compressed clusters");
}
Status Driver::Zero(uint64_t, uint64_t) { return Unsupported(format(), "zeroing"); }
Status Driver::Discard(uint64_t, uint64_t) { return Unsupported(format(), "discarding"); }
Status Driver::Flush() { return Ok(); }
Status Driver::Resize(uint64_t) { return Unsupported(format(), "resizing"); }
Status Driver::Empty() { return Unsupported(format(), "emptying an image"); }
Status Driver::SetBacking(const std::optional<BackingReference>&) {
  return Unsupported(format(), "backing files");
}
Status Driver::SnapshotCreate(std::string_view) { return Unsupported(format(), "snapshots"); }
Status Driver::SnapshotApply(std::string_view) { return Unsupported(format(), "snapshots"); }
Status Driver::SnapshotDelete(std::string_view) { return Unsupported(format(), "snapshots"); }
Status Driver::BitmapAdd(std::string_view, uint64_t, bool) {
  return Unsupported(format(), "bitmaps");
}
Status Driver::BitmapRemove(std::string_view) { return Unsupported(format(), "bitmaps"); }
Status Driver::BitmapClear(std::string_view) { return Unsupported(format(), "bitmaps"); }
Status Driver::BitmapSetEnabled(std::string_view, bool) { return Unsupported(format(), "bitmaps"); }
Status Driver::BitmapMerge(std::string_view, std::string_view) {
  return Unsupported(format(), "bitmaps");
}
Result<std::vector<GuestRange>> Driver::BitmapDirty(std::string_view) {
  return Unsupported(format(), "bitmaps");
}

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/driver_file.h"

namespace imgfsck::qcow2 {

Status DriverFile::Usable() const {
  if (store_ == nullptr) return Error{ErrorCode::kPermission, "the image is open read-only", {}};
  if (failed_) return Error{ErrorCode::kIo, "an earlier write did not reach the disk", {}};
  return Ok();
}

Status DriverFile::Read(uint64_t offset, MutableBytes buffer) const {
  return ReadPadded(*source_, offset, buffer);
}

Status DriverFile::Write(uint64_t offset, Bytes bytes) {
  IMG_RETURN_IF_ERROR(Usable());
  unsynced_ = true;
  return store_->WriteAt(offset, bytes);
}

Status DriverFile::Zero(uint64_t offset, uint64_t length) {
  IMG_RETURN_IF_ERROR(Usable());
  unsynced_ = true;
  return store_->WriteZeros(offset, length);
}

Status DriverFile::Truncate(uint64_t size) {
  IMG_RETURN_IF_ERROR(Usable());
  unsynced_ = true;
  return store_->SetSize(size);
}

Status DriverFile::Sync() {
  if (store_ == nullptr || !unsynced_) return Ok();
  IMG_RETURN_IF_ERROR(Usable());
  auto status = store_->Sync();
  failed_ = !status;
  unsynced_ = failed_;
  return status;
}

}  // namespace imgfsck::qcow2

// SPDX-License-Identifier: Apache-2.0
// A raw image as rows: no fields, one data mapping over the whole file.
#pragma once

#include <memory>
#include <string>

#include "io/byte_source.h"
#include "model/rows.h"

namespace imgfsck::raw {

// The disk of a file of `file_size` bytes: whole sectors, as QEMU counts them.
uint64_t VirtualSizeOf(uint64_t file_size);

std::unique_ptr<ImageRows> MakeRows(const ByteSource& source, const std::string& path);

}  // namespace imgfsck::raw

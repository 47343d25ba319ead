// SPDX-License-Identifier: Apache-2.0
// The qcow2 driver: what the format's constant (format.h) points at.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "formats/driver.h"
#include "formats/format.h"

namespace imgfsck::qcow2 {

Result<std::unique_ptr<Driver>> OpenDriver(const ByteSource& source, ByteStore* store,
                                           const OpenOptions& options);

// Options: cluster_size compat refcount_bits lazy_refcounts extended_l2 compression_type
// preallocation backing_file backing_fmt data_file data_file_raw encrypt.format, and passphrase for
// the latter. The external data file itself is the caller's.
Status CreateImage(ByteStore& store, uint64_t virtual_size, const CreateOptions& options);
std::span<const OptionHelp> CreateOptionHelp();

// The name of the external data file that must be opened before the image (OpenOptions): nothing
// when the image needs none. An empty name: it needs one and does not say which.
Result<std::optional<std::string>> DataFileName(const ByteSource& source);

}  // namespace imgfsck::qcow2

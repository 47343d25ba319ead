// SPDX-License-Identifier: Apache-2.0
// The backing file that a new image is to name: opened, and noted as the new image's format wants.
#pragma once

#include <memory>
#include <string>

#include "chain/chain.h"
#include "tools/imgio/options.h"

namespace imgfsck {

// What backing_file and backing_fmt of `set` lead to, seen from an image at `path`. kConflict when
// that is the file at `path`.
Result<std::unique_ptr<Chain>> OpenNewBacking(const ImgioOptions& options, const std::string& path,
                                              const Format& format, const CreateOptions& set);

// Adds to *set what the new image records of its base: the format, when it was last written, its
// length, the id of a VHD.
Status NoteNewBacking(const Chain& base, const std::string& path, const Format& format,
                      CreateOptions* set);

// Bytes of an image whose size nobody said.
uint64_t SizeFromBacking(Chain& base, const Format& format);

}  // namespace imgfsck

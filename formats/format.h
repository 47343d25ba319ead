// SPDX-License-Identifier: Apache-2.0
// What every format offers, and the table of formats. One constant `Format` a format folder.
//
// Two ways in: inspect() is lenient, walks damaged images and serves checks and dumps; open() is
// strict, serves guest I/O (driver.h) and refuses what it could misread.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "formats/driver.h"
#include "io/byte_source.h"
#include "model/rows.h"

namespace imgfsck {

// How sure a probe is. The highest wins; kNo from all formats: the file is not recognised.
enum class ProbeScore { kNo = 0, kWeak = 10, kHeaderDamaged = 40, kLikely = 70, kSure = 100 };

struct OptionHelp {
  std::string_view name, help;
};

struct Format {
  std::string_view name;  // "qcow2"
  std::span<const std::string_view> aliases;
  std::string_view description;
  ProbeScore (*probe)(const ByteSource& source);
  // Never fails for damage; fails only when the source cannot be read at all or memory is short.
  // `source` must outlive the result.
  Result<std::unique_ptr<ImageRows>> (*inspect)(const ByteSource& source, const std::string& path);
  // `source` (and `store`, the same bytes, when options.writable) must outlive the driver. Null
  // where not supported.
  Result<std::unique_ptr<Driver>> (*open)(const ByteSource& source, ByteStore* store,
                                          const OpenOptions& options);
  // Writes a new image into an empty store. Null where not supported.
  Status (*create)(ByteStore& store, uint64_t virtual_size, const CreateOptions& options);
  std::span<const OptionHelp> create_options;
};

std::span<const Format* const> AllFormats();
const Format* FindFormat(std::string_view name_or_alias);  // null when unknown
// The best probe's format; null when no format recognises the source. Never "raw".
const Format* ProbeFormat(const ByteSource& source);

}  // namespace imgfsck

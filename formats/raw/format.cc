// SPDX-License-Identifier: Apache-2.0
#include "formats/raw/format.h"

#include "formats/raw/driver.h"
#include "formats/raw/rows.h"

namespace imgfsck {
namespace {

ProbeScore Probe(const ByteSource&) { return ProbeScore::kNo; }

Result<std::unique_ptr<ImageRows>> Inspect(const ByteSource& source, const std::string& path) {
  return raw::MakeRows(source, path);
}

Result<std::unique_ptr<Driver>> Open(const ByteSource& source, ByteStore* store,
                                     const OpenOptions& options) {
  return raw::OpenDriver(source, store, options);
}

}  // namespace

const Format kRawFormat{
    "raw", {}, "the bytes of the disk and nothing else", Probe, Inspect, Open, raw::Create, {}};

}  // namespace imgfsck

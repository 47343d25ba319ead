// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/format.h"

#include <array>

#include "formats/qcow2/driver.h"
#include "formats/qcow2/image.h"
#include "formats/qcow2/rows.h"

namespace imgfsck {
namespace {

// The magic decides; version 1 is another format. An absurd version is still ours to report.
ProbeScore Probe(const ByteSource& source) {
  std::array<uint8_t, 104> bytes{};
  if (source.Size() < 8 || !ReadPadded(source, 0, bytes)) return ProbeScore::kNo;
  qcow2::Header header = qcow2::ParseHeader(bytes);
  if (header.magic != qcow2::kMagic || header.version == 1) return ProbeScore::kNo;
  return header.version == 2 || header.version == 3 ? ProbeScore::kSure
                                                    : ProbeScore::kHeaderDamaged;
}

Result<std::unique_ptr<ImageRows>> Inspect(const ByteSource& source, const std::string& path) {
  IMG_ASSIGN_OR_RETURN(auto image, qcow2::ParseImage(source));
  return qcow2::MakeRows(std::move(image), path);
}

}  // namespace

const Format kQcow2Format{"qcow2",
                          {},
                          "QEMU copy-on-write, versions 2 and 3",
                          Probe,
                          Inspect,
                          qcow2::OpenDriver,
                          qcow2::CreateImage,
                          qcow2::CreateOptionHelp()};

}  // namespace imgfsck

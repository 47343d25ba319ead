// SPDX-License-Identifier: Apache-2.0
#include "analyzers/raw/check.h"

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "formats/raw/format.h"

namespace imgfsck {
namespace {

void AddUnreadable(uint64_t offset, uint64_t length, CheckReport* report) {
  Finding finding;
  finding.problem = Problem::kImageUnreadable;
  finding.structure = "data";
  finding.host = MakeHostRange(offset, length);
  finding.guest = MakeGuestRange(offset, length);
  finding.layer = kActiveLayer;
  finding.count = DivRoundUp(length, kSector);
  report->findings.Add(std::move(finding));
  report->counts.check_errors += DivRoundUp(length, kSector);
}

// --deep: can every stored byte be read? Bad ranges are reported by whole sectors.
Status ReadEverything(const ByteSource& source, const CheckOptions& options, CheckReport* report) {
  ByteVector buffer(kMiB);
  for (uint64_t at = 0; at < source.Size();) {
    IMG_RETURN_IF_ERROR(CheckStop());
    IMG_ASSIGN_OR_RETURN(HostExtent extent, source.ExtentAt(at));
    if (extent.length == 0) break;
    const uint64_t length = extent.hole ? extent.length : std::min<uint64_t>(extent.length, kMiB);
    if (!extent.hole && !source.ReadAt(at, MutableBytes(buffer).first(length))) {
      for (uint64_t sector = at; sector < at + length; sector += kSector) {
        const uint64_t bytes = std::min(kSector, at + length - sector);
        if (!source.ReadAt(sector, MutableBytes(buffer).first(bytes))) {
          AddUnreadable(sector, bytes, report);
        }
      }
    }
    at += length;
    if (options.progress) options.progress("reading", at, source.Size());
  }
  return Ok();
}

Status Run(const ByteSource& source, const CheckOptions& options, CheckReport* report) {
  IMG_ASSIGN_OR_RETURN(report->rows, kRawFormat.inspect(source, options.path));
  const ImageRow image = report->rows->Image();
  report->virtual_size = image.virtual_size;
  report->cluster_size = image.cluster_size;
  report->counts.image_end_offset = image.file_size;
  report->counts.total_clusters = image.virtual_size / image.cluster_size;
  report->counts.allocated_clusters = report->counts.total_clusters;
  return options.deep ? ReadEverything(source, options, report) : Ok();
}

}  // namespace

const Checker kRawChecker{"raw", Run};

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
// Decodes every compressed cluster (--deep).
#include <fmt/format.h>

#include "analyzers/qcow1/rules.h"
#include "formats/common/deflate.h"
#include "formats/common/tolerant.h"

namespace imgfsck::qcow1 {

Status JudgeStreams(const CheckState& state, Findings* findings) {
  const Image& image = *state.image;
  const Geometry& g = image.geometry;
  ByteVector stream, cluster(g.cluster_size);
  std::vector<HostRange> bad;
  auto visit = [&](const EntryRef& ref) -> Status {
    if (!ref.entry.compressed() || CheckEntry(image, ref.entry).damaged()) return Ok();
    stream.resize(ref.entry.length(g));
    ReadTolerant(*image.source, ref.entry.offset(g), stream, &bad);
    Decoded decoded = InflateRawPart(stream, cluster);
    if (decoded.complete && bad.empty()) return Ok();
    bad.clear();
    Finding f = MakeFinding(Problem::kQcowComprUndecodable,
                            fmt::format("l2[{}]", image.l1[ref.slot].index));
    f.host = MakeHostRange(ref.entry.offset(g), stream.size());
    if (auto guest = ClusterRange(image, ref.Guest(image)); guest.length > 0) f.guest = guest;
    f.layer = kActiveLayer;
    f.detail = fmt::format("{} of {} bytes come out", decoded.produced, g.cluster_size);
    findings->Add(std::move(f));
    return Ok();
  };
  return ForEachEntry(image, state.fates, visit);
}

}  // namespace imgfsck::qcow1

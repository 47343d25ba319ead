// SPDX-License-Identifier: Apache-2.0
#include "tools/common/chain_map.h"

#include "base/interrupt.h"

namespace imgfsck {

Status WriteChainMap(Chain& chain, uint64_t begin, uint64_t end, MapStyle style, TextWriter& out) {
  MapWriter map(style, out);
  for (uint64_t at = begin; at < end;) {
    IMG_RETURN_IF_ERROR(CheckStop());
    IMG_ASSIGN_OR_RETURN(ChainStatus found, chain.StatusAt(at, end - at));
    const BlockStatus& s = found.status;
    MapEntry entry;
    entry.start = at;
    entry.length = s.length;
    entry.depth = found.depth;
    entry.present = s.state != MappingState::kUnallocated && !found.past_end;
    entry.data = s.state == MappingState::kData || s.state == MappingState::kCompressed;
    entry.zero = !entry.data;
    entry.offset = s.host_offset;
    entry.filename = chain.layers()[found.depth]->path;
    map.Add(entry);
    at += s.length;
  }
  return map.Finish();
}

}  // namespace imgfsck

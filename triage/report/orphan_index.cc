// SPDX-License-Identifier: Apache-2.0
#include "triage/report/orphan_index.h"

#include <fmt/format.h>

#include "base/text.h"
#include "triage/engine.h"

namespace imgfsck {

void WriteOrphanIndex(const TriageResult& result, TextWriter& out) {
  out.Put("file\timage\thost_offset\tlength\torigin\tclass\twhat\tentropy\tguest_offset\tsha256\n");
  for (size_t i = 0; i < result.files.size(); ++i) {
    for (const Remnant& remnant : result.files[i].facts.remnants.remnants) {
      if (remnant.file.empty()) continue;
      out.Put(fmt::format(
          "{}/{}\t{}\t{}\t{}\t{}\t{}\t{}\t{:.3f}\t{}\t{}\n", OrphanPath("", i).substr(1),
          Printable(remnant.file), Printable(result.files[i].file.path), remnant.host_offset,
          remnant.length, ToText(remnant.origin), ToText(remnant.kind), Printable(remnant.what),
          remnant.entropy, remnant.guest_offset ? std::to_string(*remnant.guest_offset) : "",
          Printable(remnant.sha256)));
    }
  }
}

}  // namespace imgfsck

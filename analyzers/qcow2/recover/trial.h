// SPDX-License-Identifier: Apache-2.0
// A header tried on the file: everything that it leads to is walked and counted, and the counts are
// compared with the stored ones, as a check does. The header that leaves least unexplained is the
// right one. Nothing is written.
#pragma once

#include <memory>
#include <vector>

#include "analyzers/check.h"
#include "analyzers/qcow2/recover/lens.h"
#include "analyzers/qcow2/recover/prefix_source.h"
#include "analyzers/qcow2/refcounts.h"
#include "formats/qcow2/image.h"

namespace imgfsck::qcow2 {

// Extension records for a new first cluster.
struct ExtensionRecord {
  uint32_t type = 0;
  ByteVector data;
};

struct Trial {
  Layout layout;
  std::shared_ptr<PrefixSource> view;  // the file with that header
  std::shared_ptr<Image> image;        // refers to *view
  // Clusters: used by what the header leads to; of those, not used as they should be or not counted
  // as they are used; counted, but used by nothing; entries that make no sense (one each).
  uint64_t used = 0, contradicted = 0, leaked = 0, invalid = 0;
  uint64_t l2_tables = 0;
  bool l1_contested = false;    // something else lies on the L1 table
  std::vector<CountRun> leaks;  // the first kMaxTrialLeaks

  uint64_t cluster_size() const { return uint64_t{1} << layout.cluster_bits; }
  // Bytes.
  double Explained() const {
    return static_cast<double>(used - std::min(used, contradicted)) *
           static_cast<double>(cluster_size());
  }
  double Wrong() const {
    return static_cast<double>(contradicted + leaked + invalid) *
           static_cast<double>(cluster_size());
  }
  double Gain() const { return Explained() - Wrong(); }
  // The share of what can be judged that holds, 0 to 1.
  double Quality() const {
    double all = Explained() + Wrong();
    return all > 0 ? Explained() / all : 0;
  }
  bool Perfect() const { return contradicted + leaked + invalid == 0; }
};
inline constexpr size_t kMaxTrialLeaks = 1 << 18;

// A version 3 header that says no more than `layout`; the size is what the L1 table can map.
Header HeaderFor(const Layout& layout);
// The bytes of a first cluster with this header and these extensions (END included), as far as they
// go. What follows in the file stays as it is.
ByteVector EncodeFirstCluster(const Header& header, const std::vector<ExtensionRecord>& extensions);

// `prefix`: what the file shall begin with; `layout` says the same of the tables.
Result<Trial> TryPrefix(const ByteSource& source, const Layout& layout, ByteVector prefix,
                        const CheckOptions& options);

}  // namespace imgfsck::qcow2

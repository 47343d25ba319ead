// SPDX-License-Identifier: Apache-2.0
// Row 65: compressed streams of different guest clusters that lie on one another.
#pragma once

#include <functional>

#include "analyzers/check.h"
#include "analyzers/qcow2/columns.h"
#include "analyzers/qcow2/state.h"

namespace imgfsck::qcow2 {

// `starts`: of streams that overlap an earlier one (StreamPlaces::Overlapping). `length_of`: bytes
// that the stream of this entry takes for certain. What is found goes to *findings and, entry by
// entry, to *overlaps.
using StreamLength = std::function<uint64_t(const CompressedSpan& span)>;
Status JudgeStreamOverlaps(const Image& image, const Columns& columns,
                           const std::vector<uint64_t>& starts, const StreamLength& length_of,
                           Findings* findings, std::vector<StreamRef>* overlaps);

}  // namespace imgfsck::qcow2

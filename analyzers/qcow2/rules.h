// SPDX-License-Identifier: Apache-2.0
// The rules over a parsed qcow2 image, by family. Each is a pure function that adds findings; the
// rows are those of the format sheet, section 16.
#pragma once

#include "analyzers/check.h"
#include "analyzers/qcow2/claims.h"
#include "formats/qcow2/image.h"
#include "model/finding.h"

namespace imgfsck::qcow2 {

void JudgeHeader(const Image& image, Findings* findings);      // rows 1–21, 141
void JudgeExtensions(const Image& image, Findings* findings);  // rows 22–34
void JudgeBacking(const Image& image, const CheckOptions& options, Findings* findings);  // row 35
// Row 111; `mapped_end`: end of the last cluster mapped in the data file.
void JudgeDataFile(const Image& image, const CheckOptions& options, uint64_t mapped_end,
                   Findings* findings);
void JudgeL1(const Image& image, Findings* findings);             // rows 36–41
void JudgeRefcountTable(const Image& image, Findings* findings);  // rows 72–79
void JudgeSnapshots(const Image& image, Findings* findings);      // rows 88–97, 100–108, 140
void JudgeBitmaps(const Image& image, Findings* findings);        // rows 113–133
void JudgeLuks(const Image& image, Findings* findings);           // rows 134–138
// The parts of bitmap tables and of the LUKS header that cannot be read.
void ProbeSideTables(const Image& image, std::vector<HostRange>* bad);

// The guest range of a layer whose L1 table, at `offset`, ends before it: behind its last entry in
// the file. No effect where there is no such range.
void SetRangeBehindL1(const Image& image, size_t layer, uint64_t offset, uint64_t entries,
                      Finding* finding);

// Some reader, QEMU for one, does not open an image with this header at all.
bool HeaderIsRefused(const Image& stored);

// A finding about one header field.
Finding HeaderFinding(Problem problem, std::string_view field, std::string detail = {});

}  // namespace imgfsck::qcow2

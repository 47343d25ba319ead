// SPDX-License-Identifier: Apache-2.0
// The dynamic header: writes down the fields that the parser concluded from the stored checksum,
// the spacing of the blocks and the usual places.
#include <algorithm>

#include "formats/vhd/encode.h"
#include "repair/vhd/passes.h"

namespace imgfsck::vhd {
namespace {

constexpr std::initializer_list<Problem> kHeaderMended = {
    Problem::kVhdDynHeaderCookie,    Problem::kVhdDynHeaderChecksum, Problem::kVhdDynHeaderVersion,
    Problem::kVhdDynHeaderNext,      Problem::kVhdDynHeaderReserved, Problem::kVhdDynBlockSize,
    Problem::kVhdDynParentFieldsSet, Problem::kVhdBatOffset};

bool HeaderWanted(const CheckReport& report, const RepairOptions& options) {
  return StateOf(report).image->sparse() && WantedAny(report, options, kHeaderMended);
}

Result<PassOutcome> RunHeader(const PassContext& context) {
  Editor editor(context);
  const Image& image = editor.image();
  PassOutcome outcome;
  DynHeader h = image.header;
  // Below this the answer is as likely wrong as right, and everything hangs on it.
  constexpr double kLeastConfidence = 0.5;
  if (image.header_from.confidence < kLeastConfidence) {
    outcome.notes.push_back("the dynamic header was not rebuilt: " + image.header_from.evidence);
    return outcome;
  }
  if (editor.Asked(Problem::kVhdDynHeaderReserved)) {
    std::fill_n(h.raw.begin() + header_at::kReserved1, 4, uint8_t{0});
    std::fill(h.raw.begin() + header_at::kReserved2, h.raw.end(), uint8_t{0});
  }
  if (editor.Asked(Problem::kVhdDynParentFieldsSet)) RemoveParent(&h);
  IMG_RETURN_IF_ERROR(editor.WriteHeader(h));
  outcome.changes = 1;
  if (image.header_from.origin != Origin::kStored) {
    outcome.particulars.push_back("dynamic header: " + image.header_from.evidence);
  }
  return outcome;
}

}  // namespace

const Pass kHeaderPass{"dynamic-header", 20, "restore the dynamic header", HeaderWanted, RunHeader};

}  // namespace imgfsck::vhd

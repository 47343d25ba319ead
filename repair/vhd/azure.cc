// SPDX-License-Identifier: Apache-2.0
// What --profile azure finds and metadata alone can mend: the size of a fixed disk, rounded up to a
// MiB with zeros, and a geometry that says the same as the size.
#include "base/checked.h"
#include "formats/vhd/geometry.h"
#include "repair/vhd/passes.h"

namespace imgfsck::vhd {
namespace {

bool AzureWanted(const CheckReport& report, const RepairOptions& options) {
  return WantedAny(report, options, {Problem::kVhdAzureSize, Problem::kVhdAzureGeometry});
}

Result<PassOutcome> RunAzure(const PassContext& context) {
  Editor editor(context);
  const Image& image = editor.image();
  PassOutcome outcome;
  Footer footer = image.footer;
  if (!image.trailing.sound() || !image.trailing_at_end || !editor.FooterTrusted() ||
      (!image.sparse() && image.trailing.offset != footer.current_size)) {
    outcome.notes.push_back("Azure's wishes are met once the disk is sound");
    return outcome;
  }
  const bool grow = editor.Asked(Problem::kVhdAzureSize) && !image.sparse();
  if (grow) footer.current_size = AlignUp(footer.current_size, kMiB);
  if (VirtualSize(footer, SizePolicy::kAuto) != footer.current_size ||
      QemuVirtualSize(footer) != footer.current_size) {
    footer.creator_app = kCreatorWin;  // whose disks everybody reads by their size
  }
  footer.geometry = GeometryFor(footer.current_size / kSectorSize);
  if (grow) {
    IMG_RETURN_IF_ERROR(editor.Fill(image.trailing.offset, image.trailing.length, 0));
    IMG_RETURN_IF_ERROR(editor.EndFileWith(footer, footer.current_size));
  } else {
    IMG_ASSIGN_OR_RETURN(bool changed, editor.WriteFooters(footer));
    if (!changed) return outcome;
  }
  outcome.changes = 1;
  return outcome;
}

}  // namespace

const Pass kAzurePass{"azure", 95, "make the disk one that Azure takes", AzureWanted, RunAzure};

}  // namespace imgfsck::vhd

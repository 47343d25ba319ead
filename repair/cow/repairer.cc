// SPDX-License-Identifier: Apache-2.0
// The order of the passes: first the header, without which nothing else can be found.
#include "repair/cow/repairer.h"

#include "repair/cow/passes.h"

namespace imgfsck {
namespace {

template <Problem... problems>
bool Wanted(const CheckReport& report, const RepairOptions& options) {
  return WantedAny(report, options, {problems...});
}

bool RelinkWanted(const CheckReport& report, const RepairOptions& options) {
  return !options.relink_parent.empty() && !report.findings.Has(Problem::kCowEmptyFile);
}

// What a wrong size looks like. It is a guess, however well founded, and never `safe`.
bool SizeWanted(const CheckReport& report, const RepairOptions& options) {
  using enum Problem;
  if (options.mode != RepairMode::kAll) {
    return WantedAny(report, options, {kCowSizeOverflow, kCowBackingSize});
  }
  return WantedAny(report, options,
                   {kCowSizeOverflow, kCowBackingSize, kCowBitmapTruncated, kCowDataBeyondEof,
                    kCowLayoutAmbiguous});
}

bool ExportWanted(const CheckReport&, const RepairOptions& options) {
  return options.orphans == OrphanPolicy::kDirectory;
}

using enum Problem;
constexpr Pass kPasses[] = {
    {"recreate", 5, "writes a header into an empty file", Wanted<kCowEmptyFile>, cow::Recreate},
    {"older-header", 8, "restores the header of the version that the file was made with",
     Wanted<kCowHeaderUpgradedInPlace>, cow::RestoreOlder},
    {"size", 9, "works the disk size out from the backing file and the file's length", SizeWanted,
     cow::RepairSize},
    {"header", 10, "restores header fields from what the rest of the file shows",
     Wanted<kCowMagic, kCowVersion, kCowV3BrokenLayout, kCowEndian, kCowSectorsize, kCowAlignment,
            kCowFormatField, kCowSizeZero, kCowPathUnterminated, kCowPathRelative, kCowPathGarbage,
            kCowBackingMtime>,
     cow::RepairHeader},
    {"relink", 20, "names the backing file that was asked for", RelinkWanted, cow::Relink},
    {"bitmap", 30, "completes the bitmap and clears what is no mark",
     Wanted<kCowBitmapTruncated, kCowBitmapBitsPastSize, kCowBackingNewerMerged>,
     cow::RepairBitmap},
    {"sectors", 40, "makes marks and data agree",
     Wanted<kCowDataBeyondEof, kCowDataHoleSet, kCowDataUnmapped, kCowDataRedundant>,
     cow::RepairSectors},
    {"orphans", 45, "hands over what the guest does not see", ExportWanted, cow::ExportOrphans},
    {"length", 50, "brings the file to its usual length", Wanted<kCowFileLength, kCowTrailingData>,
     cow::RepairLength},
    {"convert", 60, "writes the image anew in the version 3 layout",
     Wanted<kCowLayoutAmbiguous, kCowLayoutForeignAbi, kCowBitmapRounding, kCowBitmapDataAlias>,
     cow::Convert},
};

}  // namespace

const Repairer kCowRepairer = {"cow", kPasses, nullptr};

}  // namespace imgfsck

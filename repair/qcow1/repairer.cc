// SPDX-License-Identifier: Apache-2.0
// The order of the passes: what makes more of the image readable comes first; shared bytes are
// separated before anything changes a table that they may lie in.
#include "repair/qcow1/repairer.h"

#include "repair/qcow1/passes.h"

namespace imgfsck {
namespace {

template <Problem... problems>
bool Wanted(const CheckReport& report, const RepairOptions& options) {
  return WantedAny(report, options, {problems...});
}

// Only when asked for by code: these change every place in the file.
bool RewriteWanted(const CheckReport& report, const RepairOptions& options) {
  for (Problem problem : {Problem::kQcowWaste, Problem::kQcowBackingCluster}) {
    if (options.also_fix.contains(problem) && report.findings.Has(problem)) return true;
  }
  return false;
}

bool ExportWanted(const CheckReport& report, const RepairOptions& options) {
  return options.orphans == OrphanPolicy::kDirectory &&
         (report.findings.Has(Problem::kQcowWaste) || report.findings.Has(Problem::kQcowL2Orphan));
}

using enum Problem;
constexpr Pass kPasses[] = {
    {"header", 10, "restores header fields from what the rest of the file shows",
     Wanted<kQcowMagic, kQcowVersion, kQcowSizeSmall, kQcowSizeUnaligned, kQcowSizeOverflow,
            kQcowClusterBits, kQcowL2Bits, kQcowPadding, kQcowCrypt, kQcowMtime>,
     qcow1::RepairHeader},
    {"backing-name", 20, "cuts the backing file's name down to what is readable",
     Wanted<kQcowBackingName, kQcowBackingMissing>, qcow1::RepairBackingName},
    {"xen-order", 30, "turns the top table into the byte order of the format",
     Wanted<kQcowXenL1Endian>, qcow1::RepairXenOrder},
    {"l1-place", 40, "finds or completes the top table", Wanted<kQcowL1Offset, kQcowL1PastEof>,
     qcow1::RepairL1Place},
    {"conflicts", 50, "gives everybody who shares bytes a copy of them",
     Wanted<kQcowL1EntryDuplicate, kQcowDataCrosslink, kQcowDataOnMetadata, kQcowComprOverlap>,
     qcow1::RepairConflicts},
    {"l1-entries", 60, "corrects or clears entries of the top table",
     Wanted<kQcowL1EntryFlag, kQcowL1EntryUnaligned, kQcowL1EntryPastEof, kQcowL2Implausible,
            kQcowMetaOverlap>,
     qcow1::RepairL1Entries},
    {"length", 70, "completes a table or cluster that the end of the file cuts in two",
     Wanted<kQcowL2Short, kQcowClusterShort>, qcow1::RepairLength},
    {"entries", 80, "keeps what is readable of damaged clusters and zeroes the rest",
     Wanted<kQcowL2EntryUnaligned, kQcowL2EntryPastEof, kQcowComprSize, kQcowComprPastEof,
            kQcowComprUndecodable, kQcowPastSize, kQcowComprPlaintext>,
     qcow1::RepairL2Entries},
    {"relink", 85, "puts lost tables back where only one place is possible", Wanted<kQcowL2Orphan>,
     qcow1::RelinkTables},
    {"xen-checksum", 90, "recomputes the checksum of the top table", Wanted<kQcowXenCksum>,
     qcow1::RepairXenChecksum},
    {"orphans", 92, "hands over what nothing refers to", ExportWanted, qcow1::ExportOrphans},
    {"rewrite", 95, "writes the image anew", RewriteWanted, qcow1::Rewrite},
};

}  // namespace

const Repairer kQcow1Repairer = {"qcow", kPasses, nullptr};

}  // namespace imgfsck

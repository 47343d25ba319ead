// SPDX-License-Identifier: Apache-2.0
// The table of checkers. A new format: its include, its line.
#include "analyzers/check.h"

#include <fmt/format.h>

#include <array>

#include "analyzers/chain/links.h"
#include "analyzers/cow/check.h"
#include "analyzers/qcow1/check.h"
#include "analyzers/qcow2/check.h"
#include "analyzers/raw/check.h"
#include "analyzers/vhd/check.h"
#include "base/interrupt.h"

namespace imgfsck {
namespace {

constexpr std::array kCheckers = {
    &kQcow2Checker, &kQcow1Checker, &kCowChecker, &kRawChecker, &kVhdChecker,
};

}  // namespace

Result<CheckReport> CheckImage(const ByteSource& source, const Format& format,
                               const CheckOptions& options) {
  for (const Checker* checker : kCheckers) {
    if (checker->format != format.name) continue;
    CheckReport report;
    report.format = &format;
    report.file_size = source.Size();
    report.findings = Findings(options.max_findings);
    IMG_RETURN_IF_ERROR(checker->run(source, options, &report));
    if (options.chain) IMG_RETURN_IF_ERROR(JudgeChain(options, &report));
    IMG_RETURN_IF_ERROR(CheckStop());  // a walk that a signal cut short must not look complete
    report.findings.Sort();
    return report;
  }
  return Error{ErrorCode::kUnsupported,
               fmt::format("checking {} images is not available in this version", format.name),
               {}};
}

}  // namespace imgfsck

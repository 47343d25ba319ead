// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/examine_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "analyzers/qcow2/rules.h"
#include "base/text.h"

namespace imgfsck::qcow2 {
namespace {

constexpr double kSafeConfidence = 0.9;

// An image and the view that it refers to, under one owner.
struct Viewed {
  std::shared_ptr<const Recovery> recovery;
  std::unique_ptr<Image> image;
};

uint64_t FieldValue(Bytes bytes, const FieldSpec& spec) {
  uint64_t value = 0;
  for (unsigned i = 0; i < spec.length; ++i) value = value << 8 | bytes[spec.offset + i];
  return value;
}

// What a field that contradicts the tables is reported as: a wrong value of its own, or a wrong
// place of a table.
Problem ProblemOf(const FieldSpec& field) {
  static constexpr std::pair<std::string_view, Problem> kOwn[] = {
      {"magic", Problem::kQcow2HdrMagic},
      {"version", Problem::kQcow2HdrVersion},
      {"cluster_bits", Problem::kQcow2HdrClusterBits},
      {"size", Problem::kQcow2HdrSizeCap},
      {"crypt_method", Problem::kQcow2HdrCryptMethod},
      {"l1_size", Problem::kQcow2L1Short},
      {"incompatible_features", Problem::kQcow2HdrIncompatUnknown},
      {"refcount_order", Problem::kQcow2HdrRefcountOrder},
      {"header_length", Problem::kQcow2HdrLengthShort},
      {"compression_type", Problem::kQcow2HdrCompressionType}};
  for (const auto& [name, problem] : kOwn) {
    if (field.name == name) return problem;
  }
  return Problem::kQcow2HdrShapeOverlap;
}

// The header's own findings of the image as stored.
std::vector<Finding> JudgeStored(const Image& stored) {
  Findings findings;
  JudgeHeader(stored, &findings);
  if (stored.walkable) {
    JudgeL1(stored, &findings);
    JudgeRefcountTable(stored, &findings);
  }
  std::erase_if(findings.kept(), [](const Finding& f) { return f.structure != "header"; });
  return std::move(findings.kept());
}

// No guest byte can be read today, or none would read differently.
bool IsSafe(const Recovery& recovery, bool refused) {
  if (recovery.confidence < kSafeConfidence || !recovery.layout.has_tree()) return false;
  if (refused) return !recovery.size_guessed;
  return !recovery.remaps;
}

}  // namespace

std::vector<FieldChange> ChangesOf(Bytes before, Bytes after) {
  std::vector<FieldChange> changes;
  bool version3 = BeAt<uint32_t>(after, 4) >= 3;
  for (const FieldSpec& spec : HeaderFields()) {
    if ((spec.v3_only && !version3) || spec.offset + spec.length > after.size()) continue;
    FieldChange change{spec, FieldValue(before, spec), FieldValue(after, spec)};
    if (change.before != change.after) changes.push_back(change);
  }
  return changes;
}

Result<HeaderVerdict> ExamineHeader(const ByteSource& source, const CheckOptions& options) {
  HeaderVerdict verdict;
  IMG_ASSIGN_OR_RETURN(std::unique_ptr<Image> stored, ParseImage(source));
  if (!HeaderIsUseless(source, *stored)) {
    verdict.image = std::move(stored);
    return verdict;
  }
  IMG_ASSIGN_OR_RETURN(RecoveryResult result, RecoverHeader(source, *stored, options));
  verdict.refusal = std::move(result.refusal);
  bool refused = HeaderIsRefused(*stored);
  // A header that opens the image gives way to no other that only an L1 table speaks for.
  const bool weak =
      result.recovery && !refused && result.recovery->remaps && !result.recovery->layout.has_tree();
  if (!result.recovery || weak) {
    verdict.image = std::move(stored);
    return verdict;
  }
  result.recovery->safe = IsSafe(*result.recovery, refused);
  verdict.recovery = std::make_shared<const Recovery>(std::move(*result.recovery));
  if (!refused) {
    verdict.image = std::move(stored);
    return verdict;
  }
  auto viewed = std::make_shared<Viewed>();
  viewed->recovery = verdict.recovery;
  IMG_ASSIGN_OR_RETURN(viewed->image, ParseImage(*verdict.recovery->view));
  verdict.stored = JudgeStored(*stored);
  verdict.image = std::shared_ptr<Image>(viewed, viewed->image.get());
  verdict.reconstructed = true;
  return verdict;
}

void AddToHeaderFindings(const HeaderVerdict& verdict, Findings* findings) {
  if (!verdict.recovery) {
    for (Finding& f : findings->kept()) {
      if (f.structure == "header" && !verdict.refusal.empty()) f.evidence = verdict.refusal;
    }
    return;
  }
  const Recovery& recovery = *verdict.recovery;
  auto touches = [](const Finding& f, const FieldChange& change) {
    return f.structure == "header" && f.host &&
           f.host->Overlaps(MakeHostRange(change.field.offset, change.field.length));
  };
  auto explain = [&](Finding* f) {
    f->repair = recovery.safe ? RepairClass::kSafe : RepairClass::kAll;
    f->evidence = recovery.evidence;
    f->confidence = recovery.confidence;
  };
  for (const Finding& f : verdict.stored) {
    if (findings->Units(f.problem) > 0) continue;  // still true of the recovered header
    Finding copy = f;
    explain(&copy);
    findings->Add(std::move(copy));
  }
  for (const FieldChange& change : recovery.changes) {
    bool known = false;
    for (Finding& f : findings->kept()) {
      if (!touches(f, change) || f.severity_or_default() != Severity::kCorruption) continue;
      known = true;
      explain(&f);
    }
    if (known || recovery.whole) continue;
    Finding f = HeaderFinding(ProblemOf(change.field), change.field.name,
                              fmt::format("{} is {}, the tables say {}", change.field.name,
                                          Hex(change.before), Hex(change.after)));
    if (!verdict.reconstructed) f.effect = recovery.remaps ? Effect::kWrong : Effect::kNone;
    explain(&f);
    findings->Add(std::move(f));
  }
  if (!recovery.whole || findings->Units(Problem::kQcow2HdrMagic) > 0) return;
  Finding f =
      HeaderFinding(Problem::kQcow2HdrShapeOverlap, "", "hardly anything of the header is true");
  f.host = MakeHostRange(0, recovery.view->prefix().size());
  explain(&f);
  findings->Add(std::move(f));
}

}  // namespace imgfsck::qcow2

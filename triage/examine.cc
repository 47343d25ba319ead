// SPDX-License-Identifier: Apache-2.0
#include "triage/examine.h"

#include <fmt/format.h>

#include <algorithm>

#include "analyzers/check.h"
#include "base/interrupt.h"
#include "triage/facts_io.h"
#include "triage/identify.h"

namespace imgfsck {
namespace {

enum class Part : uint32_t { kStage, kIdentity, kReasons, kCheck, kEnd };

class Examination {
 public:
  Examination(const FoundFile& file, const ExamineOptions& options, Sender& sender)
      : found_(file), options_(options), sender_(sender) {}

  void Run() {
    Stage("identify");
    Identify();
    Send(Part::kIdentity, facts_.identity);
    if (subject_.format != nullptr) {
      Stage("check");
      Check();
      Send(Part::kCheck, facts_.check);
    }
    NoteLimits();
    Send(Part::kReasons, facts_.reasons);
    if (!StopRequested()) sender_.Send(static_cast<uint32_t>(Part::kEnd), "");
  }

 private:
  template <class T>
  void Send(Part part, T& value) {
    Packer packer;
    packer(value);
    sender_.Send(static_cast<uint32_t>(part), packer.bytes());
  }
  void Stage(const char* name) { sender_.Send(static_cast<uint32_t>(Part::kStage), name); }
  Reason& Add(ReasonCode code, std::string detail = {}) {
    Reason& reason = facts_.reasons.emplace_back();
    reason.code = code;
    reason.detail = std::move(detail);
    return reason;
  }

  void Identify() {
    subject_ = OpenSubject(found_, &facts_.identity);
    if (subject_.damaged_header) Add(ReasonCode::kBrokenHeader);
    const IdentityFacts& id = facts_.identity;
    if (id.kind == FileKind::kImage && !id.examined) Add(ReasonCode::kFormatUnchecked);
  }

  // What stood in the way of the examination.
  void NoteLimits() {
    const IdentityFacts& id = facts_.identity;
    const bool image = id.kind == FileKind::kImage;
    if (image && !id.trouble.empty()) Add(ReasonCode::kUnreadable, id.trouble);
    if (!facts_.check.trouble.empty()) Add(ReasonCode::kUnreadable, facts_.check.trouble);
    for (const Finding& finding : facts_.check.findings) {
      if (finding.problem != Problem::kImageUnreadable) continue;
      Reason& reason = Add(ReasonCode::kUnreadable, finding.detail);
      if (!finding.host) continue;
      reason.offset = finding.host->offset.value;
      reason.length = finding.host->length;
    }
    if (subject_.file && subject_.Changed(found_)) Add(ReasonCode::kChanged);
  }

  void Check() {
    CheckOptions check;  // without a path: nothing beside the image is looked at
    check.deep = options_.deep;
    check.threads = options_.threads;
    check.max_findings = options_.max_findings;
    auto report = CheckImage(*subject_.file, *subject_.format, check);
    CheckFacts& facts = facts_.check;
    if (!report) {
      facts.trouble = report.error().message;
      return;
    }
    facts.done = true;
    for (const auto& [problem, total] : report->findings.totals()) {
      facts.totals.push_back({std::string(InfoOf(problem).code), total.findings, total.units});
    }
    for (size_t s = 0; s < 4; ++s) {
      facts.findings_by_severity[s] = report->findings.FindingsOf(static_cast<Severity>(s));
      facts.units_by_severity[s] = report->findings.Units(static_cast<Severity>(s));
    }
    facts.findings = std::move(report->findings.kept());
    facts.check_errors = report->counts.check_errors;
    facts.image_end_offset = report->counts.image_end_offset;
    facts.total_clusters = report->counts.total_clusters;
    facts.allocated_clusters = report->counts.allocated_clusters;
  }

  const FoundFile& found_;
  const ExamineOptions& options_;
  Sender& sender_;
  Subject subject_;
  ImageFacts facts_;
};

template <class T>
bool Unpack(const Message& message, T* value) {
  Unpacker unpacker(message.bytes);
  unpacker(*value);
  return unpacker.complete();
}

bool Take(const Message& message, ImageFacts* facts) {
  switch (static_cast<Part>(message.kind)) {
    case Part::kStage:
      facts->stage = message.bytes;
      return true;
    case Part::kIdentity:
      return Unpack(message, &facts->identity);
    case Part::kReasons:
      return Unpack(message, &facts->reasons);
    case Part::kCheck:
      return Unpack(message, &facts->check);
    case Part::kEnd:
      facts->complete = true;
      return true;
  }
  return false;
}

ReasonCode ReasonOf(WorkerEnd end) {
  switch (end) {
    case WorkerEnd::kCrashed:
      return ReasonCode::kWorkerCrashed;
    case WorkerEnd::kOutOfMemory:
      return ReasonCode::kWorkerMemory;
    case WorkerEnd::kOutOfTime:
      return ReasonCode::kWorkerTime;
    case WorkerEnd::kDone:
    case WorkerEnd::kFailed:
      break;
  }
  return ReasonCode::kWorkerFailed;
}

}  // namespace

void Examine(const FoundFile& file, const ExamineOptions& options, Sender& sender) {
  Examination(file, options, sender).Run();
}

ImageFacts FactsOf(const WorkerOutcome& outcome) {
  ImageFacts facts;
  bool sense = true;
  for (const Message& message : outcome.messages) sense = sense && Take(message, &facts);
  if (outcome.end == WorkerEnd::kDone && facts.complete && sense) {
    SortReasons(&facts.reasons);
    return facts;
  }
  facts.complete = false;
  Reason reason;
  reason.code = ReasonOf(outcome.end);
  reason.detail = "while it was busy with: " + facts.stage;
  if (outcome.end == WorkerEnd::kCrashed)
    reason.detail += fmt::format("; signal {}", outcome.signal);
  facts.reasons.push_back(std::move(reason));
  SortReasons(&facts.reasons);
  return facts;
}

}  // namespace imgfsck

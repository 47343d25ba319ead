// SPDX-License-Identifier: Apache-2.0
#include "triage/examine.h"

#include <fmt/format.h>

#include <algorithm>

#include "analyzers/check.h"
#include "base/interrupt.h"
#include "triage/facts_io.h"
#include "triage/identify.h"
#include "triage/policy/policy.h"

namespace imgfsck {
namespace {

enum class Part : uint32_t { kStage, kIdentity, kReasons, kHash, kCheck, kEnd };

class Examination {
 public:
  Examination(const FoundFile& file, const ExamineOptions& options, Sender& sender)
      : found_(file), options_(options), sender_(sender) {}

  void Run() {
    Stage("identify");
    Identify();
    Stage("policy");
    Policy();
    if (subject_.file && options_.hash.any()) {
      Stage("hash");
      HashFile();
    }
    if (subject_.format != nullptr) {
      Stage("check");
      Check();
      Send(Part::kCheck, facts_.check);
    }
    Stage("conclude");
    Conclude();
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
  void Add(ReasonCode code, std::string detail = {}) {
    facts_.reasons.push_back({code, 0, 0, {}, std::move(detail)});
  }

  void Identify() {
    subject_ = OpenSubject(found_, &facts_.identity);
    Send(Part::kIdentity, facts_.identity);
  }

  // Sent at once, and again with what came after: a crash in the check costs none of these.
  void Policy() {
    if (!subject_.file) return;
    facts_.reasons = FindReasons(subject_, facts_.identity, options_.policy);
    Send(Part::kReasons, facts_.reasons);
  }

  void HashFile() {
    auto hashed = Hash(HashSourceOf(*subject_.file), options_.hash);
    if (!hashed) return;  // stopped by a signal
    facts_.container = std::move(*hashed);
    Send(Part::kHash, facts_.container);
    for (const HostRange& range : facts_.container.unreadable) {
      facts_.reasons.push_back(
          {ReasonCode::kUnreadable, range.offset.value, range.length, {}, "hashed as zeros"});
    }
  }

  // What the check has to say about it, and what stood in its way.
  void Conclude() {
    if (!subject_.file) return;
    const IdentityFacts& id = facts_.identity;
    for (Reason& reason : ReasonsOfFindings(facts_.check, *subject_.file)) {
      facts_.reasons.push_back(std::move(reason));
    }
    const bool image = id.kind == FileKind::kImage;
    if (image && !id.trouble.empty()) Add(ReasonCode::kUnreadable, id.trouble);
    if (!facts_.check.trouble.empty()) Add(ReasonCode::kUnreadable, facts_.check.trouble);
    if (subject_.Changed(found_)) Add(ReasonCode::kChanged);
    Send(Part::kReasons, facts_.reasons);
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
    case Part::kHash:
      return Unpack(message, &facts->container);
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

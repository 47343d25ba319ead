// SPDX-License-Identifier: Apache-2.0
#include "triage/examine.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "analyzers/check.h"
#include "base/interrupt.h"
#include "model/database_file.h"
#include "triage/entropy.h"
#include "triage/facts_io.h"
#include "triage/identify.h"
#include "triage/named_image.h"
#include "triage/policy/policy.h"
#include "triage/remnants.h"

namespace imgfsck {
namespace {

enum class Part : uint32_t {
  kStage,
  kIdentity,
  kReasons,
  kHash,
  kCheck,
  kFilePicture,
  kDiskPicture,
  kRemnants,
  kEntropy,
  kRules,
  kModel,
  kEnd,
};

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
    if (report_) LookInside();
    if (image_once_ && options_.entropy) {
      Stage("entropy");
      Keep(ProfileEntropy(*subject_.file, nullptr), Part::kEntropy, &facts_.entropy);
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
    if (facts_.identity.kind == FileKind::kOther) {
      if (auto missing = MissingImage(*subject_.file, found_.path)) {
        facts_.reasons.push_back(std::move(*missing));
        image_once_ = true;
      }
    }
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
    ReportRemnants();
    for (Reason& reason : ReasonsOfFindings(facts_.check, *subject_.file)) {
      facts_.reasons.push_back(std::move(reason));
    }
    const bool image = id.kind == FileKind::kImage;
    if (image && !id.trouble.empty()) Add(ReasonCode::kUnreadable, id.trouble);
    if (!facts_.check.trouble.empty()) Add(ReasonCode::kUnreadable, facts_.check.trouble);
    if (subject_.Changed(found_)) Add(ReasonCode::kChanged);
    Send(Part::kReasons, facts_.reasons);
  }

  // What needs a checked image. Each part is worth having without the others.
  void LookInside() {
    const ByteSource& file = *subject_.file;
    const ImageRows& rows = *subject_.rows;
    if (options_.pictures) {
      Stage("pictures");
      Keep(PictureOfFile(file, rows, report_->findings), Part::kFilePicture, &facts_.file_picture);
      Keep(PictureOfDisk(rows, report_->findings), Part::kDiskPicture, &facts_.disk_picture);
    }
    Stage("unclaimed bytes");
    RemnantOptions remnants;
    remnants.folder = options_.orphans;
    const bool raw = subject_.format->name == "raw";  // all of it is the disk
    if (!raw) Keep(FindRemnants(file, rows, *report_, remnants), Part::kRemnants, &facts_.remnants);
    if (options_.entropy) {
      Stage("entropy");
      Keep(ProfileEntropy(file, &rows), Part::kEntropy, &facts_.entropy);
    }
    if (!options_.rules.empty()) {
      Stage("rules");
      facts_.rules = RunRules(options_.rules, Model());
      Send(Part::kRules, facts_.rules);
    }
    if (!options_.model.empty()) {
      Stage("model");
      WriteModel();
    }
  }

  template <class T>
  void Keep(Result<T> found, Part part, T* into) {
    if (!found) {
      if (found.error().code != ErrorCode::kInterrupted) {
        Add(ReasonCode::kWorkerFailed, found.error().message);
      }
      return;
    }
    *into = std::move(*found);
    Send(part, *into);
  }

  // One reason for each place that bytes come from: how many, and the first of them.
  void ReportRemnants() {
    for (size_t origin = 0; origin < facts_.remnants.bytes_by_origin.size(); ++origin) {
      const uint64_t bytes = facts_.remnants.bytes_by_origin[origin];
      const auto first = std::ranges::find(facts_.remnants.remnants,
                                           static_cast<RemnantOrigin>(origin), &Remnant::origin);
      if (bytes == 0 || first == facts_.remnants.remnants.end()) continue;
      ByteVector shown(std::min<uint64_t>(first->length, kReasonBytes));
      if (!ReadPadded(*subject_.file, first->host_offset, shown)) shown.clear();
      facts_.reasons.push_back(
          {ReasonCode::kRemnant, first->host_offset, first->length, std::move(shown),
           fmt::format("{}: {} bytes, the first seem to be {}{}", ToText(first->origin), bytes,
                       ToText(first->kind), first->what.empty() ? "" : " (" + first->what + ")")});
    }
  }

  ModelSource Model() {
    const auto sha256 = facts_.container.digests.find("sha256");
    ModelSource source;
    source.rows = subject_.rows.get();
    source.findings = [this]() -> Result<const Findings*> { return &report_->findings; };
    source.refcounts =
        [this](const RowQuery& query) -> Result<std::unique_ptr<RowCursor<RefcountRow>>> {
      return report_->refcounts ? report_->refcounts(query) : nullptr;
    };
    source.image_id = options_.image_id;
    if (sha256 != facts_.container.digests.end()) source.sha256 = sha256->second;
    return source;
  }

  void Check() {
    CheckOptions check;  // without a path: nothing beside the image is looked at
    check.deep = options_.deep;
    check.threads = options_.threads;
    check.max_findings = options_.max_findings;
    auto checked = CheckImage(*subject_.file, *subject_.format, check);
    CheckFacts& facts = facts_.check;
    if (!checked) {
      facts.trouble = checked.error().message;
      return;
    }
    report_ = std::move(*checked);
    facts = FactsOfCheck(*report_);
  }

  // A database that cannot be written costs nothing but itself; its absence is noticed.
  void WriteModel() {
    if (auto written = WriteDatabaseFile(options_.model, Model()); !written) {
      facts_.model_trouble = written.error().message;
    }
    Send(Part::kModel, facts_.model_trouble);
  }

  const FoundFile& found_;
  const ExamineOptions& options_;
  Sender& sender_;
  Subject subject_;
  std::optional<CheckReport> report_;
  bool image_once_ = false;  // by its name
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
    case Part::kFilePicture:
      return Unpack(message, &facts->file_picture);
    case Part::kDiskPicture:
      return Unpack(message, &facts->disk_picture);
    case Part::kRemnants:
      return Unpack(message, &facts->remnants);
    case Part::kEntropy:
      return Unpack(message, &facts->entropy);
    case Part::kRules:
      return Unpack(message, &facts->rules);
    case Part::kModel:
      return Unpack(message, &facts->model_trouble);
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

CheckFacts FactsOfCheck(const CheckReport& report) {
  CheckFacts facts;
  facts.done = true;
  for (const auto& [problem, total] : report.findings.totals()) {
    facts.totals.push_back({std::string(InfoOf(problem).code), total.findings, total.units});
  }
  for (size_t s = 0; s < 4; ++s) {
    facts.findings_by_severity[s] = report.findings.FindingsOf(static_cast<Severity>(s));
    facts.units_by_severity[s] = report.findings.Units(static_cast<Severity>(s));
  }
  facts.findings = report.findings.kept();
  facts.check_errors = report.counts.check_errors;
  facts.image_end_offset = report.counts.image_end_offset;
  facts.total_clusters = report.counts.total_clusters;
  facts.allocated_clusters = report.counts.allocated_clusters;
  return facts;
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

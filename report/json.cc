// SPDX-License-Identifier: Apache-2.0
#include "report/json.h"

#include <algorithm>

#include "base/json_writer.h"
#include "report/finding_json.h"

namespace imgfsck {
namespace {

std::string_view ToText(ErrorCode code) {
  switch (code) {
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kNoSpace:
      return "no-space";
    case ErrorCode::kNotFound:
      return "not-found";
    case ErrorCode::kPermission:
      return "permission";
    case ErrorCode::kExists:
      return "exists";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kInvalid:
      return "invalid";
    case ErrorCode::kLocked:
      return "locked";
    case ErrorCode::kTooLarge:
      return "too-large";
    case ErrorCode::kOutOfMemory:
      return "out-of-memory";
    case ErrorCode::kInterrupted:
      return "interrupted";
    case ErrorCode::kNeedsKey:
      return "needs-key";
    case ErrorCode::kConflict:
      return "conflict";
  }
  return "unknown";
}

void PutStrings(std::string_view key, const std::vector<std::string>& list, JsonWriter& json) {
  json.Key(key);
  json.BeginArray();
  for (const std::string& text : list) json.Value(std::string_view(text));
  json.EndArray();
}

// What `qemu-img check` counts, then what it does not say.
void PutNumbers(const ImageResult& result, JsonWriter& json) {
  const CheckResult none;
  const CheckResult* check = FinalCheck(result);
  const CheckResult& numbers = check != nullptr ? *check : none;
  const Findings empty;
  const Findings& findings = check != nullptr ? *check->findings : empty;
  json.Member("check-errors", numbers.check_errors);
  json.Member("image-end-offset", numbers.image_end_offset);
  json.Member("total-clusters", numbers.total_clusters);
  json.Member("allocated-clusters", numbers.allocated_clusters);
  json.Member("fragmented-clusters", numbers.fragmented_clusters);
  json.Member("compressed-clusters", numbers.compressed_clusters);
  json.Member("corruptions", findings.Units(Severity::kCorruption));
  json.Member("leaks", findings.Units(Severity::kLeak));
  json.Member("corruptions-fixed", FixedUnits(result, Severity::kCorruption));
  json.Member("leaks-fixed", FixedUnits(result, Severity::kLeak));
  json.Member("virtual-size", numbers.virtual_size);
  json.Member("file-size", numbers.file_size);
  json.Member("cluster-size", numbers.cluster_size);
  json.Member("format-version", numbers.version);
  json.Member("warnings", findings.Units(Severity::kWarning));
  json.Member("infos", findings.Units(Severity::kInfo));
}

void PutFindings(const ImageResult& result, const ReportOptions& options, JsonWriter& json) {
  const std::vector<Finding> list = FindingsToList(result);
  const size_t listed = std::min(list.size(), options.max_findings);
  json.Key("findings");
  json.BeginArray();
  for (size_t i = 0; i < listed; ++i) WriteFindingJson(list[i], json, options.names);
  json.EndArray();
  // The true numbers of what is left, however many findings are listed.
  json.Key("totals");
  json.BeginArray();
  if (const CheckResult* check = FinalCheck(result)) {
    for (const auto& [problem, total] : check->findings->totals()) {
      json.BeginObject();
      json.Member("code", InfoOf(problem).code);
      json.Member("findings", total.findings);
      json.Member("count", total.units);
      json.EndObject();
    }
  }
  json.EndArray();
}

// By layer, where more than the active disk was looked at.
void PutNames(const GuestNames& names, JsonWriter& json) {
  json.Key("names");
  json.BeginObject();
  for (const auto& [layer, facts] : names.layers) {
    json.Key(layer);
    WriteNameFactsJson(facts, false, json);
  }
  json.EndObject();
}

void PutRepair(const RepairSummary& repair, const GuestNames* names, JsonWriter& json) {
  json.Key("repair");
  json.BeginObject();
  json.Member("mode", repair.mode);
  json.Member("dry-run", repair.dry_run);
  if (!repair.output.empty()) json.Member("output", repair.output);
  if (!repair.plan_file.empty()) json.Member("plan-file", repair.plan_file);
  json.Key("undo-file");
  repair.undo_file.empty() ? json.Null() : json.Value(std::string_view(repair.undo_file));
  json.Member("patches", repair.patches);
  json.Member("bytes-written", repair.bytes_written);
  json.Member("verified", repair.verified);
  json.Key("lost");
  json.BeginArray();
  for (const LostRange& range : repair.lost) {
    json.BeginObject();
    json.Member("layer", range.layer);
    WriteGuestRangeJson(range.guest, json);
    json.Member("effect", ToText(range.effect));
    json.Member("by-repair", range.by_repair);
    if (names != nullptr) WriteRangeNamesJson(*names, range.layer, range.guest, json);
    json.EndObject();
  }
  json.EndArray();
  json.Key("orphans");
  json.BeginObject();
  json.Member("kept", repair.orphans.kept);
  json.Member("relinked", repair.orphans.relinked);
  json.Member("freed", repair.orphans.freed);
  json.Member("where", repair.orphans.where);
  json.EndObject();
  PutStrings("done", repair.done, json);
  PutStrings("refused", repair.refused, json);
  json.EndObject();
}

void PutError(const Error& error, JsonWriter& json) {
  json.Key("error");
  json.BeginObject();
  json.Member("code", ToText(error.code));
  json.Member("message", error.message);
  if (error.offset) json.Member("host-offset", *error.offset);
  json.EndObject();
}

}  // namespace

void WriteImageJson(const ImageResult& result, const ReportOptions& options, TextWriter& out) {
  JsonWriter json(out);
  const CheckResult* check = FinalCheck(result);
  json.BeginObject();
  json.Member("filename", result.path);
  json.Member("format", check != nullptr ? std::string_view(check->format) : "");
  PutNumbers(result, json);
  json.Member("exit-code", result.exit_code);
  if (result.error) PutError(*result.error, json);
  PutStrings("notes", result.notes, json);
  PutFindings(result, options, json);
  if (result.repair) PutRepair(*result.repair, options.names, json);
  if (options.names != nullptr) PutNames(*options.names, json);
  json.EndObject();
  out.Put('\n');
}

}  // namespace imgfsck

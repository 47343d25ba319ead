// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/base64.h"
#include "base/json_writer.h"
#include "base/text.h"
#include "io/file.h"
#include "io/sha256.h"
#include "repair/plan_file.h"

namespace imgfsck {
namespace {

void PutFindings(std::string_view key, const Findings& findings, JsonWriter& json) {
  json.Key(key);
  json.BeginArray();
  for (const Finding& finding : findings.kept()) {
    json.BeginObject();
    json.Member("code", finding.info().code);
    json.Member("severity", ToText(finding.severity_or_default()));
    json.Member("structure", finding.structure);
    if (finding.host) {
      json.Member("host-offset", finding.host->offset.value);
      json.Member("length", finding.host->length);
    }
    if (finding.guest) {
      json.Member("layer", finding.layer);
      json.Member("guest-offset", finding.guest->offset.value);
      json.Member("guest-length", finding.guest->length);
    }
    json.Member("count", finding.count);
    json.Member("message", finding.Message());
    json.EndObject();
  }
  json.EndArray();
}

void PutRanges(std::string_view key, const std::vector<LayerRange>& ranges, JsonWriter& json) {
  json.Key(key);
  json.BeginArray();
  for (const LayerRange& range : ranges) {
    json.BeginObject();
    json.Member("layer", range.layer);
    json.Member("guest-offset", range.guest.offset.value);
    json.Member("guest-length", range.guest.length);
    json.EndObject();
  }
  json.EndArray();
}

void PutPasses(const std::vector<PassRun>& passes, JsonWriter& json) {
  json.Key("passes");
  json.BeginArray();
  for (const PassRun& run : passes) {
    json.BeginObject();
    json.Member("name", run.name);
    json.Member("sentence", run.sentence);
    json.Member("dropped", run.dropped);
    if (run.dropped) json.Member("reason", run.reason);
    json.Member("changes", run.outcome.changes);
    json.Key("notes");
    json.BeginArray();
    for (const std::string& note : run.outcome.notes) json.Value(std::string_view(note));
    json.EndArray();
    json.EndObject();
  }
  json.EndArray();
}

void PutHead(const Plan& plan, const std::string& image_path, RepairMode mode, JsonWriter& json) {
  json.Member("imgfsck-plan", 1u);
  json.Member("program", "imgfsck " IMGFSCK_VERSION);
  json.Key("image");
  json.BeginObject();
  json.Member("name", std::filesystem::path(image_path).filename().string());
  json.Member("format", plan.before.format->name);
  json.Member("size", plan.overlay->base().Size());
  json.EndObject();
  json.Member("new-size", plan.overlay->Size());
  json.Member("mode", ToText(mode));
  PutFindings("findings", plan.before.findings, json);
  PutFindings("left", plan.Final().findings, json);
  PutPasses(plan.passes, json);
  PutRanges("changed", plan.changed, json);
  PutRanges("lost", plan.lost, json);
  json.Key("orphans");
  json.BeginObject();
  json.Member("kept", plan.orphans.kept);
  json.Member("relinked", plan.orphans.relinked);
  json.Member("freed", plan.orphans.freed);
  json.Member("where", plan.orphans.where);
  json.EndObject();
}

Status PutPatches(const Overlay& overlay, JsonWriter& json) {
  json.Key("patches");
  json.BeginArray();
  IMG_RETURN_IF_ERROR(overlay.ForEachPatch([&](uint64_t offset, Bytes old_bytes, Bytes new_bytes) {
    json.BeginObject();
    json.Member("offset", offset);
    json.Member("old-length", old_bytes.size());
    json.Member("old-sha256", HexSha256(old_bytes));
    json.Member("new", Base64Encode(new_bytes));
    json.EndObject();
    return Ok();
  }));
  json.EndArray();
  return Ok();
}

Result<std::string> HashOfFile(const std::string& path) {
  IMG_ASSIGN_OR_RETURN(const auto file, FileSource::Open(path));
  Sha256 sum;
  ByteVector buffer(kMiB);
  for (uint64_t at = 0; at < file->Size();) {
    IMG_ASSIGN_OR_RETURN(const size_t count, file->ReadAt(at, buffer));
    if (count == 0) break;
    sum.Add(Bytes(buffer).first(count));
    at += count;
  }
  return sum.HexDigest();
}

Status WriteTo(FileStore& file, const Plan& plan, const std::string& image_path, RepairMode mode) {
  TextWriter out(file.fd());
  JsonWriter json(out);
  json.BeginObject();
  PutHead(plan, image_path, mode, json);
  IMG_RETURN_IF_ERROR(PutPatches(*plan.overlay, json));
  IMG_RETURN_IF_ERROR(out.Finish());
  IMG_ASSIGN_OR_RETURN(const std::string hash, HashOfFile(file.path()));
  json.Member("sha256", hash);
  json.EndObject();
  out.Put('\n');
  IMG_RETURN_IF_ERROR(out.Finish());
  IMG_RETURN_IF_ERROR(file.Sync());
  return SyncDirectoryOf(file.path());
}

}  // namespace

Status WritePlanFile(const Plan& plan, const std::string& path, const std::string& image_path,
                     RepairMode mode) {
  // Base 64 takes four bytes for three; the rest is for everything that is not patches.
  if (plan.bytes > kLargestPlanFile / 2) {
    return Error{ErrorCode::kTooLarge,
                 fmt::format("the plan would write {}, more than a plan file holds ({}); use "
                             "--output instead",
                             HumanSize(plan.bytes), HumanSize(kLargestPlanFile / 2)),
                 {}};
  }
  IMG_ASSIGN_OR_RETURN(const auto file, FileStore::Open(path, FileStore::Mode::kCreateNew));
  auto status = WriteTo(*file, plan, image_path, mode);
  if (!status) unlink(path.c_str());
  return status;
}

}  // namespace imgfsck

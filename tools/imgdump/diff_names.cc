// SPDX-License-Identifier: Apache-2.0
#include "tools/imgdump/diff_names.h"

#include <fmt/format.h>

#include "report/guest_names.h"

namespace imgfsck {
namespace {

constexpr size_t kMostAtRange = 8;   // lines
constexpr size_t kMostFiles = 1000;  // lines

void PutDisk(std::string_view key, const NameFacts& facts, JsonWriter& json) {
  json.Key(key);
  json.BeginObject();
  json.Key("disk");
  NameFacts rest = facts;
  rest.sets.clear();
  WriteNameFactsJson(rest, false, json);
  json.Key("files");
  json.BeginArray();
  for (const RangeSetNames& set : facts.sets) WriteSetJson(set, json);
  json.EndArray();
  json.EndObject();
}

}  // namespace

NamesAlong::NamesAlong(const NameFacts& facts) : facts_(facts) { here_.volumes = facts.volumes; }

const NameFacts& NamesAlong::In(const GuestRange& range) {
  const auto& hits = facts_.hits;
  while (first_ < hits.size() && hits[first_].range.end() <= range.offset.value) ++first_;
  here_.hits.clear();
  for (size_t i = first_; i < hits.size() && hits[i].range.offset.value < range.end(); ++i) {
    if (hits[i].range.end() > range.offset.value) here_.hits.push_back(hits[i]);
  }
  return here_;
}

Result<DiffNames> DiffNames::Start(const ImgdumpOptions& options, SandboxLevel sandbox) {
  IMG_ASSIGN_OR_RETURN(auto server, NameServer::Start(sandbox));
  return DiffNames(options, std::move(server));
}

void DiffNames::Look(const std::vector<GuestRange>& ranges) {
  auto ask = [&](const std::string& path, const std::string& format, const std::string& snapshot) {
    NameRequest request;
    request.path = path;
    request.format = format;
    request.snapshot = snapshot;
    request.follow = true;
    request.query.ranges = ranges;
    request.query.sets.push_back({"differences", ranges});
    return server_->Ask(std::move(request));
  };
  before_ = ask(options_->diff, options_->diff_format, options_->diff_snapshot);
  now_ = ask(options_->image, options_->format, options_->snapshot);
  along_before_ = std::make_unique<NamesAlong>(before_);
  along_now_ = std::make_unique<NamesAlong>(now_);
}

void DiffNames::PutText(const GuestRange& range, TextWriter& out) {
  const auto now = NameTexts(along_now_->In(range), range, kMostAtRange);
  const auto before = NameTexts(along_before_->In(range), range, kMostAtRange);
  for (const std::string& text : now) out.Put(fmt::format("  in: {}\n", text));
  if (before == now) return;
  for (const std::string& text : before) out.Put(fmt::format("  was in: {}\n", text));
}

void DiffNames::PutJson(const GuestRange& range, JsonWriter& json) {
  json.Key("names");
  WriteHitsJson(along_now_->In(range), range, json);
  json.Key("names-before");
  WriteHitsJson(along_before_->In(range), range, json);
}

void DiffNames::EndText(TextWriter& out) const {
  WriteNameFactsText(before_, " on the disk before", out);
  WriteNameFactsText(now_, " on the disk now", out);
  for (const RangeSetNames& set : now_.sets) {
    WriteSetText(now_, set, "files of the disk now, in what differs", kMostFiles, out);
  }
  for (const RangeSetNames& set : before_.sets) {
    WriteSetText(before_, set, "files of the disk before, in what differs", kMostFiles, out);
  }
}

void DiffNames::EndJson(JsonWriter& json) const {
  PutDisk("guest", now_, json);
  PutDisk("guest-before", before_, json);
}

}  // namespace imgfsck

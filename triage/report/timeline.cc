// SPDX-License-Identifier: Apache-2.0
#include "triage/report/timeline.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <ctime>
#include <tuple>

#include "base/json_writer.h"
#include "base/text.h"

namespace imgfsck {
namespace {

constexpr int64_t kNanoseconds = 1'000'000'000;

int64_t Seconds(int64_t nanoseconds) {
  return nanoseconds / kNanoseconds - (nanoseconds % kNanoseconds < 0 ? 1 : 0);
}

// Times in images are 32 bits wide, or nonsense.
int64_t FromSeconds(int64_t seconds) {
  return std::clamp<int64_t>(seconds, INT64_MIN / kNanoseconds + 1, INT64_MAX / kNanoseconds - 1) *
         kNanoseconds;
}

void AddImage(const TriagedFile& file, std::vector<TimelineEvent>* events) {
  const IdentityFacts& id = file.facts.identity;
  const std::string& path = file.file.path;
  if (id.created) {
    events->push_back({FromSeconds(*id.created), TimeKind::kCreated, "image created", path, ""});
  }
  if (id.parent_mtime) {
    events->push_back({FromSeconds(*id.parent_mtime), TimeKind::kRecorded,
                       "last change of what it builds on, as recorded", path,
                       id.links.empty() ? "" : id.links.front().name});
  }
  for (const SnapshotRow& snapshot : id.snapshots) {
    events->push_back({FromSeconds(snapshot.date_seconds) +
                           static_cast<int64_t>(snapshot.date_nanoseconds % kNanoseconds),
                       TimeKind::kCreated, "snapshot made", path, snapshot.name});
  }
}

std::string_view Description(TimeKind kind) {
  switch (kind) {
    case TimeKind::kModified:
      return "Content Modification Time";
    case TimeKind::kChanged:
      return "Metadata Modification Time";
    case TimeKind::kCreated:
      return "Creation Time";
    case TimeKind::kRecorded:
      return "Recorded Time";
  }
  return "";
}

// A field of a body file: no separator, no line break.
std::string Field(std::string_view text) {
  std::string field;
  for (char c : Printable(text)) {
    if (c == '|') {
      field += "\\x7c";
    } else {
      field += c;
    }
  }
  return field;
}

// As fls writes it: the type as the name has it, the type as the inode has it, the permissions.
std::string ModeText(const FoundFile& file) {
  const char type = file.block_device ? 'b' : 'r';
  std::string text = {type, '/', type};
  for (uint32_t bit = 0400; bit != 0; bit >>= 1) {
    constexpr std::string_view kLetters = "xwr";  // by the bit's place in its group of three
    text += (file.mode & bit) != 0 ? kLetters[static_cast<size_t>(std::countr_zero(bit)) % 3] : '-';
  }
  const std::pair<uint32_t, size_t> special[] = {{S_ISUID, 5}, {S_ISGID, 8}, {S_ISVTX, 11}};
  for (auto [bit, at] : special) {
    if ((file.mode & bit) == 0) continue;
    const char letter = bit == S_ISVTX ? 't' : 's';
    text[at] = text[at] == 'x' ? letter : static_cast<char>(std::toupper(letter));
  }
  return text;
}

}  // namespace

std::string TimeText(int64_t nanoseconds) {
  const std::time_t seconds = Seconds(nanoseconds);
  const int64_t fraction = nanoseconds - seconds * kNanoseconds;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::string text = fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", utc.tm_year + 1900,
                                 utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec);
  if (fraction != 0) text += fmt::format(".{:09}", fraction);
  return text + "Z";
}

std::vector<TimelineEvent> TimelineOf(const TriageResult& result) {
  std::vector<TimelineEvent> events;
  for (const TriagedFile& file : result.files) {
    const FileIdentity& id = file.file.identity;
    events.push_back({id.mtime_ns, TimeKind::kModified, "file modified", file.file.path, ""});
    events.push_back({id.ctime_ns, TimeKind::kChanged, "inode changed", file.file.path, ""});
    if (file.is_image()) AddImage(file, &events);
  }
  auto key = [](const TimelineEvent& e) {
    return std::tie(e.time_ns, e.path, e.kind, e.what, e.subject);
  };
  std::stable_sort(events.begin(), events.end(),
                   [&](const auto& a, const auto& b) { return key(a) < key(b); });
  return events;
}

void WriteTimesketch(const TriageResult& result, TextWriter& out) {
  for (const TimelineEvent& event : TimelineOf(result)) {
    std::string message = fmt::format("{}: {}", Printable(event.path), event.what);
    if (!event.subject.empty()) message += fmt::format(" ({})", Printable(event.subject));
    JsonWriter json(out);
    json.BeginObject();
    json.Member("message", message);
    json.Member("datetime", TimeText(event.time_ns));
    json.Member("timestamp_desc", Description(event.kind));
    json.Member("timestamp", event.time_ns / 1000);
    json.Member("data_type", "imgfsck:triage");
    json.Member("event", event.what);
    json.Member("image_path", event.path);
    if (!event.subject.empty()) json.Member("subject", event.subject);
    json.EndObject();
    out.Put('\n');
  }
}

void WriteBodyfile(const TriageResult& result, TextWriter& out) {
  // MD5|name|inode|mode|UID|GID|size|atime|mtime|ctime|crtime. The time of the last access is that
  // of somebody's reading, perhaps ours: left out.
  auto line = [&](std::string_view md5, const std::string& name, uint64_t inode,
                  const std::string& rights, uint64_t size, int64_t mtime, int64_t ctime,
                  int64_t crtime) {
    out.Put(fmt::format("{}|{}|{}|{}|{}|0|{}|{}|{}\n", md5, name, inode, rights, size, mtime, ctime,
                        crtime));
  };
  for (const TriagedFile& file : result.files) {
    const FileIdentity& id = file.file.identity;
    const IdentityFacts& facts = file.facts.identity;
    const auto md5 = file.facts.container.digests.find("md5");
    const std::string name = Field(file.file.path);
    line(md5 == file.facts.container.digests.end() ? "0" : md5->second, name, id.inode,
         fmt::format("{}|{}|{}", ModeText(file.file), file.file.uid, file.file.gid), id.size,
         Seconds(id.mtime_ns), Seconds(id.ctime_ns), facts.created.value_or(0));
    for (const SnapshotRow& snapshot : facts.snapshots) {
      line("0", fmt::format("{} (snapshot {})", name, Field(snapshot.name)), 0, "-/----------|0|0",
           snapshot.virtual_size, 0, 0, snapshot.date_seconds);
    }
  }
}

}  // namespace imgfsck

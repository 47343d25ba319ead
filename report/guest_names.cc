// SPDX-License-Identifier: Apache-2.0
#include "report/guest_names.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/text.h"
#include "model/rows.h"
#include "report/words.h"

namespace imgfsck {
namespace {

constexpr size_t kMostInJson = 1000;  // names of one finding

std::string_view Nobodys(NameKind kind) {
  return kind == NameKind::kUnallocated ? "free in the guest's file system"
                                        : "the guest's file system itself";
}

void PutRange(uint64_t begin, uint64_t end, JsonWriter& json) {
  json.Member("guest-offset", begin);
  json.Member("guest-length", end - begin);
}

void PutPath(const std::string& path, JsonWriter& json) {
  if (!path.empty()) json.Member("path", path);
  if (ValidUtf8(path) != path) json.Member("path-hex", HexEncode(AsBytes(path)));
}

void PutHit(const NameHit& hit, uint64_t begin, uint64_t end, JsonWriter& json) {
  json.BeginObject();
  PutRange(begin, end, json);
  json.Member("volume", uint64_t{hit.volume});
  json.Member("kind", ToText(hit.kind));
  PutPath(hit.path, json);
  if (hit.file_offset) {
    json.Member("file-offset", *hit.file_offset + (begin - hit.range.offset.value));
  }
  json.EndObject();
}

void PutHits(const NameFacts* facts, const std::optional<GuestRange>& range, JsonWriter& json) {
  json.BeginArray();
  size_t room = kMostInJson;
  if (facts != nullptr && range) {
    HitsIn(*facts, *range, [&](const NameHit& hit, uint64_t begin, uint64_t end) {
      if (room == 0) return;
      --room;
      PutHit(hit, begin, end, json);
    });
  }
  json.EndArray();
}

}  // namespace

const NameFacts* GuestNames::Of(const std::string& layer) const {
  const auto found = layers.find(layer.empty() ? std::string(kActiveLayer) : layer);
  return found == layers.end() ? nullptr : &found->second;
}

std::string PathText(const NameFacts& facts, uint32_t volume, std::string_view path) {
  const std::string text = Printable(path);
  return facts.volumes.size() > 1 ? fmt::format("partition {} {}", volume + 1, text) : text;
}

std::vector<std::string> NameTexts(const NameFacts& facts, const GuestRange& range, size_t most) {
  std::vector<std::string> texts;
  size_t more = 0;
  HitsIn(facts, range, [&](const NameHit& hit, uint64_t begin, uint64_t end) {
    if (texts.size() >= most) {
      ++more;
      return;
    }
    const std::string size = HumanSize(end - begin);
    if (hit.path.empty()) {
      texts.push_back(fmt::format("{} ({})", Nobodys(hit.kind), size));
    } else if (hit.file_offset) {
      texts.push_back(fmt::format("{}, from its byte {:#x} on ({})",
                                  PathText(facts, hit.volume, hit.path),
                                  *hit.file_offset + (begin - hit.range.offset.value), size));
    } else {
      texts.push_back(fmt::format("{} ({}, {})", PathText(facts, hit.volume, hit.path),
                                  ToText(hit.kind), size));
    }
  });
  if (more > 0) texts.push_back(Plural(more, "more place", "more places"));
  return texts;
}

std::vector<NameLine> LinesFor(const GuestNames& names, const Finding& finding, size_t most) {
  std::vector<NameLine> lines;
  auto add = [&](std::string_view label, const NameFacts* facts, const GuestRange& range,
                 size_t limit) {
    if (facts == nullptr) return;
    for (std::string& text : NameTexts(*facts, range, limit)) {
      lines.push_back({label, std::move(text)});
    }
  };
  if (finding.guest) add("  in: ", names.Of(finding.layer), *finding.guest, most);
  for (const Claimant& other : finding.also) {
    if (other.guest) add("  other claimant in: ", names.Of(other.layer), *other.guest, most);
  }
  const auto beside =
      finding.host ? names.neighbours.find(finding.host->offset.value) : names.neighbours.end();
  if (beside == names.neighbours.end()) return lines;
  const NameFacts* active = names.Of("");
  if (beside->second.before) add("  lies behind: ", active, *beside->second.before, 1);
  if (beside->second.after) add("  lies before: ", active, *beside->second.after, 1);
  return lines;
}

void WriteSetText(const NameFacts& facts, const RangeSetNames& set, std::string_view heading,
                  size_t most, TextWriter& out) {
  out.Put(fmt::format("{}{}\n", heading,
                      set.trouble.empty() ? fmt::format(" ({}):", HumanSize(set.bytes))
                                          : ": not known: " + Printable(set.trouble)));
  size_t left = most;
  for (const NamedShare& share : set.shares) {
    if (left-- == 0) break;
    out.Put(fmt::format("  {:>10}  {}\n", HumanSize(share.bytes),
                        share.path.empty() ? std::string(Nobodys(share.kind))
                                           : PathText(facts, share.volume, share.path)));
  }
  if (set.shares.size() > most) {
    out.Put(fmt::format("  … and {}\n", Plural(set.shares.size() - most, "more", "more")));
  } else if (set.more) {
    out.Put("  … and more\n");
  }
}

void WriteNameFactsText(const NameFacts& facts, std::string_view of, TextWriter& out) {
  if (!facts.trouble.empty()) {
    out.Put(fmt::format("no names of guest files{}: {}\n", of, Printable(facts.trouble)));
  }
  size_t number = 0;
  for (const GuestVolume& volume : facts.volumes) {
    ++number;
    const bool whole = facts.volumes.size() == 1 && volume.offset == 0;
    if (whole && volume.trouble.empty()) continue;
    out.Put(fmt::format("{}{}: {}, {}{}{}\n", whole ? "disk" : fmt::format("partition {}", number),
                        of, volume.type.empty() ? "nothing known" : Printable(volume.type),
                        RangeText(volume.offset, volume.length), volume.trouble.empty() ? "" : ": ",
                        Printable(volume.trouble)));
  }
  if (facts.more) out.Put("more places have names than are listed\n");
  for (const GuestRange& range : facts.faulted) {
    out.Put(fmt::format("looked for names{} as if it were zeros: guest {}\n", of,
                        RangeText(range.offset.value, range.length)));
  }
}

void WriteNamesText(const GuestNames& names, size_t most, TextWriter& out) {
  for (const auto& [layer, facts] : names.layers) {
    WriteNameFactsText(
        facts, layer == kActiveLayer ? "" : fmt::format(" of snapshot {}", Printable(layer)), out);
    for (const RangeSetNames& set : facts.sets) {
      WriteSetText(facts, set,
                   fmt::format("changed since bitmap \"{}\" began", Printable(set.what)), most,
                   out);
    }
  }
}

void WriteNamesJson(const GuestNames& names, const Finding& finding, JsonWriter& json) {
  json.Key("names");
  PutHits(names.Of(finding.layer), finding.guest, json);
  const auto beside =
      finding.host ? names.neighbours.find(finding.host->offset.value) : names.neighbours.end();
  if (beside == names.neighbours.end()) return;
  const NameFacts* active = names.Of("");
  json.Key("neighbours");
  json.BeginObject();
  json.Key("before");
  PutHits(active, beside->second.before, json);
  json.Key("after");
  PutHits(active, beside->second.after, json);
  json.EndObject();
}

void WriteRangeNamesJson(const GuestNames& names, const std::string& layer, const GuestRange& range,
                         JsonWriter& json) {
  json.Key("names");
  PutHits(names.Of(layer), range, json);
}

void WriteSetJson(const RangeSetNames& set, JsonWriter& json) {
  json.BeginObject();
  json.Member("name", set.what);
  if (!set.trouble.empty()) json.Member("trouble", set.trouble);
  json.Member("ranges", set.ranges);
  json.Member("bytes", set.bytes);
  json.Key("files");
  json.BeginArray();
  for (const NamedShare& share : set.shares) {
    json.BeginObject();
    json.Member("volume", uint64_t{share.volume});
    json.Member("kind", ToText(share.kind));
    PutPath(share.path, json);
    json.Member("bytes", share.bytes);
    json.EndObject();
  }
  json.EndArray();
  if (set.more) json.Member("more", true);
  json.EndObject();
}

void WriteHitsJson(const NameFacts& facts, const GuestRange& range, JsonWriter& json) {
  PutHits(&facts, range, json);
}

void WriteNameFactsJson(const NameFacts& facts, bool list, JsonWriter& json) {
  json.BeginObject();
  if (!facts.trouble.empty()) json.Member("trouble", facts.trouble);
  json.Key("volumes");
  json.BeginArray();
  for (const GuestVolume& volume : facts.volumes) {
    json.BeginObject();
    PutRange(volume.offset, volume.offset + volume.length, json);
    json.Member("type", volume.type);
    json.Member("mapped", volume.mapped);
    if (!volume.trouble.empty()) json.Member("trouble", volume.trouble);
    json.EndObject();
  }
  json.EndArray();
  if (list) {
    json.Key("list");
    json.BeginArray();
    for (const NameHit& hit : facts.hits)
      PutHit(hit, hit.range.offset.value, hit.range.end(), json);
    json.EndArray();
  }
  if (facts.more) json.Member("more", true);
  json.Key("faulted");
  json.BeginArray();
  for (const GuestRange& range : facts.faulted) {
    json.BeginObject();
    PutRange(range.offset.value, range.end(), json);
    json.EndObject();
  }
  json.EndArray();
  json.Key("bitmaps");
  json.BeginArray();
  for (const RangeSetNames& set : facts.sets) WriteSetJson(set, json);
  json.EndArray();
  json.EndObject();
}

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
// imgio info and map. What an image is comes from the lenient walk, so that no key, no backing file
// and no soundness are needed to see it.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "tools/common/chain_map.h"
#include "tools/imgio/commands.h"

namespace imgfsck {
namespace {

using Json = nlohmann::ordered_json;

const Format* FormatFor(const ImgioOptions& options, const ByteSource& source) {
  return options.format.empty() ? ProbeFormat(source) : FindFormat(options.format);
}

std::string DateText(int64_t seconds) {
  std::time_t time = seconds;
  std::tm parts{};
  gmtime_r(&time, &parts);
  char text[32];
  return std::string(text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts));
}

Json InfoJson(const std::string& path, const ImageRows& rows) {
  ImageRow image = rows.Image();
  Json json{{"filename", ValidUtf8(path)},       {"format", image.format},
            {"format-version", image.version},   {"virtual-size", image.virtual_size},
            {"actual-size", image.allocated},    {"file-size", image.file_size},
            {"cluster-size", image.cluster_size}};
  for (const LinkRow& link : rows.Links()) {
    if (link.kind == "data-file") {
      json["data-file"] = ValidUtf8(link.name);
      continue;
    }
    if (json.contains("backing-filename")) continue;
    json["backing-filename"] = ValidUtf8(link.name);
    if (auto full = ResolveBackingName(path, link.name)) {
      json["full-backing-filename"] = ValidUtf8(*full);
    }
    if (!link.format.empty()) json["backing-filename-format"] = ValidUtf8(link.format);
  }
  for (const SnapshotRow& s : rows.Snapshots()) {
    json["snapshots"].push_back({{"id", ValidUtf8(s.id)},
                                 {"name", ValidUtf8(s.name)},
                                 {"vm-state-size", s.vm_state_size},
                                 {"virtual-size", s.virtual_size},
                                 {"date-sec", s.date_seconds},
                                 {"date-nsec", s.date_nanoseconds}});
  }
  for (const BitmapRow& b : rows.Bitmaps()) {
    Json flags = Json::array();
    if (b.in_use) flags.push_back("in-use");
    if (b.enabled) flags.push_back("auto");
    json["bitmaps"].push_back(
        {{"name", ValidUtf8(b.name)}, {"granularity", b.granularity}, {"flags", flags}});
  }
  Json fields;
  for (const FieldRow& field : rows.Fields()) {
    if (field.structure != "header" && field.structure != "footer") continue;
    if (field.value)
      fields[field.name] = *field.value;
    else if (!field.meaning.empty())
      fields[field.name] = ValidUtf8(field.meaning);
  }
  if (!fields.is_null()) json["header"] = fields;
  return json;
}

void InfoText(const Json& json) {
  auto line = [](std::string_view name, const std::string& value) {
    fmt::print("{}: {}\n", name, Printable(value));
  };
  line("image", json["filename"]);
  std::string version = json["format-version"];
  line("file format", fmt::format("{}{}{}", json["format"].get<std::string>(),
                                  version.empty() ? "" : " ", version));
  uint64_t size = json["virtual-size"];
  line("virtual size", fmt::format("{} ({} bytes)", HumanSize(size), size));
  line("disk size", HumanSize(json["actual-size"].get<uint64_t>()));
  line("cluster_size", fmt::format("{}", json["cluster-size"].get<uint64_t>()));
  for (const char* name : {"backing-filename", "backing-filename-format", "data-file"}) {
    if (json.contains(name)) line(name, json[name]);
  }
  if (json.contains("snapshots")) fmt::print("snapshots:\n");
  for (const Json& s : json.value("snapshots", Json::array())) {
    fmt::print("  {:<4} {:<24} {}  disk {}  VM state {}\n", Printable(s["id"].get<std::string>()),
               Printable(s["name"].get<std::string>()), DateText(s["date-sec"]),
               HumanSize(s["virtual-size"]), HumanSize(s["vm-state-size"]));
  }
  if (json.contains("bitmaps")) fmt::print("bitmaps:\n");
  for (const Json& b : json.value("bitmaps", Json::array())) {
    fmt::print("  {:<24} granularity {}  {}\n", Printable(b["name"].get<std::string>()),
               b["granularity"].get<uint64_t>(), b["flags"].dump());
  }
}

}  // namespace

Result<int> InfoCommand(const ImgioOptions& options) {
  const std::string& path = options.words[0];
  IMG_ASSIGN_OR_RETURN(auto file, FileSource::Open(path));
  const Format* format = FormatFor(options, *file);
  if (format == nullptr) {
    return Error{
        ErrorCode::kInvalid,
        fmt::format("{}: the format is not recognised; -f raw says it is raw", Printable(path)),
        {}};
  }
  IMG_ASSIGN_OR_RETURN(auto rows, format->inspect(*file, path));
  Json json = InfoJson(path, *rows);
  if (options.output == "json") {
    fmt::print("{}\n", json.dump(4, ' ', true));
  } else {
    InfoText(json);
  }
  return 0;
}

Result<int> MapCommand(const ImgioOptions& options) {
  IMG_ASSIGN_OR_RETURN(auto chain, OpenChain(options, options.words[0], {}));
  const uint64_t size = chain->driver().VirtualSize();
  const uint64_t at = std::min(options.offset.value_or(0), size);
  const uint64_t end = at + std::min(options.length.value_or(size - at), size - at);
  TextWriter out(STDOUT_FILENO);
  IMG_RETURN_IF_ERROR(WriteChainMap(
      *chain, at, end, options.output == "json" ? MapStyle::kJson : MapStyle::kText, out));
  IMG_RETURN_IF_ERROR(out.Finish());
  return 0;
}

}  // namespace imgfsck

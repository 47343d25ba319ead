// SPDX-License-Identifier: Apache-2.0
// imgio snapshot and bitmap: internal snapshots and persistent bitmaps of one image.
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "tools/imgio/commands.h"

namespace imgfsck {
namespace {

using Json = nlohmann::ordered_json;

// qemu's choice: a cluster, but 4 KiB to 64 KiB.
uint64_t UsualGranularity(const Driver& driver) {
  return std::clamp<uint64_t>(driver.ClusterSize(), 4 * kKiB, 64 * kKiB);
}

void ListSnapshots(const Driver& driver, bool as_json) {
  Json list = Json::array();
  for (const SnapshotInfo& s : driver.Snapshots()) {
    if (as_json) {
      list.push_back({{"id", ValidUtf8(s.id)},
                      {"name", ValidUtf8(s.name)},
                      {"vm-state-size", s.vm_state_size},
                      {"virtual-size", s.virtual_size},
                      {"date-sec", s.date_seconds}});
    } else {
      std::time_t time = s.date_seconds;
      std::tm parts{};
      gmtime_r(&time, &parts);
      char date[32];
      std::strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &parts);
      fmt::print("{:<8} {:<24} {} UTC  disk {}  VM state {}\n", Printable(s.id), Printable(s.name),
                 date, s.virtual_size, s.vm_state_size);
    }
  }
  if (as_json) fmt::print("{}\n", list.dump(-1, ' ', true));
}

void ListBitmaps(const Driver& driver, bool as_json) {
  Json list = Json::array();
  for (const BitmapInfo& b : driver.Bitmaps()) {
    if (as_json) {
      list.push_back({{"name", ValidUtf8(b.name)},
                      {"granularity", b.granularity},
                      {"enabled", b.enabled},
                      {"in-use", b.in_use}});
    } else {
      fmt::print("{:<24} granularity {}  {}{}\n", Printable(b.name), b.granularity,
                 b.enabled ? "enabled" : "disabled", b.in_use ? ", left in use: unusable" : "");
    }
  }
  if (as_json) fmt::print("{}\n", list.dump(-1, ' ', true));
}

Status DumpBitmap(Driver& driver, const std::string& name, bool as_json) {
  IMG_ASSIGN_OR_RETURN(auto ranges, driver.BitmapDirty(name));
  Json list = Json::array();
  for (const GuestRange& range : ranges) {
    if (as_json) {
      list.push_back({{"start", range.offset.value}, {"length", range.length}});
    } else {
      fmt::print("{} {}\n", range.offset.value, range.length);
    }
  }
  if (as_json) fmt::print("{}\n", list.dump(-1, ' ', true));
  return Ok();
}

Status ChangeBitmap(Driver& driver, const ImgioOptions& o) {
  const std::string& name = o.words[1];
  if (o.action == "add") {
    return driver.BitmapAdd(name, o.granularity.value_or(UsualGranularity(driver)), !o.disabled);
  }
  if (o.action == "remove") return driver.BitmapRemove(name);
  if (o.action == "clear") return driver.BitmapClear(name);
  if (o.action == "enable") return driver.BitmapSetEnabled(name, true);
  if (o.action == "disable") return driver.BitmapSetEnabled(name, false);
  return driver.BitmapMerge(name, o.words[2]);
}

Status ChangeSnapshot(Driver& driver, const ImgioOptions& o) {
  if (o.action == "create") return driver.SnapshotCreate(o.words[1]);
  if (o.action == "apply") return driver.SnapshotApply(o.words[1]);
  return driver.SnapshotDelete(o.words[1]);
}

template <class Change>
Result<int> OnImage(const ImgioOptions& o, const Change& change) {
  IMG_ASSIGN_OR_RETURN(auto chain,
                       OpenChain(o, o.words[0], {.writable = true, .ignore_backing = true}));
  Status done = change(chain->driver(), o);
  Status closed = chain->driver().Close();
  IMG_RETURN_IF_ERROR(done);
  IMG_RETURN_IF_ERROR(closed);
  return 0;
}

}  // namespace

Result<int> SnapshotCommand(const ImgioOptions& o) {
  if (o.action != "list") return OnImage(o, ChangeSnapshot);
  IMG_ASSIGN_OR_RETURN(auto chain, OpenChain(o, o.words[0], {.ignore_backing = true}));
  ListSnapshots(chain->driver(), o.output == "json");
  return 0;
}

Result<int> BitmapCommand(const ImgioOptions& o) {
  if (o.action != "list" && o.action != "dump") return OnImage(o, ChangeBitmap);
  IMG_ASSIGN_OR_RETURN(auto chain, OpenChain(o, o.words[0], {.ignore_backing = true}));
  if (o.action == "list") {
    ListBitmaps(chain->driver(), o.output == "json");
  } else {
    IMG_RETURN_IF_ERROR(DumpBitmap(chain->driver(), o.words[1], o.output == "json"));
  }
  return 0;
}

}  // namespace imgfsck

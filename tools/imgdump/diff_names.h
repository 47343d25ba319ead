// SPDX-License-Identifier: Apache-2.0
// imgdump --diff --names: the guest's files in the ranges in which two disks differ, by each disk's
// own file systems. They are read by a process of its own (triage/names).
#pragma once

#include <memory>
#include <vector>

#include "base/json_writer.h"
#include "base/text_writer.h"
#include "model/name_facts.h"
#include "tools/imgdump/options.h"
#include "triage/names/name_server.h"

namespace imgfsck {

// The names in ranges that come in ascending order and do not overlap.
class NamesAlong {
 public:
  explicit NamesAlong(const NameFacts& facts);
  // The names that have a part in the range; valid until the next call.
  const NameFacts& In(const GuestRange& range);

 private:
  const NameFacts& facts_;
  NameFacts here_;
  size_t first_ = 0;  // of the hits, that a later range can meet
};

class DiffNames {
 public:
  // Before a filter of system calls is put on, which then has to leave fd() open for writing.
  static Result<DiffNames> Start(const ImgdumpOptions& options, SandboxLevel sandbox);
  int fd() const { return server_->fd(); }

  void Look(const std::vector<GuestRange>& ranges);

  void PutText(const GuestRange& range, TextWriter& out);
  void PutJson(const GuestRange& range, JsonWriter& json);  // members of an object
  // What concerns all ranges.
  void EndText(TextWriter& out) const;
  void EndJson(JsonWriter& json) const;

 private:
  DiffNames(const ImgdumpOptions& options, std::unique_ptr<NameServer> server)
      : options_(&options), server_(std::move(server)) {}

  const ImgdumpOptions* options_;
  std::unique_ptr<NameServer> server_;
  NameFacts before_, now_;
  std::unique_ptr<NamesAlong> along_before_, along_now_;
};

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
// What happened when, as far as files and images record it: for mactime (a body file) and for
// Timesketch (JSON Lines).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/text_writer.h"
#include "triage/result.h"

namespace imgfsck {

// "2016-02-17T09:36:27.000000001Z"; without a fraction when there is none.
std::string TimeText(int64_t nanoseconds);

enum class TimeKind : uint8_t { kModified, kChanged, kCreated, kRecorded };

struct TimelineEvent {
  int64_t time_ns = 0;  // Unix time
  TimeKind kind{};
  std::string_view what;  // "file modified", "snapshot made" …
  std::string path;       // of the image or file
  std::string subject;    // of it: a snapshot's name …; may be empty; untrusted
};

// By time, then by path.
std::vector<TimelineEvent> TimelineOf(const TriageResult& result);

void WriteTimesketch(const TriageResult& result, TextWriter& out);
// Eleven fields a line, as The Sleuth Kit's mactime reads them.
void WriteBodyfile(const TriageResult& result, TextWriter& out);

}  // namespace imgfsck

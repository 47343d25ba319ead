// SPDX-License-Identifier: Apache-2.0
#include "report/finding_json.h"

namespace imgfsck {

void WriteGuestRangeJson(const std::optional<GuestRange>& guest, JsonWriter& json) {
  if (!guest) return;
  json.Member("guest-offset", guest->offset.value);
  json.Member("guest-length", guest->length);
}

void WriteFindingJson(const Finding& finding, JsonWriter& json, const GuestNames* names) {
  json.BeginObject();
  json.Member("code", finding.info().code);
  json.Member("severity", ToText(finding.severity_or_default()));
  json.Member("structure", finding.structure);
  if (finding.host) {
    json.Member("host-offset", finding.host->offset.value);
    json.Member("length", finding.host->length);
  }
  WriteGuestRangeJson(finding.guest, json);
  json.Member("count", finding.count);
  json.Member("message", finding.Message());
  json.Member("repair", ToText(finding.repair_or_default()));
  json.Member("fixed", finding.fixed);
  if (!finding.layer.empty()) json.Member("layer", finding.layer);
  json.Key("also");
  json.BeginArray();
  for (const Claimant& other : finding.also) {
    json.BeginObject();
    json.Member("layer", other.layer);
    WriteGuestRangeJson(other.guest, json);
    json.Member("structure", other.structure);
    json.EndObject();
  }
  json.EndArray();
  json.Member("effect", ToText(finding.effect_or_default()));
  json.Member("confidence", finding.confidence);
  if (!finding.evidence.empty()) json.Member("evidence", finding.evidence);
  if (names != nullptr) WriteNamesJson(*names, finding, json);
  json.EndObject();
}

}  // namespace imgfsck

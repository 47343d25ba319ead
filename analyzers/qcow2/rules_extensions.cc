// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "analyzers/qcow2/rules.h"
#include "base/text.h"

namespace imgfsck::qcow2 {
namespace {

Finding ExtensionFinding(Problem problem, const Extension& record, std::string detail = {}) {
  Finding f;
  f.problem = problem;
  f.structure = "header-extension";
  f.host = MakeHostRange(record.offset, 8 + record.data.size());
  f.detail = std::move(detail);
  return f;
}

void JudgeRecords(const Image& image, Findings* out) {
  std::set<uint32_t> seen;
  for (const Extension& record : image.extensions.records) {
    std::string type = fmt::format("{} ({})", Hex(record.type), ExtensionName(record.type));
    if (image.extensions.overrun == record.offset) {
      out->Add(ExtensionFinding(Problem::kQcow2ExtOverrun, record,
                                fmt::format("type {}, {} bytes", type, record.length)));
    }
    if (!seen.insert(record.type).second) {
      out->Add(ExtensionFinding(Problem::kQcow2ExtDuplicate, record, "type " + type));
    }
  }
  if (!image.extensions.end_marker && !image.extensions.overrun) {
    Finding f;
    f.problem = Problem::kQcow2ExtNoEnd;
    f.structure = "header-extension";
    f.host = MakeHostRange(image.extensions.end, 0);
    out->Add(std::move(f));
  }
}

bool FeatureNamesValid(const Extension& record) {
  if (record.length % kFeatureNameSize != 0) return false;
  for (size_t at = 0; at + kFeatureNameSize <= record.data.size(); at += kFeatureNameSize) {
    if (record.data[at] > 2 || record.data[at + 1] > 63) return false;
  }
  return true;
}

void JudgeKnown(const Image& image, Findings* out) {
  const Header& h = image.header;
  if (const Extension* e = image.extensions.Find(kExtFeatureNames); e && !FeatureNamesValid(*e)) {
    out->Add(ExtensionFinding(Problem::kQcow2ExtFeatureTable, *e));
  }
  if (const Extension* e = image.extensions.Find(kExtBackingFormat)) {
    if (e->length > kMaxBackingFormatLength) {
      out->Add(ExtensionFinding(Problem::kQcow2ExtBackingFormatLong, *e,
                                fmt::format("{} bytes", e->length)));
    } else if (!IsBackingFormat(*e)) {
      out->Add(
          ExtensionFinding(Problem::kQcow2ExtBackingFormatLong, *e, "no format that QEMU knows"));
    }
    if (h.backing_file_offset == 0) {
      out->Add(ExtensionFinding(Problem::kQcow2ExtBackingFormatOrphan, *e));
    }
  }
  if (const Extension* e = image.extensions.Find(kExtDataFile); e && !image.has_data_file()) {
    out->Add(ExtensionFinding(Problem::kQcow2ExtDatafileOrphan, *e));
  }
  const Extension* crypto = image.extensions.Find(kExtEncryption);
  if (h.crypt_method == kCryptLuks && crypto == nullptr) {
    out->Add(HeaderFinding(Problem::kQcow2ExtCryptoMissing, "crypt_method"));
  }
  if (crypto != nullptr) {
    if (h.crypt_method != kCryptLuks) {
      out->Add(ExtensionFinding(Problem::kQcow2ExtCryptoOrphan, *crypto));
    }
    if (!image.encryption) {
      out->Add(ExtensionFinding(Problem::kQcow2ExtCryptoShape, *crypto,
                                fmt::format("{} bytes", crypto->length)));
    } else if (!IsAligned(image.encryption->offset, image.geometry.cluster_size)) {
      out->Add(ExtensionFinding(Problem::kQcow2ExtCryptoShape, *crypto,
                                fmt::format("offset {}", Hex(image.encryption->offset))));
    }
  }
}

// The end of the extensions as they stand, whatever the name's place says; 0: they do not end.
uint64_t ExtensionsEnd(const Image& image) {
  Header header = image.header;
  header.backing_file_offset = 0;
  const ExtensionArea area = ParseExtensions(header, image.first_cluster);
  return area.end_marker && !area.overrun ? area.end : 0;
}

// Where an empty name is left, QEMU opens the image without its backing file.
void AddNameFinding(const Image& image, Problem problem, std::string_view field, std::string detail,
                    Findings* out) {
  const Header& h = image.header;
  Finding f = HeaderFinding(problem, field, std::move(detail));
  const bool inside = RangeFits(h.backing_file_offset, 1, image.first_cluster.size());
  if (inside && h.backing_file_size <= kMaxBackingNameLength &&
      (h.backing_file_size == 0 || image.first_cluster[h.backing_file_offset] == 0)) {
    f.effect = Effect::kZero;
    f.layer = kActiveLayer;
  }
  out->Add(std::move(f));
}

void JudgeBackingName(const Image& image, Findings* out) {
  const Header& h = image.header;
  if (h.backing_file_offset == 0) return;
  const uint64_t cluster = image.geometry.cluster_size;
  const uint64_t begin = std::max(h.ExtensionsBegin(), ExtensionsEnd(image));
  if (h.backing_file_offset < begin || h.backing_file_offset >= cluster) {
    AddNameFinding(image, Problem::kQcow2BackingOffset, "backing_file_offset",
                   Hex(h.backing_file_offset), out);
  } else if (h.backing_file_size == 0 || h.backing_file_size > kMaxBackingNameLength ||
             !RangeFits(h.backing_file_offset, h.backing_file_size, cluster)) {
    AddNameFinding(image, Problem::kQcow2BackingSize, "backing_file_size",
                   fmt::format("{} bytes", h.backing_file_size), out);
  } else if (image.backing_name && image.backing_name->find('\0') != std::string::npos) {
    // Readers stop at the zero.
    Finding f = HeaderFinding(Problem::kQcow2BackingSize, "backing_file_size",
                              fmt::format("{} bytes, the name ends before", h.backing_file_size));
    f.severity = Severity::kWarning;
    f.repair = RepairClass::kNone;
    f.effect = Effect::kNone;
    out->Add(std::move(f));
  }
}

// Nothing may lie behind the extensions but the backing file's name.
void JudgeSlack(const Image& image, Findings* out) {
  const Header& h = image.header;
  Bytes cluster = image.first_cluster;
  uint64_t begin = image.extensions.end, end = cluster.size();
  auto look = [&](uint64_t from, uint64_t to) {
    if (from >= to || AllZero(cluster.subspan(from, to - from))) return;
    Finding f;
    f.problem = Problem::kQcow2HdrAreaJunk;
    f.structure = "header";
    f.host = MakeHostRange(from, to - from);
    out->Add(std::move(f));
  };
  if (image.backing_name && h.backing_file_offset >= begin) {
    look(begin, h.backing_file_offset);
    look(h.backing_file_offset + h.backing_file_size, end);
  } else if (h.backing_file_offset == 0) {
    look(begin, end);
  }
}

}  // namespace

void JudgeExtensions(const Image& image, Findings* out) {
  JudgeRecords(image, out);
  JudgeKnown(image, out);
  JudgeBackingName(image, out);
  JudgeSlack(image, out);
}

}  // namespace imgfsck::qcow2

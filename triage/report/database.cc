// SPDX-License-Identifier: Apache-2.0
#include "triage/report/database.h"

#include <unistd.h>

#include <optional>

#include "base/interrupt.h"
#include "base/json_writer.h"
#include "base/text.h"
#include "model/database_file.h"
#include "triage/attention.h"
#include "triage/report/inserter.h"
#include "triage/report/name_tables.h"

namespace imgfsck {
namespace {

template <class List, class ToString>
std::string JsonArray(const List& list, ToString to_string) {
  std::string text;
  TextWriter out(&text);
  JsonWriter json(out);
  json.BeginArray();
  for (const auto& each : list) json.Value(std::string_view(to_string(each)));
  json.EndArray();
  out.Flush();
  return text;
}

std::string_view KindText(FileKind kind) {
  switch (kind) {
    case FileKind::kUnknown:
      return "unknown";
    case FileKind::kUnreadable:
      return "unreadable";
    case FileKind::kOther:
      return "other";
    case FileKind::kImage:
      return "image";
  }
  return "";
}

std::string_view WeightText(Weight weight) {
  return weight == Weight::kUnsafe ? "unsafe" : weight == Weight::kDoubt ? "undecidable" : "note";
}

class TriageTables {
 public:
  TriageTables(const TriageResult& result, sqlite3* db) : result_(result), db_(db) {}

  Status Write() {
    IMG_RETURN_IF_ERROR(Exec(db_, kTriageSchemaSql));
    IMG_RETURN_IF_ERROR(Exec(db_, "BEGIN"));
    IMG_RETURN_IF_ERROR(Files());
    IMG_RETURN_IF_ERROR(Reasons());
    IMG_RETURN_IF_ERROR(Hashes());
    IMG_RETURN_IF_ERROR(Chains());
    IMG_RETURN_IF_ERROR(Unclaimed());
    IMG_RETURN_IF_ERROR(Rules());
    IMG_RETURN_IF_ERROR(Exec(db_, "COMMIT"));
    return Names();
  }

 private:
  static Value Id(size_t file) { return static_cast<int64_t>(file + 1); }

  Status Files() {
    IMG_ASSIGN_OR_RETURN(Inserter rows, Inserter::Into(db_, "file", 17));
    const std::vector<size_t> order = OrderOfAttention(result_);
    std::vector<int64_t> ranks(order.size());
    for (size_t i = 0; i < order.size(); ++i) ranks[order[i]] = static_cast<int64_t>(i) + 1;
    for (size_t i = 0; i < result_.files.size(); ++i) {
      const TriagedFile& file = result_.files[i];
      const IdentityFacts& id = file.facts.identity;
      const bool judged = file.is_image() || !file.facts.reasons.empty();
      IMG_RETURN_IF_ERROR(rows.Row(
          {Id(i), ValidUtf8(file.file.path),
           JsonArray(file.file.also, [](const std::string& name) { return name; }),
           std::string(KindText(id.kind)), TextOrNull(id.format), Number(id.file_size),
           Number(id.stored), file.file.identity.mtime_ns, file.file.identity.ctime_ns,
           std::string(ToText(result_.policy)), TextOrNull(judged ? ToText(file.verdict) : ""),
           static_cast<int64_t>(AttentionFor(result_, i)), ranks[i], WhyLookAt(result_, i),
           int64_t{file.facts.complete}, file.untouched ? Value(int64_t{*file.untouched}) : Value(),
           TextOrNull(id.trouble)}));
    }
    return Ok();
  }

  Status Reasons() {
    IMG_ASSIGN_OR_RETURN(Inserter rows, Inserter::Into(db_, "reason", 7));
    for (size_t i = 0; i < result_.files.size(); ++i) {
      for (const Reason& reason : result_.files[i].facts.reasons) {
        const bool placed = reason.length > 0;
        IMG_RETURN_IF_ERROR(rows.Row(
            {Id(i), std::string(InfoOf(reason.code).name),
             std::string(WeightText(WeightOf(reason.code, result_.policy))),
             placed ? Number(reason.offset) : Value(), placed ? Number(reason.length) : Value(),
             TextOrNull(HexEncode(reason.bytes)), TextOrNull(reason.detail)}));
      }
    }
    return Ok();
  }

  Status Hashes() {
    IMG_ASSIGN_OR_RETURN(Inserter rows, Inserter::Into(db_, "hash", 4));
    IMG_ASSIGN_OR_RETURN(Inserter bad, Inserter::Into(db_, "unreadable", 4));
    for (size_t i = 0; i < result_.files.size(); ++i) {
      for (bool content : {false, true}) {
        const ImageFacts& facts = result_.files[i].facts;
        const HashFacts& hash = content ? facts.content : facts.container;
        const std::string subject = content ? "content" : "container";
        for (const auto& [algorithm, digest] : hash.digests) {
          IMG_RETURN_IF_ERROR(rows.Row({Id(i), subject, ValidUtf8(algorithm), ValidUtf8(digest)}));
        }
        for (const HostRange& range : hash.unreadable) {
          IMG_RETURN_IF_ERROR(
              bad.Row({Id(i), subject, Number(range.offset.value), Number(range.length)}));
        }
      }
    }
    return Ok();
  }

  Status Chains() {
    IMG_ASSIGN_OR_RETURN(Inserter rows, Inserter::Into(db_, "chain", 6));
    for (const ChainEdge& edge : result_.chain.edges) {
      IMG_RETURN_IF_ERROR(rows.Row(
          {Id(edge.child), edge.parent ? Id(*edge.parent) : Value(), ValidUtf8(edge.kind),
           std::string(ToText(edge.state)), TextOrNull(edge.parent ? ToText(edge.by) : ""),
           JsonArray(edge.troubles, [](LinkTrouble trouble) { return ToText(trouble); })}));
    }
    return Ok();
  }

  Status Unclaimed() {
    IMG_ASSIGN_OR_RETURN(Inserter rows, Inserter::Into(db_, "unclaimed", 10));
    for (size_t i = 0; i < result_.files.size(); ++i) {
      for (const Remnant& r : result_.files[i].facts.remnants.remnants) {
        IMG_RETURN_IF_ERROR(
            rows.Row({Id(i), Number(r.host_offset), Number(r.length), std::string(ToText(r.origin)),
                      std::string(ToText(r.kind)), TextOrNull(r.what), r.entropy,
                      r.guest_offset ? Number(*r.guest_offset) : Value(), TextOrNull(r.file),
                      TextOrNull(r.sha256)}));
      }
    }
    return Ok();
  }

  Status Rules() {
    IMG_ASSIGN_OR_RETURN(Inserter rows, Inserter::Into(db_, "rule_hit", 6));
    for (size_t i = 0; i < result_.files.size(); ++i) {
      for (const RuleFacts& rule : result_.files[i].facts.rules) {
        if (!rule.trouble.empty()) {
          IMG_RETURN_IF_ERROR(rows.Row(
              {Id(i), ValidUtf8(rule.rule), Value(), ValidUtf8(rule.trouble), Value(), Value()}));
        }
        for (const RuleHit& hit : rule.hits) {
          IMG_RETURN_IF_ERROR(
              rows.Row({Id(i), ValidUtf8(rule.rule), ValidUtf8(hit.severity),
                        ValidUtf8(hit.message), hit.offset ? Number(*hit.offset) : Value(),
                        hit.length ? Number(*hit.length) : Value()}));
        }
      }
    }
    return Ok();
  }

  Status Names() {
    IMG_ASSIGN_OR_RETURN(NameTables tables, NameTables::Create(db_));
    for (size_t i = 0; i < result_.files.size(); ++i) {
      const NameFacts& names = result_.files[i].facts.names;
      if (!names.done && names.trouble.empty()) continue;
      IMG_RETURN_IF_ERROR(
          tables.Add(static_cast<int64_t>(i + 1), std::string(kActiveLayer), names));
    }
    return Ok();
  }

  const TriageResult& result_;
  sqlite3* db_;
};

}  // namespace

Result<std::vector<ModelTrouble>> WriteTriageDatabase(const TriageResult& result,
                                                      const std::vector<std::string>& models,
                                                      const std::string& path) {
  IMG_ASSIGN_OR_RETURN(const auto database, DatabaseFile::Create(path));
  std::vector<ModelTrouble> troubles;
  for (size_t i = 0; i < models.size(); ++i) {
    IMG_RETURN_IF_ERROR(CheckStop());
    if (models[i].empty() || access(models[i].c_str(), F_OK) != 0) continue;
    if (auto added = database->AddDatabase(models[i]); !added) {
      troubles.push_back({i, added.error().message});
    }
    unlink(models[i].c_str());
  }
  IMG_RETURN_IF_ERROR(TriageTables(result, database->db()).Write());
  IMG_RETURN_IF_ERROR(database->Finish());
  return troubles;
}

}  // namespace imgfsck

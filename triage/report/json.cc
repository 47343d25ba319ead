// SPDX-License-Identifier: Apache-2.0
#include "triage/report/json.h"

#include <algorithm>
#include <cmath>

#include "base/json_writer.h"
#include "base/text.h"
#include "report/finding_json.h"
#include "report/guest_names.h"
#include "triage/attention.h"

namespace imgfsck {
namespace {

class FileJson {
 public:
  FileJson(const TriageResult& result, size_t index, size_t rank, JsonWriter& json)
      : result_(result),
        index_(index),
        rank_(rank),
        file_(result.files[index]),
        id_(file_.facts.identity),
        json_(json) {}

  void Write() {
    json_.BeginObject();
    PutName();
    json_.Key("format");
    id_.format.empty() ? json_.Null() : json_.Value(std::string_view(id_.format));
    PutVerdict();
    PutAttention();
    if (!id_.trouble.empty()) json_.Member("trouble", id_.trouble);
    json_.Member("file-size", id_.file_size);
    PutHashes();
    file_.is_image() ? PutImage() : PutEntropy();
    json_.EndObject();
  }

 private:
  void PutName() {
    const std::string& path = file_.file.path;
    json_.Member("filename", path);
    if (ValidUtf8(path) != path) json_.Member("filename-hex", HexEncode(AsBytes(path)));
    if (file_.file.also.empty()) return;
    json_.Key("also-named");
    json_.BeginArray();
    for (const std::string& name : file_.file.also) json_.Value(std::string_view(name));
    json_.EndArray();
  }

  void PutVerdict() {
    json_.Key("verdict");
    const bool judged = file_.is_image() || !file_.facts.reasons.empty();
    judged ? json_.Value(ToText(file_.verdict)) : json_.Null();
    if (!judged) return;
    json_.Member("policy", ToText(result_.policy));
    json_.Key("reasons");
    json_.BeginArray();
    for (const Reason& reason : file_.facts.reasons) PutReason(reason);
    json_.EndArray();
  }

  void PutAttention() {
    const Attention attention = AttentionFor(result_, index_);
    if (attention == Attention::kNotAnImage) return;
    json_.Member("attention", ToText(attention));
    json_.Member("rank", rank_);
    json_.Member("because", WhyLookAt(result_, index_));
  }

  void PutReason(const Reason& reason) {
    const Weight weight = WeightOf(reason.code, result_.policy);
    json_.BeginObject();
    json_.Member("code", InfoOf(reason.code).name);
    json_.Member("weight", weight == Weight::kUnsafe  ? "unsafe"
                           : weight == Weight::kDoubt ? "undecidable"
                                                      : "note");
    if (reason.length > 0) {
      json_.Member("offset", reason.offset);
      json_.Member("length", reason.length);
      json_.Member("bytes", HexEncode(reason.bytes));
    }
    json_.Member("message", InfoOf(reason.code).what);
    if (!reason.detail.empty()) json_.Member("detail", reason.detail);
    json_.EndObject();
  }

  void PutHashes() {
    json_.Key("hashes");
    json_.BeginObject();
    PutHash("container", file_.facts.container);
    PutHash("content", file_.facts.content);
    if (file_.untouched) json_.Member("untouched", *file_.untouched);
    json_.EndObject();
  }

  void PutHash(std::string_view key, const HashFacts& hash) {
    if (!hash.done && hash.trouble.empty()) return;
    json_.Key(key);
    json_.BeginObject();
    if (!hash.trouble.empty()) json_.Member("trouble", hash.trouble);
    if (hash.done) {
      json_.Member("bytes", hash.bytes);
      for (const auto& [name, digest] : hash.digests) json_.Member(name, digest);
      json_.Key("unreadable");
      json_.BeginArray();
      for (const HostRange& range : hash.unreadable) {
        json_.BeginObject();
        json_.Member("offset", range.offset.value);
        json_.Member("length", range.length);
        json_.EndObject();
      }
      json_.EndArray();
    }
    json_.EndObject();
  }

  void PutImage() {
    json_.Member("format-version", id_.version);
    json_.Member("examined", id_.examined && file_.facts.complete);
    json_.Member("virtual-size", id_.virtual_size);
    json_.Member("stored", id_.stored);
    json_.Member("cluster-size", id_.cluster_size);
    if (!id_.id.empty()) json_.Member("id", id_.id);
    if (!id_.parent_id.empty()) json_.Member("parent-id", id_.parent_id);
    PutSignatures("signatures", id_.signatures);
    PutSignatures("guest-signatures", id_.guest_signatures);
    PutLinks();
    PutSnapshots();
    PutBitmaps();
    PutCheck();
    PutRemnants();
    PutEntropy();
    PutRules();
    PutNames();
  }

  void PutNames() {
    const NameFacts& names = file_.facts.names;
    if (!names.done && names.trouble.empty()) return;
    json_.Key("names");
    WriteNameFactsJson(names, true, json_);
  }
  void PutRange(const GuestRange& range) {
    json_.BeginObject();
    json_.Member("guest-offset", range.offset.value);
    json_.Member("guest-length", range.length);
    json_.EndObject();
  }
  void PutRemnants() {
    const RemnantFacts& remnants = file_.facts.remnants;
    if (!remnants.done) return;
    json_.Key("unclaimed");
    json_.BeginObject();
    json_.Member("count", remnants.count);
    json_.Member("bytes", remnants.bytes);
    json_.Member("zero-bytes", remnants.zero_bytes);
    json_.Member("unreadable-bytes", remnants.unreadable_bytes);
    json_.Key("list");
    json_.BeginArray();
    for (const Remnant& remnant : remnants.remnants) {
      json_.BeginObject();
      json_.Member("offset", remnant.host_offset);
      json_.Member("length", remnant.length);
      json_.Member("origin", ToText(remnant.origin));
      json_.Member("class", ToText(remnant.kind));
      if (!remnant.what.empty()) json_.Member("what", remnant.what);
      json_.Member("entropy", Rounded(remnant.entropy));
      if (remnant.guest_offset) json_.Member("guest-offset", *remnant.guest_offset);
      if (!remnant.file.empty()) json_.Member("file", remnant.file);
      if (!remnant.sha256.empty()) json_.Member("sha256", remnant.sha256);
      json_.EndObject();
    }
    json_.EndArray();
    json_.EndObject();
  }

  static double Rounded(double value) { return std::round(value * 1000) / 1000; }

  void PutEntropy() {
    const EntropyFacts& entropy = file_.facts.entropy;
    if (!entropy.done && entropy.trouble.empty()) return;
    json_.Key("entropy");
    json_.BeginObject();
    if (!entropy.done) {
      json_.Member("trouble", entropy.trouble);
      json_.EndObject();
      return;
    }
    json_.Member("block", entropy.block);
    json_.Member("encrypted-bytes", entropy.random_bytes);
    json_.Member("plain-bytes", entropy.plain_bytes);
    json_.Member("zero-bytes", entropy.zero_bytes);
    json_.Member("head", entropy.head);
    json_.Member("tail", entropy.tail);
    if (entropy.plan_repeats > 0) {
      json_.Key("plan");
      json_.BeginObject();
      json_.Member("on", entropy.plan_on);
      json_.Member("off", entropy.plan_off);
      json_.Member("begin", entropy.plan_begin);
      json_.Member("end", entropy.plan_end);
      json_.Member("repeats", entropy.plan_repeats);
      json_.EndObject();
    }
    json_.Member("disk-encrypted-bytes", entropy.disk_random_bytes);
    json_.Member("disk-plain-bytes", entropy.disk_plain_bytes);
    json_.Key("disk-plain");
    json_.BeginArray();
    for (const GuestRange& range : entropy.disk_plain) {
      json_.BeginObject();
      json_.Member("guest-offset", range.offset.value);
      json_.Member("guest-length", range.length);
      json_.EndObject();
    }
    json_.EndArray();
    json_.Member("disk-plain-not-listed", entropy.disk_plain_more);
    if (!file_.is_image()) {
      json_.Key("file-plain");
      json_.BeginArray();
      for (const HostRange& range : entropy.file_plain) {
        json_.BeginObject();
        json_.Member("offset", range.offset.value);
        json_.Member("length", range.length);
        json_.EndObject();
      }
      json_.EndArray();
      json_.Member("file-plain-not-listed", entropy.file_plain_more);
    }
    json_.EndObject();
  }

  void PutRules() {
    if (file_.facts.rules.empty()) return;
    json_.Key("rules");
    json_.BeginArray();
    for (const RuleFacts& rule : file_.facts.rules) {
      json_.BeginObject();
      json_.Member("rule", rule.rule);
      if (!rule.trouble.empty()) json_.Member("error", rule.trouble);
      json_.Key("hits");
      json_.BeginArray();
      for (const RuleHit& hit : rule.hits) {
        json_.BeginObject();
        json_.Member("severity", hit.severity);
        json_.Member("message", hit.message);
        if (hit.offset) json_.Member("offset", *hit.offset);
        if (hit.length) json_.Member("length", *hit.length);
        json_.EndObject();
      }
      json_.EndArray();
      if (rule.more) json_.Member("more", true);
      json_.EndObject();
    }
    json_.EndArray();
  }

  void PutSignatures(std::string_view key, const std::vector<Signature>& signatures) {
    json_.Key(key);
    json_.BeginArray();
    for (const Signature& signature : signatures) {
      json_.BeginObject();
      json_.Member("name", signature.name);
      json_.Member("kind", ToText(signature.kind));
      json_.Member("offset", signature.offset);
      json_.EndObject();
    }
    json_.EndArray();
  }

  void PutPaths(std::string_view key, const std::vector<size_t>& files) {
    json_.Key(key);
    json_.BeginArray();
    for (size_t i : files) json_.Value(std::string_view(result_.files[i].file.path));
    json_.EndArray();
  }

  void PutLinks() {
    json_.Key("links");
    json_.BeginArray();
    for (size_t e : result_.chain.edges_of[index_]) PutLink(result_.chain.edges[e]);
    json_.EndArray();
    PutPaths("used-by", result_.chain.children[index_]);
  }

  void PutLink(const ChainEdge& edge) {
    json_.BeginObject();
    json_.Member("kind", edge.kind);
    json_.Key("names");
    json_.BeginArray();
    for (const LinkRow& link : id_.links) {
      if (link.kind != edge.kind) continue;
      json_.BeginObject();
      json_.Member("name", link.name);
      json_.Member("offset", link.host_offset);
      json_.Member("length", link.length);
      json_.EndObject();
    }
    json_.EndArray();
    if (!edge.format.empty()) json_.Member("format", edge.format);
    json_.Member("state", ToText(edge.state));
    if (edge.parent) {
      json_.Member("file", result_.files[*edge.parent].file.path);
      json_.Member("found-by", ToText(edge.by));
    }
    if (edge.state == LinkState::kAmbiguous) PutPaths("candidates", edge.candidates);
    json_.Key("troubles");
    json_.BeginArray();
    for (LinkTrouble trouble : edge.troubles) json_.Value(ToText(trouble));
    json_.EndArray();
    json_.EndObject();
  }

  void PutSnapshots() {
    json_.Key("snapshots");
    json_.BeginArray();
    for (const SnapshotRow& snapshot : id_.snapshots) {
      json_.BeginObject();
      json_.Member("id", snapshot.id);
      json_.Member("name", snapshot.name);
      json_.Member("date", snapshot.date_seconds);
      json_.Member("virtual-size", snapshot.virtual_size);
      json_.Member("vm-state-size", snapshot.vm_state_size);
      json_.EndObject();
    }
    json_.EndArray();
  }

  void PutBitmaps() {
    json_.Key("bitmaps");
    json_.BeginArray();
    for (const BitmapRow& bitmap : id_.bitmaps) {
      json_.BeginObject();
      json_.Member("name", bitmap.name);
      json_.Member("granularity", bitmap.granularity);
      json_.Member("in-use", bitmap.in_use);
      json_.Member("enabled", bitmap.enabled);
      json_.EndObject();
    }
    json_.EndArray();
  }

  void PutCheck() {
    const CheckFacts& check = file_.facts.check;
    json_.Member("checked", check.done);
    if (!check.trouble.empty()) json_.Member("check-trouble", check.trouble);
    json_.Member("check-errors", check.check_errors);
    json_.Member("corruptions", check.Units(Severity::kCorruption));
    json_.Member("leaks", check.Units(Severity::kLeak));
    json_.Member("warnings", check.Units(Severity::kWarning));
    json_.Key("findings");
    json_.BeginArray();
    const size_t listed = std::min(check.findings.size(), result_.max_findings);
    for (size_t i = 0; i < listed; ++i) WriteFindingJson(check.findings[i], json_);
    json_.EndArray();
    json_.Key("totals");
    json_.BeginArray();
    for (const ProblemTotal& total : check.totals) {
      json_.BeginObject();
      json_.Member("code", total.code);
      json_.Member("findings", total.findings);
      json_.Member("count", total.units);
      json_.EndObject();
    }
    json_.EndArray();
  }

  const TriageResult& result_;
  size_t index_, rank_;
  const TriagedFile& file_;
  const IdentityFacts& id_;
  JsonWriter& json_;
};

}  // namespace

void WriteTriageJson(const TriageResult& result, TextWriter& out) {
  const std::vector<size_t> order = OrderOfAttention(result);
  std::vector<size_t> ranks(order.size());
  for (size_t i = 0; i < order.size(); ++i) ranks[order[i]] = i + 1;
  for (size_t i = 0; i < result.files.size(); ++i) {
    JsonWriter json(out);
    FileJson(result, i, ranks[i], json).Write();
    out.Put('\n');
  }
}

}  // namespace imgfsck

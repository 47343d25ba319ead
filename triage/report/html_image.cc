// SPDX-License-Identifier: Apache-2.0
#include "triage/report/html_image.h"

#include <algorithm>

#include "base/text.h"
#include "report/guest_names.h"
#include "report/words.h"
#include "triage/attention.h"
#include "triage/report/html_picture.h"
#include "triage/report/timeline.h"

namespace imgfsck {
namespace {

constexpr size_t kMostNames = 5;   // of guest files, of one finding
constexpr size_t kMostRows = 200;  // of any one table; JSON has them all

class ImageSection {
 public:
  ImageSection(const TriageResult& result, size_t index, HtmlWriter& html)
      : result_(result),
        index_(index),
        file_(result.files[index]),
        facts_(file_.facts),
        id_(facts_.identity),
        html_(html) {}

  void Write() {
    html_.Raw("<section class=\"image\" id=\"f").Number(index_ + 1).Raw("\"><h3>");
    WriteBadge(result_, index_, html_);
    html_.Raw(" ").Text(Printable(file_.file.path)).Raw("</h3>");
    Summary();
    Reasons();
    Links();
    html_.Raw("<div class=\"pictures\">");
    WritePicture(facts_.file_picture, "The file", html_);
    WritePicture(facts_.disk_picture, "The disk", html_);
    html_.Raw("</div>");
    Findings();
    Names();
    Rules();
    Remnants();
    Entropy();
    Snapshots();
    Bitmaps();
    Hashes();
    html_.Raw("</section>");
  }

 private:
  void Summary() {
    std::string what = id_.format.empty() ? "not identified" : Printable(id_.format);
    if (!id_.version.empty()) what += " (" + Printable(id_.version) + ")";
    if (id_.examined) what += ", disk of " + HumanSize(id_.virtual_size);
    what += ", file of " + HumanSize(id_.file_size) + ", " + HumanSize(id_.stored) + " stored";
    html_.Raw("<p>").Text(what).Raw("</p>");
    for (const std::string& name : file_.file.also) Note("also named " + Printable(name));
    if (!id_.trouble.empty()) Note(Printable(id_.trouble));
    if (!facts_.check.trouble.empty()) Note("not checked: " + Printable(facts_.check.trouble));
    if (!id_.examined) Note("images of this format are recognised, not checked");
    std::string holds;
    const auto& signatures = id_.format == "raw" ? id_.signatures : id_.guest_signatures;
    for (const Signature& s : signatures) holds += (holds.empty() ? "" : ", ") + Printable(s.name);
    if (!holds.empty()) Note("on the disk: " + holds);
  }
  void Note(std::string_view text) { html_.Raw("<p class=\"soft\">").Text(text).Raw("</p>"); }

  void Begin(std::string_view title, size_t rows, std::initializer_list<std::string_view> heads) {
    html_.Raw("<h4>").Text(title).Raw(" (").Number(rows).Raw(
        ")</h4><div class=\"wide\"><table><tr>");
    for (std::string_view head : heads) html_.Head(head);
    html_.Raw("</tr>");
  }
  void End(size_t rows) {
    html_.Raw("</table></div>");
    if (rows > kMostRows) Note(fmt::format("{} more are in the JSON report", rows - kMostRows));
  }

  void Reasons() {
    if (facts_.reasons.empty()) return;
    Begin("Reasons for the verdict", facts_.reasons.size(),
          {"code", "weight", "why", "where", "bytes"});
    for (size_t i = 0; i < std::min(facts_.reasons.size(), kMostRows); ++i) {
      const Reason& reason = facts_.reasons[i];
      const Weight weight = WeightOf(reason.code, result_.policy);
      html_.Raw("<tr>").Cell(InfoOf(reason.code).name);
      html_.Cell(weight == Weight::kUnsafe  ? "unsafe"
                 : weight == Weight::kDoubt ? "undecidable"
                                            : "note");
      html_.Raw("<td>").Text(InfoOf(reason.code).what);
      if (!reason.detail.empty()) {
        html_.Raw(": <code>").Text(Printable(reason.detail)).Raw("</code>");
      }
      html_.Raw("</td>").Cell(reason.length > 0 ? RangeText(reason.offset, reason.length) : "");
      html_.Raw("<td class=\"mono\">").Text(HexEncode(reason.bytes)).Raw("</td></tr>");
    }
    End(facts_.reasons.size());
  }

  void Links() {
    const auto& edges = result_.chain.edges_of[index_];
    if (edges.empty()) return;
    Begin("Builds on", edges.size(), {"kind", "name in the image", "found", "remarks"});
    for (size_t e : edges) {
      const ChainEdge& edge = result_.chain.edges[e];
      html_.Raw("<tr>").Cell(edge.kind).Raw("<td>");
      for (const std::string& name : edge.names) {
        html_.Raw("<code>").Text(Printable(name)).Raw("</code><br>");
      }
      html_.Raw("</td><td>");
      if (edge.parent) {
        html_.Raw("<a href=\"#f").Number(*edge.parent + 1).Raw("\">");
        html_.Text(Printable(result_.files[*edge.parent].file.path)).Raw("</a>");
      } else {
        html_.Text(ToText(edge.state));
      }
      html_.Raw("</td><td>");
      for (LinkTrouble trouble : edge.troubles) html_.Text(ToText(trouble)).Raw("<br>");
      html_.Raw("</td></tr>");
    }
    End(0);
  }

  void Findings() {
    const CheckFacts& check = facts_.check;
    if (check.findings.empty()) {
      if (check.done) Note("The check found nothing.");
      return;
    }
    Begin("Findings", check.findings.size(),
          {"severity", "code", "what", "in the file", "on the disk", "guest files", "count"});
    for (size_t i = 0; i < std::min(check.findings.size(), kMostRows); ++i) {
      const Finding& f = check.findings[i];
      html_.Raw("<tr>").Cell(ToText(f.severity_or_default())).Cell(f.info().code);
      html_.Cell(Printable(f.Message()));
      html_.Cell(f.host ? fmt::format("{} {}", Printable(f.structure),
                                      RangeText(f.host->offset.value, f.host->length))
                        : Printable(f.structure));
      html_.Cell(GuestText(f));
      html_.Cell(NamesOf(f)).NumberCell(f.count).Raw("</tr>");
    }
    End(check.findings.size());
  }

  // The guest's files that lie where the finding is.
  std::string NamesOf(const Finding& f) const {
    if (!f.guest || (!f.layer.empty() && f.layer != kActiveLayer)) return "";
    std::vector<std::string> names;
    const auto& hits = facts_.names.hits;
    for (const NameHit& hit : hits) {
      const GuestRange &a = hit.range, &b = *f.guest;
      if (a.offset.value >= b.end()) break;
      if (a.end() <= b.offset.value || hit.path.empty()) continue;
      std::string name = PathText(facts_.names, hit.volume, hit.path);
      if (std::ranges::find(names, name) != names.end()) continue;
      if (names.size() == kMostNames) {
        names.emplace_back("…");
        break;
      }
      names.push_back(std::move(name));
    }
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
  }

  void Names() {
    const NameFacts& names = facts_.names;
    if (!names.trouble.empty()) Note("no names of guest files: " + Printable(names.trouble));
    const bool whole = names.volumes.size() == 1 && names.volumes[0].offset == 0 &&
                       names.volumes[0].trouble.empty();
    if (!names.volumes.empty() && !whole) Volumes();
    for (const RangeSetNames& set : names.sets) {
      const std::string title = "Changed since bitmap " + Printable(set.what) + " began";
      if (!set.trouble.empty()) Note(title + ": not known: " + Printable(set.trouble));
      if (set.shares.empty()) continue;
      Begin(title, set.shares.size(), {"guest file", "kind", "bytes changed"});
      for (size_t i = 0; i < std::min(set.shares.size(), kMostRows); ++i) {
        const NamedShare& share = set.shares[i];
        html_.Raw("<tr>").Cell(PathText(names, share.volume, share.path));
        html_.Cell(ToText(share.kind)).NumberCell(share.bytes).Raw("</tr>");
      }
      End(set.shares.size());
    }
    if (names.more) Note("more places of the disk have names than are listed");
    for (const GuestRange& range : names.faulted) {
      Note("looked at as zeros for names, because it cannot be read: guest " +
           RangeText(range.offset.value, range.length));
    }
  }
  void Volumes() {
    const auto& volumes = facts_.names.volumes;
    Begin("Partitions", volumes.size(), {"number", "holds", "on the disk", "names"});
    for (size_t i = 0; i < std::min(volumes.size(), kMostRows); ++i) {
      const GuestVolume& volume = volumes[i];
      html_.Raw("<tr>").NumberCell(i + 1);
      html_.Cell(volume.type.empty() ? "nothing known" : Printable(volume.type));
      html_.Cell(RangeText(volume.offset, volume.length));
      html_.Cell(volume.trouble.empty() ? "looked up" : Printable(volume.trouble)).Raw("</tr>");
    }
    End(volumes.size());
  }

  static std::string GuestText(const Finding& f) {
    if (!f.guest) return "";
    std::string text = RangeText(f.guest->offset.value, f.guest->length);
    if (f.layer != kActiveLayer) text += fmt::format(" of {}", Printable(f.layer));
    return text;
  }

  void Rules() {
    for (const RuleFacts& rule : facts_.rules) {
      if (!rule.trouble.empty()) {
        Note(fmt::format("rule {}: {}", Printable(rule.rule), Printable(rule.trouble)));
      }
      if (rule.hits.empty()) continue;
      Begin("Rule " + Printable(rule.rule), rule.hits.size(), {"severity", "message", "where"});
      for (size_t i = 0; i < std::min(rule.hits.size(), kMostRows); ++i) {
        const RuleHit& hit = rule.hits[i];
        html_.Raw("<tr>").Cell(hit.severity).Cell(Printable(hit.message));
        html_.Cell(hit.offset ? RangeText(*hit.offset, hit.length.value_or(0)) : "");
        html_.Raw("</tr>");
      }
      End(rule.hits.size());
    }
  }

  void Remnants() {
    const RemnantFacts& remnants = facts_.remnants;
    if (remnants.count == 0) return;
    Begin("Unclaimed bytes", remnants.count,
          {"where from", "what it seems to be", "in the file", "on the disk", "entropy", "copy"});
    for (size_t i = 0; i < std::min(remnants.remnants.size(), kMostRows); ++i) {
      const Remnant& r = remnants.remnants[i];
      html_.Raw("<tr>").Cell(ToText(r.origin));
      html_.Cell(
          fmt::format("{}{}{}", ToText(r.kind), r.what.empty() ? "" : ": ", Printable(r.what)));
      html_.Cell(RangeText(r.host_offset, r.length));
      html_.Cell(r.guest_offset ? Hex(*r.guest_offset) : "");
      html_.Cell(fmt::format("{:.2f}", r.entropy)).Cell(Printable(r.file)).Raw("</tr>");
    }
    End(remnants.count);
  }

  void Entropy() {
    const EntropyFacts& e = facts_.entropy;
    if (!e.done && e.trouble.empty()) return;
    html_.Raw("<h4>Entropy</h4>");
    if (!e.done) return Note(e.trouble);
    Note(fmt::format("{} look encrypted, {} do not, {} are zero", HumanSize(e.random_bytes),
                     HumanSize(e.plain_bytes), HumanSize(e.zero_bytes)));
    if (e.head > 0) Note(fmt::format("the first {} look encrypted", HumanSize(e.head)));
    if (e.tail > 0) Note(fmt::format("the last {} look encrypted", HumanSize(e.tail)));
    if (e.plan_repeats > 0) {
      Note(fmt::format("a plan: {} that look encrypted, then {} that do not, {} times, {}",
                       HumanSize(e.plan_on), HumanSize(e.plan_off), e.plan_repeats,
                       RangeText(e.plan_begin, e.plan_end - e.plan_begin)));
    }
    if (!file_.is_image()) {
      Note(fmt::format("of the file, {} are left in {}", HumanSize(e.plain_bytes),
                       Plural(e.file_plain.size() + e.file_plain_more, "range", "ranges")));
    }
    if (e.disk_random_bytes > 0) {
      Note(fmt::format("of the disk, {} are left in {}", HumanSize(e.disk_plain_bytes),
                       Plural(e.disk_plain.size() + e.disk_plain_more, "range", "ranges")));
    }
  }

  void Snapshots() {
    if (id_.snapshots.empty()) return;
    Begin("Snapshots", id_.snapshots.size(), {"id", "name", "made", "disk", "machine state"});
    for (size_t i = 0; i < std::min(id_.snapshots.size(), kMostRows); ++i) {
      const SnapshotRow& s = id_.snapshots[i];
      const int64_t seconds = std::clamp<int64_t>(s.date_seconds, 0, INT32_MAX * int64_t{4});
      html_.Raw("<tr>").Cell(Printable(s.id)).Cell(Printable(s.name));
      html_.Cell(TimeText(seconds * 1'000'000'000)).Cell(HumanSize(s.virtual_size));
      html_.Cell(HumanSize(s.vm_state_size)).Raw("</tr>");
    }
    End(id_.snapshots.size());
  }

  void Bitmaps() {
    if (id_.bitmaps.empty()) return;
    Begin("Bitmaps", id_.bitmaps.size(), {"name", "granularity", "state"});
    for (size_t i = 0; i < std::min(id_.bitmaps.size(), kMostRows); ++i) {
      const BitmapRow& b = id_.bitmaps[i];
      html_.Raw("<tr>").Cell(Printable(b.name)).Cell(HumanSize(b.granularity));
      html_.Cell(b.in_use ? "in use: not closed properly" : b.enabled ? "enabled" : "disabled");
      html_.Raw("</tr>");
    }
    End(id_.bitmaps.size());
  }

  void Hashes() {
    const size_t count = facts_.container.digests.size() + facts_.content.digests.size();
    for (const HashFacts* hash : {&facts_.container, &facts_.content}) {
      if (hash->trouble.empty()) continue;
      Note(fmt::format("{} of the {}: {}", hash->done ? "not all hashes" : "no hash",
                       hash == &facts_.container ? "file" : "disk", Printable(hash->trouble)));
    }
    if (count == 0) return;
    Begin("Hashes", count, {"of", "algorithm", "digest"});
    for (const HashFacts* hash : {&facts_.container, &facts_.content}) {
      for (const auto& [name, digest] : hash->digests) {
        html_.Raw("<tr>").Cell(hash == &facts_.container ? "file" : "disk").Cell(name);
        html_.Raw("<td class=\"mono\">").Text(digest).Raw("</td></tr>");
      }
    }
    End(0);
    for (const HashFacts* hash : {&facts_.container, &facts_.content}) {
      for (size_t i = 0; i < std::min(hash->unreadable.size(), kMostRows); ++i) {
        const HostRange& range = hash->unreadable[i];
        Note("hashed as zeros, because it cannot be read: " +
             RangeText(range.offset.value, range.length));
      }
    }
    if (file_.untouched) Note(*file_.untouched ? "the same at the end" : "CHANGED meanwhile");
  }

  const TriageResult& result_;
  size_t index_;
  const TriagedFile& file_;
  const ImageFacts& facts_;
  const IdentityFacts& id_;
  HtmlWriter& html_;
};

}  // namespace

void WriteBadge(const TriageResult& result, size_t index, HtmlWriter& html) {
  switch (AttentionFor(result, index)) {
    case Attention::kUnsafe:
      html.Raw("<span class=\"badge unsafe\">unsafe</span>");
      break;
    case Attention::kUndecidable:
      html.Raw("<span class=\"badge undecidable\">undecidable</span>");
      break;
    case Attention::kDamaged:
      html.Raw("<span class=\"badge damaged\">damaged</span>");
      break;
    case Attention::kSound:
      if (result.files[index].facts.identity.examined) {
        html.Raw("<span class=\"badge sound\">sound</span>");
      } else {
        html.Raw("<span class=\"badge other\">not checked</span>");
      }
      break;
    case Attention::kNotAnImage:
      html.Raw("<span class=\"badge other\">no image</span>");
      break;
  }
}

void WriteImageSection(const TriageResult& result, size_t index, HtmlWriter& html) {
  ImageSection(result, index, html).Write();
}

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
#include "triage/report/dfxml.h"

#include <algorithm>

#include "base/xml_writer.h"
#include "triage/report/timeline.h"

namespace imgfsck {
namespace {

constexpr std::string_view kNamespace =
    "http://www.forensicswiki.org/wiki/Category:Digital_Forensics_XML";
constexpr std::string_view kDublinCore = "http://purl.org/dc/elements/1.1/";
constexpr std::string_view kOurs = "urn:imgfsck:triage:1";

class Dfxml {
 public:
  Dfxml(const TriageResult& result, TextWriter& out) : result_(result), xml_(out) {}

  void Write() {
    xml_.Declaration();
    xml_.Open("dfxml");
    xml_.Attribute("xmlns", kNamespace);
    xml_.Attribute("xmlns:dc", kDublinCore);
    xml_.Attribute("xmlns:triage", kOurs);
    xml_.Attribute("version", "2.0.0-beta.0");
    xml_.Open("metadata");
    xml_.Leaf("dc:type", "Disk Image Triage");
    xml_.Close();
    xml_.Open("creator");
    xml_.Leaf("program", "imgtriage");
    xml_.Leaf("version", IMGFSCK_VERSION);
    xml_.Close();
    xml_.Open("source");
    for (const TriagedFile& file : result_.files) {
      if (file.is_image()) Name("image_filename", file.file.path);
    }
    xml_.Close();
    for (size_t i = 0; i < result_.files.size(); ++i) {
      if (result_.files[i].is_image()) Image(i);
    }
    for (const TriagedFile& file : result_.files) File(file);
    xml_.Close();
  }

 private:
  // A name whose bytes XML cannot hold comes with them in hex.
  void Name(std::string_view element, const std::string& name) {
    xml_.Open(element);
    if (!FitsMarkup(name)) xml_.Attribute("triage:bytes", HexEncode(AsBytes(name)));
    xml_.Text(name);
    xml_.Close();
  }

  void Image(size_t index) {
    const TriagedFile& file = result_.files[index];
    const IdentityFacts& id = file.facts.identity;
    xml_.Open("diskimageobject");
    Name("triage:filename", file.file.path);
    xml_.Open("triage:image");
    xml_.Attribute("format", id.format);
    xml_.Attribute("version", id.version);
    xml_.Attribute("file_size", id.file_size);
    xml_.Attribute("virtual_size", id.virtual_size);
    xml_.Close();
    xml_.Open("triage:verdict");
    xml_.Attribute("policy", ToText(result_.policy));
    xml_.Text(ToText(file.verdict));
    xml_.Close();
    for (const Reason& reason : file.facts.reasons) PutReason(reason);
    for (size_t e : result_.chain.edges_of[index]) PutLink(result_.chain.edges[e]);
    const auto& findings = file.facts.check.findings;
    const size_t listed = std::min(findings.size(), result_.max_findings);
    for (size_t i = 0; i < listed; ++i) PutFinding(findings[i]);
    PutNames(file.facts.names);
    ContentHash(file.facts.content);
    Runs(file.facts.container);
    xml_.Leaf("sector_size", 512);
    if (!id.trouble.empty()) xml_.Leaf("error", id.trouble);
    xml_.Close();
  }

  void PutReason(const Reason& reason) {
    xml_.Open("triage:reason");
    xml_.Attribute("code", InfoOf(reason.code).name);
    if (reason.length > 0) {
      xml_.Attribute("container_offset", reason.offset);
      xml_.Attribute("length", reason.length);
      xml_.Attribute("bytes", HexEncode(reason.bytes));
    }
    xml_.Text(reason.detail.empty() ? InfoOf(reason.code).what : reason.detail);
    xml_.Close();
  }

  void PutLink(const ChainEdge& edge) {
    xml_.Open("triage:link");
    xml_.Attribute("kind", edge.kind);
    xml_.Attribute("state", ToText(edge.state));
    if (edge.parent) xml_.Attribute("file", result_.files[*edge.parent].file.path);
    for (LinkTrouble trouble : edge.troubles) {
      xml_.Open("triage:trouble");
      xml_.Attribute("code", ToText(trouble));
      xml_.Close();
    }
    for (const std::string& name : edge.names) Name("triage:name", name);
    xml_.Close();
  }

  void PutFinding(const Finding& finding) {
    xml_.Open("triage:finding");
    xml_.Attribute("code", finding.info().code);
    xml_.Attribute("severity", ToText(finding.severity_or_default()));
    xml_.Attribute("structure", finding.structure);
    if (finding.host) {
      xml_.Attribute("container_offset", finding.host->offset.value);
      xml_.Attribute("length", finding.host->length);
    }
    if (finding.guest) {
      xml_.Attribute("img_offset", finding.guest->offset.value);
      xml_.Attribute("img_length", finding.guest->length);
    }
    if (!finding.layer.empty()) xml_.Attribute("layer", finding.layer);
    xml_.Attribute("count", finding.count);
    xml_.Text(finding.Message());
    xml_.Close();
  }

  // Files of the guest that something concerns, with the bytes of them that are concerned.
  void PutNames(const NameFacts& names) {
    if (!names.trouble.empty()) xml_.Leaf("triage:no_names", names.trouble);
    for (size_t i = 0; i < names.volumes.size(); ++i) {
      const GuestVolume& volume = names.volumes[i];
      xml_.Open("triage:volume");
      xml_.Attribute("number", i);
      xml_.Attribute("img_offset", volume.offset);
      xml_.Attribute("img_length", volume.length);
      xml_.Attribute("type", volume.type);
      xml_.Attribute("mapped", volume.mapped ? "1" : "0");
      xml_.Text(volume.trouble);
      xml_.Close();
    }
    for (const NameHit& hit : names.hits) {
      xml_.Open("triage:guest_file");
      xml_.Attribute("volume", uint64_t{hit.volume});
      xml_.Attribute("kind", ToText(hit.kind));
      xml_.Attribute("img_offset", hit.range.offset.value);
      xml_.Attribute("img_length", hit.range.length);
      if (hit.file_offset) xml_.Attribute("file_offset", *hit.file_offset);
      if (!hit.path.empty()) Name("triage:path", hit.path);
      xml_.Close();
    }
    for (const RangeSetNames& set : names.sets) PutChanges(set);
  }
  void PutChanges(const RangeSetNames& set) {
    xml_.Open("triage:changed_since_bitmap");
    xml_.Attribute("bytes", set.bytes);
    Name("triage:name", set.what);
    if (!set.trouble.empty()) xml_.Leaf("triage:trouble_text", set.trouble);
    for (const NamedShare& share : set.shares) {
      xml_.Open("triage:guest_file");
      xml_.Attribute("volume", uint64_t{share.volume});
      xml_.Attribute("kind", ToText(share.kind));
      xml_.Attribute("bytes", share.bytes);
      if (!share.path.empty()) Name("triage:path", share.path);
      xml_.Close();
    }
    xml_.Close();
  }

  void ContentHash(const HashFacts& hash) {
    for (const auto& [name, digest] : hash.digests) {
      xml_.Open("triage:content_hashdigest");
      xml_.Attribute("type", name);
      xml_.Text(digest);
      xml_.Close();
    }
  }

  void Digests(const HashFacts& hash) {
    for (const auto& [name, digest] : hash.digests) {
      if (name == "pieces") continue;  // hash of hashes: nobody else knows it
      xml_.Open("hashdigest");
      xml_.Attribute("type", name);
      xml_.Text(digest);
      xml_.Close();
    }
  }

  // Of the container: the pieces where they were hashed, else the whole.
  void Runs(const HashFacts& hash) {
    if (!hash.done) return;
    xml_.Open("byte_runs");
    xml_.Open("byte_run");
    xml_.Attribute("img_offset", 0);
    xml_.Attribute("len", hash.bytes);
    Digests(hash);
    xml_.Close();
    for (size_t i = 0; i < hash.pieces.size(); ++i) {
      xml_.Open("byte_run");
      xml_.Attribute("img_offset", i * kHashPiece);
      xml_.Attribute("len", std::min(kHashPiece, hash.bytes - i * kHashPiece));
      xml_.Open("hashdigest");
      xml_.Attribute("type", "sha256");
      xml_.Text(hash.pieces[i]);
      xml_.Close();
      xml_.Close();
    }
    for (const HostRange& range : hash.unreadable) {
      xml_.Open("byte_run");
      xml_.Attribute("img_offset", range.offset.value);
      xml_.Attribute("len", range.length);
      xml_.Attribute("fill", "0");
      xml_.Attribute("type", "unreadable");
      xml_.Close();
    }
    xml_.Close();
  }

  void File(const TriagedFile& file) {
    xml_.Open("fileobject");
    Name("filename", file.file.path);
    for (const std::string& name : file.file.also) Name("filename", name);
    if (!file.facts.identity.trouble.empty()) xml_.Leaf("error", file.facts.identity.trouble);
    xml_.Leaf("filesize", file.file.identity.size);
    xml_.Leaf("mtime", TimeText(file.file.identity.mtime_ns));
    Digests(file.facts.container);
    xml_.Close();
  }

  const TriageResult& result_;
  XmlWriter xml_;
};

}  // namespace

void WriteDfxml(const TriageResult& result, TextWriter& out) { Dfxml(result, out).Write(); }

}  // namespace imgfsck

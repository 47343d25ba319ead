// SPDX-License-Identifier: Apache-2.0
#include "triage/report/html.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>

#include "base/base64.h"
#include "base/text.h"
#include "report/words.h"
#include "triage/attention.h"
#include "triage/report/html_image.h"
#include "triage/report/html_style.h"

namespace imgfsck {
namespace {

constexpr size_t kMostOthers = 1000;  // files that are no images, listed
constexpr size_t kMostChainItems = 2000;

// What the policy calls the style sheet by: nothing else may style the page.
std::string StyleHash() {
  std::array<uint8_t, 32> digest{};
  unsigned size = 0;
  const std::string_view style = kHtmlStyle;
  IMG_CHECK(EVP_Digest(style.data(), style.size(), digest.data(), &size, EVP_sha256(), nullptr) ==
            1);
  return Base64Encode(digest);
}

class Page {
 public:
  Page(const TriageResult& result, bool one_image, TextWriter& out)
      : result_(result), one_image_(one_image), html_(out) {
    for (size_t i : OrderOfAttention(result)) {
      const Attention attention = AttentionFor(result, i);
      ++counts_[static_cast<size_t>(attention)];
      (attention == Attention::kNotAnImage ? others_ : images_).push_back(i);
    }
  }

  void Write() {
    Head();
    if (!one_image_) {
      Overview();
      Chains();
      html_.Raw("<h2>Images</h2>");
    }
    for (size_t i : images_) WriteImageSection(result_, i, html_);
    if (!one_image_) Others();
    html_.Raw("<p class=\"soft\">imgfsck ").Text(IMGFSCK_VERSION).Raw(", policy ");
    html_.Text(ToText(result_.policy)).Raw("</p></main></body></html>\n");
  }

 private:
  void Head() {
    html_.Raw("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    html_.Raw(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
        "img-src data:; style-src 'sha256-");
    html_.Encoded(StyleHash()).Raw("'; base-uri 'none'; form-action 'none'\">");
    html_.Raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    html_.Raw("<meta name=\"referrer\" content=\"no-referrer\"><title>");
    html_.Text(Title())
        .Raw("</title><style>")
        .Raw(kHtmlStyle)
        .Raw("</style></head>\n<body><main><h1>");
    html_.Text(Title()).Raw("</h1>\n");
  }
  std::string Title() const {
    if (one_image_ && !images_.empty()) return Printable(result_.files[images_[0]].file.path);
    return Plural(images_.size(), "disk image", "disk images");
  }

  void Overview() {
    html_.Raw("<p>").Text(
        fmt::format("{} unsafe, {} undecidable, {} damaged, {} with nothing "
                    "against them; {} in {}",
                    counts_[0], counts_[1], counts_[2], counts_[3],
                    Plural(others_.size(), "other file", "other files"),
                    Plural(result_.directories, "folder", "folders")));
    html_.Raw("</p>");
    for (const PathError& error : result_.errors) {
      html_.Raw("<p><span class=\"badge damaged\">not read</span> ").Text(Printable(error.path));
      html_.Raw(": ").Text(Printable(error.error.message)).Raw("</p>");
    }
    html_.Raw("<h2>What to look at first</h2><div class=\"wide\"><table><tr>");
    for (std::string_view head : {"verdict", "image", "format", "disk", "corruptions", "leaks",
                                  "unclaimed bytes", "because"}) {
      html_.Head(head);
    }
    html_.Raw("</tr>\n");
    for (size_t i : images_) Row(i);
    html_.Raw("</table></div>\n");
  }

  void Row(size_t index) {
    const TriagedFile& file = result_.files[index];
    const CheckFacts& check = file.facts.check;
    html_.Raw("<tr><td>");
    WriteBadge(result_, index, html_);
    html_.Raw("</td><td><a href=\"#f").Number(index + 1).Raw("\">");
    html_.Text(Printable(file.file.path)).Raw("</a></td>");
    html_.Cell(Printable(file.facts.identity.format));
    html_.Cell(file.facts.identity.examined ? HumanSize(file.facts.identity.virtual_size) : "");
    html_.NumberCell(check.Units(Severity::kCorruption)).NumberCell(check.Units(Severity::kLeak));
    html_.Cell(file.facts.remnants.bytes > 0 ? HumanSize(file.facts.remnants.bytes) : "");
    html_.Cell(WhyLookAt(result_, index)).Raw("</tr>\n");
  }

  bool HasBase(size_t file) const {
    return std::ranges::any_of(result_.chain.edges_of[file],
                               [&](size_t e) { return result_.chain.edges[e].parent.has_value(); });
  }

  // Trees of those that build on each other. Every file is opened once: below it its children, or,
  // where it stood before, nothing.
  void Chains() {
    bool headed = false;
    std::vector<bool> shown(result_.files.size());
    size_t items = 0;
    for (bool cycles : {false, true}) {
      for (size_t root = 0; root < result_.files.size(); ++root) {
        const bool wanted = cycles ? !shown[root] : !HasBase(root);
        if (!wanted || result_.chain.children[root].empty() || items > kMostChainItems) continue;
        if (!headed)
          html_.Raw(
              "<h2>Chains</h2><p class=\"soft\">Under a file stand those that "
              "build on it.</p>");
        headed = true;
        html_.Raw("<ul class=\"chain\">");
        items += Tree(root, &shown);
        html_.Raw("</ul>\n");
      }
    }
  }

  size_t Tree(size_t root, std::vector<bool>* shown) {
    struct Open {
      size_t file, next;  // next child
    };
    std::vector<Open> path;
    size_t items = 0;
    auto enter = [&](size_t file) {
      Item(file);
      ++items;
      const bool again = (*shown)[file];
      (*shown)[file] = true;
      html_.Raw("<ul>");
      path.push_back({file, again ? result_.chain.children[file].size() : 0});
    };
    enter(root);
    while (!path.empty()) {
      Open& top = path.back();
      const auto& children = result_.chain.children[top.file];
      if (top.next < children.size() && items < kMostChainItems) {
        enter(children[top.next++]);
      } else {
        html_.Raw("</ul></li>");
        path.pop_back();
      }
    }
    return items;
  }

  void Item(size_t index) {
    html_.Raw("<li>");
    WriteBadge(result_, index, html_);
    html_.Raw(" <a href=\"#f").Number(index + 1).Raw("\">");
    html_.Text(Printable(result_.files[index].file.path)).Raw("</a>");
    for (size_t e : result_.chain.edges_of[index]) {
      const ChainEdge& edge = result_.chain.edges[e];
      html_.Raw(" <span class=\"soft\">").Text(edge.kind);
      for (LinkTrouble trouble : edge.troubles) html_.Raw(", ").Text(ToText(trouble));
      html_.Raw("</span>");
    }
  }

  void Others() {
    if (others_.empty()) return;
    html_.Raw("<h2>Other files</h2><details><summary>");
    html_.Text(Plural(others_.size(), "file that is no image", "files that are no images"));
    html_.Raw("</summary><ul>");
    for (size_t i = 0; i < std::min(others_.size(), kMostOthers); ++i) {
      const TriagedFile& file = result_.files[others_[i]];
      html_.Raw("<li id=\"f").Number(others_[i] + 1).Raw("\">").Text(Printable(file.file.path));
      if (!file.facts.identity.trouble.empty()) {
        html_.Raw(": ").Text(Printable(file.facts.identity.trouble));
      }
      html_.Raw("</li>");
    }
    html_.Raw("</ul></details>\n");
  }

  const TriageResult& result_;
  bool one_image_;
  HtmlWriter html_;
  std::vector<size_t> images_, others_;  // in the order of attention
  std::array<uint64_t, 5> counts_{};
};

}  // namespace

void WriteHtml(const TriageResult& result, bool one_image, TextWriter& out) {
  Page(result, one_image, out).Write();
}

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
#include "triage/chain_graph.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "formats/format.h"
#include "triage/policy/names.h"

namespace imgfsck {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kNanoseconds = 1'000'000'000;
// Times recorded in VHDs suffer from time zones and daylight saving.
constexpr int64_t kVhdTolerance = 26 * 3600;

std::string Basename(std::string_view name) {
  const size_t slash = name.find_last_of("/\\");
  return std::string(slash == std::string_view::npos ? name : name.substr(slash + 1));
}

// A name as a path of this machine: Windows' slashes turned, its drive and "file:" taken off.
std::string LocalPath(std::string_view name, bool windows) {
  while (name.starts_with("file://")) name.remove_prefix(7);
  while (name.starts_with("file:")) name.remove_prefix(5);
  std::string path(name);
  if (!windows) return path;
  std::ranges::replace(path, '\\', '/');
  if (path.size() >= 2 && path[1] == ':') path.erase(0, 2);
  return path;
}

bool IsAFile(std::string_view name) {
  for (ReasonCode code : JudgeName(name)) {
    const bool elsewhere = code == ReasonCode::kRefPseudo || code == ReasonCode::kRefNetwork;
    if (elsewhere && !name.starts_with("file:")) return false;
  }
  return !name.empty() && name.find('\0') == std::string_view::npos;
}

std::string_view CanonicalFormat(std::string_view name) {
  const Format* format = FindFormat(name);
  return format == nullptr ? name : format->name;
}

class Linker {
 public:
  explicit Linker(const std::vector<ChainMember>& members) : members_(members) {
    for (size_t i = 0; i < members_.size(); ++i) Index(i);
  }

  ChainGraph Run() {
    graph_.edges_of.resize(members_.size());
    graph_.children.resize(members_.size());
    for (size_t child = 0; child < members_.size(); ++child) AddEdges(child);
    FindCycles();
    return std::move(graph_);
  }

 private:
  const IdentityFacts& Id(size_t i) const { return members_[i].facts->identity; }
  const FoundFile& File(size_t i) const { return *members_[i].file; }
  bool IsImage(size_t i) const { return Id(i).kind == FileKind::kImage; }

  // The folder that a file lies in, with links in the user's own path resolved.
  std::string FolderOf(const std::string& path) {
    const size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    auto [known, fresh] = folders_.try_emplace(folder);
    if (fresh) {
      std::error_code error;
      known->second = fs::canonical(folder, error).string();
      if (error) known->second = fs::absolute(folder, error).lexically_normal().string();
    }
    return known->second;
  }

  void Index(size_t i) {
    auto add = [&](const std::string& path) {
      by_path_.emplace((fs::path(FolderOf(path)) / Basename(path)).string(), i);
      by_name_[Basename(path)].push_back(i);
    };
    add(File(i).path);
    for (const std::string& path : File(i).also) add(path);
    if (!Id(i).id.empty()) by_id_[Id(i).id].push_back(i);
    by_stamp_[{File(i).identity.mtime_ns / kNanoseconds, Id(i).file_size}].push_back(i);
  }

  void AddEdges(size_t child) {
    std::map<std::string, ChainEdge> edges;  // by kind: a VHD names one parent many times
    for (const LinkRow& link : Id(child).links) {
      ChainEdge& edge = edges[link.kind];
      edge.child = child;
      edge.kind = link.kind;
      if (std::ranges::find(edge.names, link.name) == edge.names.end()) {
        edge.names.push_back(link.name);
      }
      if (edge.format.empty()) edge.format = link.format;
    }
    for (auto& [kind, edge] : edges) {
      Resolve(&edge);
      if (edge.parent) {
        Judge(&edge);
        graph_.children[*edge.parent].push_back(child);
      }
      graph_.edges_of[child].push_back(graph_.edges.size());
      graph_.edges.push_back(std::move(edge));
    }
  }

  void Resolve(ChainEdge* edge) {
    const std::string& wanted = Id(edge->child).parent_id;
    const bool with_id = edge->kind == "parent" && wanted.find_first_not_of('0') != wanted.npos;
    std::optional<size_t> there = ByPath(*edge);
    if (there && (!with_id || Id(*there).id == wanted)) return Found(*there, FoundBy::kPath, edge);
    if (with_id && by_id_.contains(wanted)) return Among(by_id_[wanted], FoundBy::kId, edge);
    if (there) {
      Found(*there, FoundBy::kPath, edge);
      edge->troubles.push_back(LinkTrouble::kIdMismatch);
      return;
    }
    if (!std::ranges::any_of(edge->names, IsAFile)) {
      edge->state = LinkState::kNotAFile;
      return;
    }
    if (with_id) return;
    ByName(edge);
    if (edge->state != LinkState::kFound) ByStamp(edge);
  }

  // Some formats record their base's length and when it was last written: that file, whatever it is
  // called now.
  void ByStamp(ChainEdge* edge) {
    const IdentityFacts& child = Id(edge->child);
    if (!child.parent_mtime || child.format == "vpc") return;
    const std::vector<size_t>& named = edge->candidates;
    std::optional<size_t> found;
    for (size_t i : by_stamp_[{*child.parent_mtime, child.virtual_size}]) {
      if (i == edge->child) continue;
      if (!named.empty() && std::ranges::find(named, i) == named.end()) continue;
      if (found && !SameContent(*found, i)) return;
      if (!found) found = i;
    }
    if (!found) return;
    edge->candidates.clear();
    Found(*found, FoundBy::kContent, edge);
    edge->troubles.push_back(LinkTrouble::kMoved);
  }

  // By digests of the whole files, where they were asked for.
  bool SameContent(size_t one, size_t other) const {
    const HashFacts &a = members_[one].facts->container, &b = members_[other].facts->container;
    return a.done && a == b && !a.digests.empty() && a.unreadable.empty();
  }

  std::optional<size_t> ByPath(const ChainEdge& edge) {
    const bool windows = Id(edge.child).format == "vpc";
    const fs::path folder = FolderOf(File(edge.child).path);
    auto at = [&](const fs::path& path) -> std::optional<size_t> {
      const auto found = by_path_.find(path.lexically_normal().string());
      if (found == by_path_.end()) return std::nullopt;
      return found->second;
    };
    for (const std::string& name : edge.names) {
      if (!IsAFile(name)) continue;
      const std::string path = LocalPath(name, windows);
      if (auto found = at(folder / path)) return found;  // an absolute path stays what it is
      if (!windows) continue;
      if (auto found = at(folder / fs::path(path).relative_path())) return found;
      if (auto found = at(folder / Basename(path))) return found;
    }
    return std::nullopt;
  }

  void ByName(ChainEdge* edge) {
    std::vector<size_t> candidates;
    for (const std::string& name : edge->names) {
      const auto found = by_name_.find(Basename(name));
      if (!IsAFile(name) || found == by_name_.end()) continue;
      for (size_t i : found->second) {
        if (i != edge->child) candidates.push_back(i);
      }
    }
    Among(candidates, FoundBy::kName, edge);
  }

  void Among(std::vector<size_t> candidates, FoundBy by, ChainEdge* edge) {
    std::ranges::sort(candidates);
    candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
    if (candidates.empty()) return;
    // Copies of one file are as good as one another.
    const bool copies = std::ranges::all_of(
        candidates, [&](size_t i) { return i == candidates[0] || SameContent(candidates[0], i); });
    if (!copies) {
      edge->state = LinkState::kAmbiguous;
      edge->candidates = std::move(candidates);
      return;
    }
    Found(candidates.front(), candidates.size() > 1 ? FoundBy::kContent : by, edge);
    edge->troubles.push_back(LinkTrouble::kMoved);
  }

  static void Found(size_t parent, FoundBy by, ChainEdge* edge) {
    edge->state = LinkState::kFound;
    edge->by = by;
    edge->parent = parent;
  }

  void Judge(ChainEdge* edge) {
    const IdentityFacts& child = Id(edge->child);
    const IdentityFacts& parent = Id(*edge->parent);
    auto add = [&](LinkTrouble trouble) { edge->troubles.push_back(trouble); };
    const bool image = IsImage(*edge->parent) && parent.format != "raw";
    const std::string_view is = image ? std::string_view(parent.format) : "raw";
    if (!edge->format.empty() && CanonicalFormat(edge->format) != is) {
      add(LinkTrouble::kFormatMismatch);
    }
    const uint64_t size = image ? parent.virtual_size : parent.file_size;
    if ((!image || parent.examined) && size < child.virtual_size) add(LinkTrouble::kShorter);
    const int64_t written = File(*edge->parent).identity.mtime_ns;
    if (edge->kind == "data-file") return;  // it is written whenever the image is
    if (written > File(edge->child).identity.mtime_ns) add(LinkTrouble::kNewer);
    if (!child.parent_mtime) return;
    const int64_t difference = written / kNanoseconds - *child.parent_mtime;
    const bool vhd = child.format == "vpc";
    if (vhd ? difference > kVhdTolerance : difference != 0) add(LinkTrouble::kEdited);
  }

  // Follows every chain; what comes back to a file of the same walk closes a cycle.
  void FindCycles() {
    enum class Seen : uint8_t { kNot, kNow, kDone };
    std::vector<Seen> seen(members_.size(), Seen::kNot);
    for (size_t start = 0; start < members_.size(); ++start) {
      std::vector<size_t> path;
      std::optional<size_t> at = start;
      while (at && seen[*at] == Seen::kNot) {
        seen[*at] = Seen::kNow;
        path.push_back(*at);
        at = BaseOf(*at);
      }
      if (at && seen[*at] == Seen::kNow) {
        const auto first = std::ranges::find(path, *at);
        for (auto member = first; member != path.end(); ++member) MarkCycle(*member);
      }
      for (size_t member : path) seen[member] = Seen::kDone;
    }
  }
  std::optional<size_t> BaseOf(size_t child) const {
    for (size_t e : graph_.edges_of[child]) {
      if (graph_.edges[e].kind != "data-file") return graph_.edges[e].parent;
    }
    return std::nullopt;
  }
  void MarkCycle(size_t child) {
    for (size_t e : graph_.edges_of[child]) {
      if (graph_.edges[e].kind != "data-file") {
        graph_.edges[e].troubles.push_back(LinkTrouble::kCycle);
      }
    }
  }

  const std::vector<ChainMember>& members_;
  std::map<std::string, std::string> folders_;
  std::map<std::string, size_t> by_path_;
  std::map<std::string, std::vector<size_t>> by_name_, by_id_;
  std::map<std::pair<int64_t, uint64_t>, std::vector<size_t>> by_stamp_;  // seconds, bytes
  ChainGraph graph_;
};

}  // namespace

std::string_view ToText(LinkState state) {
  switch (state) {
    case LinkState::kFound:
      return "found";
    case LinkState::kMissing:
      return "missing";
    case LinkState::kAmbiguous:
      return "ambiguous";
    case LinkState::kNotAFile:
      return "not-a-file";
  }
  return "";
}

std::string_view ToText(FoundBy by) {
  switch (by) {
    case FoundBy::kPath:
      return "path";
    case FoundBy::kId:
      return "id";
    case FoundBy::kContent:
      return "content";
    case FoundBy::kName:
      return "name";
  }
  return "";
}

std::string_view ToText(LinkTrouble trouble) {
  switch (trouble) {
    case LinkTrouble::kMoved:
      return "moved";
    case LinkTrouble::kIdMismatch:
      return "id-mismatch";
    case LinkTrouble::kFormatMismatch:
      return "format-mismatch";
    case LinkTrouble::kShorter:
      return "shorter";
    case LinkTrouble::kNewer:
      return "newer";
    case LinkTrouble::kEdited:
      return "edited";
    case LinkTrouble::kCycle:
      return "cycle";
  }
  return "";
}

ChainGraph LinkChains(const std::vector<ChainMember>& members) { return Linker(members).Run(); }

}  // namespace imgfsck

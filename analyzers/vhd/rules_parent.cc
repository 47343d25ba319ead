// SPDX-License-Identifier: Apache-2.0
// Rows 75 to 82: the parents of a differencing disk, up to the last. Without --chain
// only one question is put to the file system: whether the first candidate exists.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "analyzers/vhd/check.h"
#include "analyzers/vhd/rules.h"
#include "base/text.h"
#include "chain/vhd_parent.h"

namespace imgfsck::vhd {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr int64_t kNanoseconds = 1'000'000'000;

class ParentWalk {
 public:
  ParentWalk(const Image& image, const CheckOptions& options, Findings* out)
      : options_(options), out_(out), child_(&image), child_path_(options.path) {}

  void Run() {
    if (struct stat status = {}; stat(child_path_.c_str(), &status) == 0) {
      seen_.push_back({static_cast<uint64_t>(status.st_dev), static_cast<uint64_t>(status.st_ino),
                       child_->footer.unique_id});
    }
    while (child_->kind == Kind::kDifferencing) {
      auto parent = ResolveParent(*child_, child_path_);
      if (!parent) {
        Add(Problem::kVhdParentUnresolved, Names()).severity = Severity::kCorruption;
        break;
      }
      if (!JudgeLink(*parent)) break;
      child_path_ = parent->path;
      chain_.push_back(std::move(*parent));
      if (chain_.back().image == nullptr) break;  // raw: the end
      child_ = chain_.back().image.get();
    }
    for (Finding& f : findings_) out_->Add(std::move(f));
  }

  // The image itself stands on a raw disk, which has no id.
  bool ParentIsRaw() const { return !chain_.empty() && chain_.front().image == nullptr; }

 private:
  struct Seen {
    uint64_t device, inode;
    UniqueId id;
  };

  Finding& Add(Problem problem, std::string detail) {
    std::string structure = chain_.empty() ? "parent" : fmt::format("parent[{}]", chain_.size());
    Finding f;
    f.problem = problem;
    f.structure = structure;
    f.detail = std::move(detail);
    findings_.push_back(std::move(f));
    return findings_.back();
  }

  std::string Names() const {
    std::string names;
    for (const std::string& name : ParentCandidates(*child_)) {
      names += (names.empty() ? "" : ", ") + Printable(name);
    }
    return names.empty() ? "it has no name" : names;
  }

  // False where the chain ends for us.
  bool JudgeLink(const Parent& parent) {
    std::string name = Printable(parent.path);
    if (parent.fit == ParentFit::kNotAVhd || parent.fit == ParentFit::kOtherId) {
      std::string what = parent.fit == ParentFit::kNotAVhd
                             ? "no VHD"
                             : fmt::format("id {}", HexEncode(parent.image->footer.unique_id));
      Add(Problem::kVhdParentUuidMismatch, fmt::format("{} is {}, the child wants {}", name, what,
                                                       HexEncode(child_->header.parent_id)));
      return false;
    }
    UniqueId id = parent.image ? parent.image->footer.unique_id : UniqueId{};
    bool again = std::ranges::any_of(seen_, [&](const Seen& seen) {
      return (seen.device == parent.identity.device && seen.inode == parent.identity.inode) ||
             (!IsNull(id) && seen.id == id);
    });
    seen_.push_back({parent.identity.device, parent.identity.inode, id});
    if (again || seen_.size() > kMaxDepth) {
      Add(Problem::kVhdParentChainCycle, again ? name : fmt::format("{} links", seen_.size()));
      return false;
    }
    JudgeSize(parent);
    JudgeTime(parent);
    JudgeHealth(parent);
    return true;
  }

  void JudgeSize(const Parent& parent) {
    uint64_t mine = child_->VirtualSize();
    uint64_t theirs = parent.image ? parent.image->VirtualSize() : parent.file->Size();
    if (mine >= theirs) return;
    Add(Problem::kVhdParentSize, fmt::format("{} bytes, the parent has {}", mine, theirs));
  }

  void JudgeTime(const Parent& parent) {
    if (child_->header.parent_timestamp == 0) return;
    int64_t recorded = kEpoch + int64_t{child_->header.parent_timestamp};
    int64_t mtime = parent.identity.mtime_ns / kNanoseconds;
    if (mtime > recorded) {
      Add(Problem::kVhdParentNewerThanChild, fmt::format("{} s later", mtime - recorded));
    } else if (mtime < recorded) {
      Add(Problem::kVhdParentTimestamp, fmt::format("{} s earlier", recorded - mtime));
    }
  }

  void JudgeHealth(const Parent& parent) {
    if (!parent.image) return;
    CheckOptions options = options_;
    options.path = parent.path;
    options.chain = options.deep = false;
    options.profile.clear();
    options.progress = nullptr;
    options.max_findings = 16;
    CheckReport report;
    report.findings = Findings(options.max_findings);
    if (!kVhdChecker.run(*parent.file, options, &report)) return;
    uint64_t bad = report.findings.Units(Severity::kCorruption);
    if (bad == 0) return;
    Add(Problem::kVhdParentBad, fmt::format("{}: {} corruptions", Printable(parent.path), bad))
        .count = bad;
  }

  const CheckOptions& options_;
  Findings* out_;
  const Image* child_;
  std::string child_path_;
  std::vector<Parent> chain_;
  std::vector<Seen> seen_;
  std::vector<Finding> findings_;
};

void LookOnce(const Image& image, const CheckOptions& options, Findings* out) {
  auto candidates = ParentCandidates(image);
  std::erase_if(candidates, [](const std::string& name) { return name.starts_with("//"); });
  struct stat status = {};
  if (!candidates.empty() &&
      stat(BesideFile(options.path, candidates.front()).c_str(), &status) == 0) {
    return;
  }
  Finding f;
  f.problem = Problem::kVhdParentUnresolved;
  f.structure = "parent";
  f.detail = candidates.empty() ? "it has no name" : Printable(candidates.front());
  // With neither name nor id it can never be found.
  if (candidates.empty() && IsNull(image.header.parent_id)) f.severity = Severity::kCorruption;
  out->Add(std::move(f));
}

}  // namespace

void JudgeParent(const Image& image, const CheckOptions& options, Findings* out) {
  if (image.kind != Kind::kDifferencing) return;
  bool raw = false;
  if (options.chain && !options.path.empty()) {
    ParentWalk walk(image, options, out);
    walk.Run();
    raw = walk.ParentIsRaw();
  } else if (!options.path.empty()) {
    LookOnce(image, options, out);
  }
  if (IsNull(image.header.parent_id) && !raw) {
    out->Add(At(Problem::kVhdParentUuidNull, "header", image.header_offset + header_at::kParentId,
                16, "the parent is taken as a raw disk"));
  }
}

}  // namespace imgfsck::vhd

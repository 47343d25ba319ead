// SPDX-License-Identifier: Apache-2.0
#include "analyzers/chain/links.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "analyzers/common/make_finding.h"
#include "base/interrupt.h"
#include "base/text.h"
#include "chain/gate.h"

namespace imgfsck {
namespace {

// One image of the chain: what it names, and how much of a disk it shows.
struct Stage {
  std::string path;
  const Format* format = nullptr;
  uint64_t virtual_size = 0;  // bytes
  std::vector<LinkRow> links;
};

class Walk {
 public:
  explicit Walk(CheckReport* report)
      : out_(&report->findings), of_cow_(report->format->name == "cow"), files_(&report->chain) {}

  Status Run(Stage stage) {
    if (auto top = FileSource::Open(stage.path)) {
      IMG_ASSIGN_OR_RETURN(FileIdentity identity, (*top)->Identity());
      seen_.push_back({identity.device, identity.inode});
    }
    for (depth_ = 0;; ++depth_) {
      IMG_RETURN_IF_ERROR(CheckStop());
      const LinkRow* backing = nullptr;
      for (const LinkRow& link : stage.links) {
        if (link.kind == "data-file") JudgeDataFile(stage, link);
        if (link.kind == "backing") backing = &link;
      }
      if (backing == nullptr) return Ok();
      auto next = Next(stage, *backing);
      if (!next) return Ok();  // what is wrong was said
      stage = std::move(*next);
    }
  }

 private:
  void Add(Problem problem, const Stage& stage, const LinkRow& link, std::string what) {
    Finding f = MakeFinding(problem, "link");
    if (depth_ == 0) {
      f.host = MakeHostRange(link.host_offset, link.length);
    } else {
      what += fmt::format(" (named by {})", Printable(stage.path));
    }
    f.detail = std::move(what);
    out_->Add(std::move(f));
  }

  void JudgeDataFile(const Stage& stage, const LinkRow& link) {
    auto path = ResolveDataFileName(link.name);
    if (!path) return Add(Problem::kChainNameNotFollowed, stage, link, Printable(link.name));
    if (auto file = OpenNamed(*path); !file) {
      Add(Problem::kChainMissing, stage, link, file.error().message);
    }
  }

  std::optional<Stage> Next(const Stage& stage, const LinkRow& link) {
    auto stop = [&](Problem problem, std::string what) {
      Add(problem, stage, link, std::move(what));
      return std::optional<Stage>();
    };
    auto path = ResolveBackingName(stage.path, link.name);
    if (!path) return stop(Problem::kChainNameNotFollowed, Printable(link.name));
    auto file = OpenNamed(*path);
    if (!file) return stop(Problem::kChainMissing, file.error().message);
    auto identity = (*file)->Identity();
    if (!identity) return stop(Problem::kChainMissing, identity.error().message);
    std::pair<uint64_t, uint64_t> key{identity->device, identity->inode};
    if (std::find(seen_.begin(), seen_.end(), key) != seen_.end()) {
      return stop(of_cow_ ? Problem::kCowChainCycle : Problem::kChainCycle, Printable(*path));
    }
    seen_.push_back(key);
    if (seen_.size() > kMostLayers) {
      return stop(of_cow_ ? Problem::kCowChainCycle : Problem::kChainTooDeep,
                  fmt::format("more than {} files", kMostLayers));
    }
    const Format* found = ProbeFormat(**file);
    const Format* format = link.format.empty() ? found : FindFormat(link.format);
    if (format == nullptr && link.format.empty()) format = FindFormat("raw");
    if (format == nullptr || (format->name != "raw" && format != found)) {
      Add(Problem::kChainFormatMismatch, stage, link,
          fmt::format("{}: {} recorded, {} found", Printable(*path), Printable(link.format),
                      found == nullptr ? "nothing known" : found->name));
      return std::nullopt;
    }
    return Enter(stage, link, *path, *format, **file);
  }

  std::optional<Stage> Enter(const Stage& stage, const LinkRow& link, const std::string& path,
                             const Format& format, const FileSource& file) {
    Stage next{path, &format, file.Size(), {}};
    if (format.name != "raw") {
      files_->push_back({path, &format});
      auto rows = format.inspect(file, path);
      if (!rows) {
        Add(Problem::kChainMissing, stage, link, rows.error().message);
        return std::nullopt;
      }
      next.virtual_size = (*rows)->Image().virtual_size;
      next.links = (*rows)->Links();
    }
    if (next.virtual_size < stage.virtual_size) {
      Add(Problem::kChainShort, stage, link,
          fmt::format("{} bytes, the disk above it has {}", next.virtual_size, stage.virtual_size));
    }
    return next;
  }

  Findings* out_;
  bool of_cow_;  // that format has a code of its own for cycles
  std::vector<ImageBelow>* files_;
  std::vector<std::pair<uint64_t, uint64_t>> seen_;  // device and inode
  size_t depth_ = 0;                                 // 0: links of the image itself
};

}  // namespace

Status JudgeChain(const CheckOptions& options, CheckReport* report) {
  if (report->rows == nullptr || options.path.empty()) return Ok();
  Stage top{options.path, report->format, report->virtual_size, report->rows->Links()};
  return Walk(report).Run(std::move(top));
}

}  // namespace imgfsck

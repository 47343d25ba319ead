// SPDX-License-Identifier: Apache-2.0
#include "triage/engine.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "triage/facts_io.h"
#include "triage/layers.h"
#include "triage/names/chain_names.h"
#include "triage/names/guest_names.h"

namespace imgfsck {
namespace {

// Besides the time that any image may take: what the slowest disk reads in a second.
constexpr uint64_t kBytesASecond = 4 * kMiB;
constexpr uint64_t kHashedASecond = 256 * kMiB;         // of what is stored nowhere
constexpr uint64_t kLongestHashed = uint64_t{2} << 40;  // of that
constexpr uint64_t kMostSeconds = 10'000'000;

class Engine {
 public:
  explicit Engine(const TriageSettings& settings) : settings_(settings) {}

  Result<TriageResult> Run() {
    IMG_ASSIGN_OR_RETURN(Inventory inventory, TakeInventory(settings_.paths));
    Take(std::move(inventory));
    IMG_RETURN_IF_ERROR(ExamineAll());
    Conclude(&result_);
    if (settings_.names) IMG_RETURN_IF_ERROR(NameFiles());
    if (settings_.content) IMG_RETURN_IF_ERROR(HashDisks());
    if (settings_.verify_untouched) IMG_RETURN_IF_ERROR(VerifyUntouched());
    return std::move(result_);
  }

 private:
  void Take(Inventory inventory) {
    result_.policy = settings_.policy;
    result_.fail_on = settings_.fail_on;
    result_.max_findings = settings_.examine.max_findings;
    result_.errors = std::move(inventory.errors);
    result_.directories = inventory.directories;
    result_.symlinks = inventory.symlinks;
    result_.specials = inventory.specials;
    for (FoundFile& file : inventory.files) {
      result_.files.emplace_back().file = std::move(file);
    }
  }

  PoolOptions Pool(std::string_view phase, size_t items,
                   std::function<uint64_t(size_t item)> bytes_of) const {
    PoolOptions pool;
    pool.jobs = settings_.jobs;
    pool.sandbox = settings_.sandbox;
    pool.limits_of = [this, bytes_of = std::move(bytes_of)](size_t item) {
      WorkerLimits limits = settings_.limits;
      const uint64_t more = settings_.limit_time ? 0 : bytes_of(item) / kBytesASecond;
      limits.seconds += static_cast<unsigned>(std::min(more, kMostSeconds));
      return limits;
    };
    if (settings_.progress) {
      pool.progress = [this, phase, items](size_t done) { settings_.progress(phase, done, items); };
    }
    return pool;
  }

  // Of a block device nobody says how much it stores.
  static uint64_t StoredOf(const FoundFile& file) {
    return file.block_device ? file.identity.size : file.stored;
  }
  // What is hashed as one stream at most, of this file or its disk.
  uint64_t LongestHashed(const FoundFile& file) const {
    return settings_.limit_time ? UINT64_MAX : SaturatingAdd(StoredOf(file), kLongestHashed);
  }
  // What hashing adds to what examining is given time for, as bytes of it.
  uint64_t ForHashing(const FoundFile& file, uint64_t size) const {
    if (!settings_.examine.hash.any()) return 0;
    return std::min(size, LongestHashed(file)) / (kHashedASecond / kBytesASecond);
  }

  // Cores that nobody else uses when there are fewer items than cores.
  unsigned ThreadsFor(size_t items) const {
    return static_cast<unsigned>(std::max<size_t>(1, settings_.jobs / std::max<size_t>(1, items)));
  }

  Status ExamineAll() {
    std::vector<TriagedFile>& files = result_.files;
    ExamineOptions examine = settings_.examine;
    examine.threads = examine.hash.threads = ThreadsFor(files.size());
    const PoolOptions pool = Pool("examining", files.size(), [&](size_t i) {
      const FoundFile& file = files[i].file;
      return SaturatingAdd(StoredOf(file), ForHashing(file, file.identity.size));
    });
    return RunWorkers(
        files.size(), pool,
        [&](size_t i, Sender& sender) {
          if (!settings_.orphan_folder.empty()) {
            examine.orphans = OrphanPath(settings_.orphan_folder, i);
          }
          if (!settings_.model_folder.empty()) {
            examine.model = ModelPath(settings_.model_folder, i);
            examine.image_id = static_cast<int64_t>(i) + 1;
          }
          examine.hash.longest = LongestHashed(files[i].file);
          Examine(files[i].file, examine, sender);
        },
        [&](size_t i, WorkerOutcome outcome) { files[i].facts = FactsOf(outcome); });
  }

  // Hashes in workers: `hash` for each of `files`, into what `into` says.
  Status HashEach(std::string_view phase, const std::vector<size_t>& files,
                  const std::function<Result<HashFacts>(size_t file, const HashOptions&)>& hash,
                  const std::function<HashFacts&(size_t file)>& into) {
    HashOptions options = settings_.examine.hash;
    options.threads = ThreadsFor(files.size());
    const PoolOptions pool = Pool(phase, files.size(), [&](size_t i) {
      const TriagedFile& file = result_.files[files[i]];
      const uint64_t size = std::max(file.file.identity.size, file.facts.identity.virtual_size);
      return SaturatingAdd(StoredOf(file.file), ForHashing(file.file, size));
    });
    return RunWorkers(
        files.size(), pool,
        [&](size_t i, Sender& sender) {
          HashFacts facts;
          options.longest = LongestHashed(result_.files[files[i]].file);
          if (auto done = hash(files[i], options)) {
            facts = std::move(*done);
          } else {
            facts.trouble = done.error().message;
          }
          Packer packer;
          packer(facts);
          sender.Send(0, packer.bytes());
        },
        [&](size_t i, WorkerOutcome outcome) {
          HashFacts& facts = into(files[i]);
          if (outcome.end == WorkerEnd::kDone && outcome.messages.size() == 1) {
            Unpacker unpacker(outcome.messages[0].bytes);
            unpacker(facts);
            if (unpacker.complete()) return;
          }
          facts = {};
          facts.trouble = "the worker " + std::string(ToText(outcome.end));
        });
  }

  // What of the active disk findings and unclaimed bytes concern.
  static std::vector<GuestRange> RangesToName(const ImageFacts& facts) {
    std::vector<GuestRange> ranges;
    for (const Finding& finding : facts.check.findings) {
      if (!finding.guest || finding.severity_or_default() == Severity::kInfo) continue;
      if (finding.layer.empty() || finding.layer == kActiveLayer) ranges.push_back(*finding.guest);
      for (const Claimant& claimant : finding.also) {
        if (claimant.guest && claimant.layer == kActiveLayer) ranges.push_back(*claimant.guest);
      }
    }
    for (const Remnant& remnant : facts.remnants.remnants) {
      if (remnant.guest_offset) {
        ranges.push_back(MakeGuestRange(*remnant.guest_offset, remnant.length));
      }
    }
    return ranges;
  }

  // Findings and unclaimed bytes of which only the number was kept have ranges, too.
  static bool AreAllListed(const ImageFacts& facts) {
    uint64_t findings = 0;
    for (uint64_t count : facts.check.findings_by_severity) findings += count;
    return findings <= facts.check.findings.size() &&
           facts.remnants.count <= facts.remnants.remnants.size();
  }

  NameFacts NamesIn(size_t index) const {
    NameFacts facts;
    const auto layers = LayersOf(result_, index);
    if (!layers) {
      facts.trouble = layers.error().message;
      return facts;
    }
    const auto chain = OpenLayers(*layers);
    if (!chain) {
      facts.trouble = chain.error().message;
      return facts;
    }
    return NamesOfChain(**chain, {RangesToName(result_.files[index].facts), {}}, true);
  }

  // In workers of their own: a crash in code for file systems costs the names and nothing else.
  Status NameFiles() {
    std::vector<size_t> images;
    for (size_t i = 0; i < result_.files.size(); ++i) {
      const TriagedFile& file = result_.files[i];
      if (!file.is_image() || !file.facts.identity.examined) continue;
      const bool bitmaps = !file.facts.identity.bitmaps.empty();
      if (bitmaps || !RangesToName(file.facts).empty()) images.push_back(i);
    }
    if (!images.empty()) CanNameFiles();  // the workers are too well locked up to load a library
    const PoolOptions pool = Pool("naming files", images.size(),
                                  [&](size_t i) { return result_.files[images[i]].file.stored; });
    return RunWorkers(
        images.size(), pool,
        [&](size_t i, Sender& sender) {
          NameFacts facts = NamesIn(images[i]);
          Packer packer;
          packer(facts);
          sender.Send(0, packer.bytes());
        },
        [&](size_t i, WorkerOutcome outcome) {
          ImageFacts& image = result_.files[images[i]].facts;
          NameFacts& facts = image.names;
          if (outcome.end == WorkerEnd::kDone && outcome.messages.size() == 1) {
            Unpacker unpacker(outcome.messages[0].bytes);
            unpacker(facts);
            facts.more = facts.more || !AreAllListed(image);
            if (unpacker.complete()) return;
          }
          facts = {};
          facts.trouble = "the worker " + std::string(ToText(outcome.end));
        });
  }

  Status HashDisks() {
    std::vector<size_t> images;
    for (size_t i = 0; i < result_.files.size(); ++i) {
      const TriagedFile& file = result_.files[i];
      if (file.is_image() && file.facts.identity.examined) images.push_back(i);
    }
    return HashEach(
        "hashing disks", images,
        [&](size_t i, const HashOptions& options) -> Result<HashFacts> {
          IMG_ASSIGN_OR_RETURN(const auto layers, LayersOf(result_, i));
          IMG_ASSIGN_OR_RETURN(const auto chain, OpenLayers(layers));
          return Hash(HashSourceOf(chain->driver()), options);
        },
        [&](size_t i) -> HashFacts& { return result_.files[i].facts.content; });
  }

  // Every file once more, and the same as before?
  Status VerifyUntouched() {
    std::vector<size_t> files;
    for (size_t i = 0; i < result_.files.size(); ++i) {
      if (result_.files[i].facts.container.done) files.push_back(i);
    }
    std::vector<HashFacts> again(result_.files.size());
    IMG_RETURN_IF_ERROR(HashEach(
        "hashing again", files,
        [&](size_t i, const HashOptions& options) -> Result<HashFacts> {
          const FoundFile& found = result_.files[i].file;
          IMG_ASSIGN_OR_RETURN(const auto file, FileSource::Open(found.path));
          IMG_ASSIGN_OR_RETURN(FileIdentity now, file->Identity());
          if (found.block_device) now.size = found.identity.size;
          if (now != found.identity) {
            return Error{ErrorCode::kConflict, "its size, times or place are others", {}};
          }
          return Hash(HashSourceOf(*file), options);
        },
        [&](size_t i) -> HashFacts& { return again[i]; }));
    for (size_t i : files) {
      TriagedFile& file = result_.files[i];
      const bool same = again[i] == file.facts.container;
      file.untouched = same;
      if (same) continue;
      file.facts.reasons.push_back({ReasonCode::kChanged, 0, 0, {}, again[i].trouble});
      SortReasons(&file.facts.reasons);
      file.verdict = Judge(file.facts.reasons, result_.policy);
    }
    return Ok();
  }

  const TriageSettings& settings_;
  TriageResult result_;
};

}  // namespace

std::string OrphanPath(const std::string& folder, size_t index) {
  return fmt::format("{}/{:06}", folder, index + 1);
}

std::string ModelPath(const std::string& folder, size_t index) {
  return folder + "/" + std::to_string(index) + ".db";
}

Result<TriageResult> RunTriage(const TriageSettings& settings) { return Engine(settings).Run(); }

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
#include "tools/imgdump/diff.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "base/interrupt.h"
#include "base/json_writer.h"
#include "base/text.h"
#include "chain/chain.h"
#include "report/words.h"
#include "tools/common/sandbox.h"
#include "tools/common/terminal.h"
#include "tools/imgdump/diff_names.h"

namespace imgfsck {
namespace {

constexpr uint64_t kStep = 256 * kKiB;        // compared at a time
constexpr uint64_t kSalvageStep = 16 * kKiB;  // where something cannot be read
constexpr size_t kMostNamed = 1'000'000;      // ranges; further ones are listed without names

// What became of a range of the other disk.
enum class Change : uint8_t { kWritten, kChanged, kErased, kUnreadable, kEnd };
constexpr std::array<std::string_view, static_cast<size_t>(Change::kEnd)> kWords = {
    "written", "changed", "erased", "unreadable"};

// One of the two disks. Behind its end it is zeros.
class Disk {
 public:
  static Result<Disk> Open(const std::string& path, const ChainOptions& options) {
    Disk disk;
    IMG_ASSIGN_OR_RETURN(disk.chain_, Chain::Open(path, options));
    for (const auto& layer : disk.chain_->layers()) {
      struct stat info = {};
      if (fstat(layer->fd(), &info) != 0) return ErrorFromErrno(errno, "stat");
      const bool apart = layer->data_source != nullptr;  // its offsets are of another file
      disk.files_.push_back(apart ? File{} : File{info.st_dev, info.st_ino, true});
    }
    return disk;
  }

  uint64_t size() const { return chain_->driver().VirtualSize(); }

  // What is known of the bytes from `offset` on without reading them.
  struct Run {
    uint64_t length = 0;
    bool zero = false;
    std::optional<uint64_t> host;  // where they lie in…
    dev_t device = 0;
    ino_t inode = 0;
    bool SamePlace(const Run& other) const {
      return host && other.host && *host == *other.host && device == other.device &&
             inode == other.inode;
    }
  };
  Run RunAt(uint64_t offset, uint64_t limit) {
    if (offset >= size()) return {limit, true, {}, 0, 0};
    limit = std::min(limit, size() - offset);
    auto status = chain_->StatusAt(offset, limit);
    if (!status || status->status.length == 0) return {std::min(limit, kStep), false, {}, 0, 0};
    const BlockStatus& block = status->status;
    Run run;
    run.length = std::min(block.length, limit);
    run.zero = block.state == MappingState::kZero || block.state == MappingState::kUnallocated;
    const File& file = files_[status->depth];
    if (block.state == MappingState::kData && file.known) {
      run.host = block.host_offset;
      run.device = file.device;
      run.inode = file.inode;
    }
    return run;
  }

  bool Read(uint64_t offset, MutableBytes buffer) {
    const uint64_t inside =
        offset < size() ? std::min<uint64_t>(buffer.size(), size() - offset) : 0;
    std::ranges::fill(buffer.subspan(inside), uint8_t{0});
    return inside == 0 || chain_->driver().Read(offset, buffer.first(inside)).has_value();
  }

 private:
  struct File {
    dev_t device = 0;
    ino_t inode = 0;
    bool known = false;
  };
  std::unique_ptr<Chain> chain_;
  std::vector<File> files_;  // of each layer
};

class Comparison {
 public:
  // `names`: null without them.
  Comparison(const ImgdumpOptions& options, Disk before, Disk after, DiffNames* names,
             TextWriter& out)
      : options_(options),
        names_(names),
        named_(names != nullptr),
        before_(std::move(before)),
        after_(std::move(after)),
        out_(out),
        json_(out),
        progress_("imgdump", options.progress) {}

  Status Run() {
    const uint64_t size = std::max(before_.size(), after_.size());
    Begin();
    progress_.Start(options_.image);
    for (uint64_t at = 0; at < size;) {
      IMG_RETURN_IF_ERROR(CheckStop());
      const Disk::Run a = before_.RunAt(at, size - at), b = after_.RunAt(at, size - at);
      uint64_t length = std::min(a.length, b.length);
      if (!(a.zero && b.zero) && !a.SamePlace(b)) {
        length = std::min(length, kStep);
        Compare(at, length);
      }
      at += length;
      progress_.Update("compared", at, size);
    }
    Put();
    Name();
    progress_.Clear();
    End();
    return Ok();
  }

 private:
  void Compare(uint64_t offset, uint64_t length) {
    const MutableBytes a = MutableBytes(left_).first(length),
                       b = MutableBytes(right_).first(length);
    if (before_.Read(offset, a) && after_.Read(offset, b)) return CompareBytes(offset, a, b);
    for (uint64_t done = 0; done < length; done += kSalvageStep) {
      const uint64_t step = std::min(kSalvageStep, length - done);
      if (before_.Read(offset + done, a.first(step)) && after_.Read(offset + done, b.first(step))) {
        CompareBytes(offset + done, a.first(step), b.first(step));
      } else {
        Add(offset + done, step, Change::kUnreadable);
      }
    }
  }

  // Sector by sector, where the whole is not the same.
  void CompareBytes(uint64_t offset, Bytes a, Bytes b) {
    if (std::memcmp(a.data(), b.data(), a.size()) == 0) return;
    for (uint64_t done = 0; done < a.size(); done += kSector) {
      const uint64_t step = std::min<uint64_t>(kSector, a.size() - done);
      const Bytes old = a.subspan(done, step), now = b.subspan(done, step);
      if (std::memcmp(old.data(), now.data(), step) == 0) continue;
      Add(offset + done, step,
          AllZero(old)   ? Change::kWritten
          : AllZero(now) ? Change::kErased
                         : Change::kChanged);
    }
  }

  void Add(uint64_t offset, uint64_t length, Change change) {
    bytes_[static_cast<size_t>(change)] += length;
    if (length_ > 0 && change_ == change && offset_ + length_ == offset) {
      length_ += length;
      return;
    }
    Put();
    offset_ = offset;
    length_ = length;
    change_ = change;
  }

  void Put() {
    if (length_ == 0) return;
    ++ranges_;
    const Difference difference{MakeGuestRange(offset_, length_), change_};
    length_ = 0;
    if (!named_) return Write(difference);
    kept_.push_back(difference);
    if (kept_.size() == kMostNamed) Name();
  }

  // Writes what was kept, with its names; what comes later has none.
  void Name() {
    if (!named_) return;
    std::vector<GuestRange> ranges;
    for (const Difference& each : kept_) ranges.push_back(each.range);
    progress_.Start("naming files");
    names_->Look(ranges);
    for (const Difference& each : kept_) Write(each);
    kept_.clear();
    named_ = false;
  }

  struct Difference {
    GuestRange range;
    Change change{};
  };

  void Write(const Difference& each) {
    const std::string_view word = kWords[static_cast<size_t>(each.change)];
    if (options_.json) {
      json_.BeginObject();
      json_.Member("guest-offset", each.range.offset.value);
      json_.Member("guest-length", each.range.length);
      json_.Member("change", word);
      if (named_) names_->PutJson(each.range, json_);
      json_.EndObject();
    } else {
      progress_.Clear();
      out_.Put(
          fmt::format("{:10}  {}\n", word, RangeText(each.range.offset.value, each.range.length)));
      if (named_) names_->PutText(each.range, out_);
    }
  }

  void Begin() {
    if (!options_.json) return;
    json_.BeginObject();
    json_.Member("filename", options_.image);
    json_.Member("before", options_.diff);
    json_.Member("virtual-size", after_.size());
    json_.Member("virtual-size-before", before_.size());
    json_.Key("differences");
    json_.BeginArray();
  }
  void End() {
    if (options_.json) {
      json_.EndArray();
      for (size_t i = 0; i < kWords.size(); ++i) {
        json_.Member(std::string(kWords[i]) + "-bytes", bytes_[i]);
      }
      if (names_ != nullptr) names_->EndJson(json_);
      json_.EndObject();
      out_.Put('\n');
      return;
    }
    if (before_.size() != after_.size()) {
      out_.Put(fmt::format("the disk had {} bytes and has {}\n", before_.size(), after_.size()));
    }
    if (ranges_ == 0) {
      out_.Put("the disks read the same\n");
      return;
    }
    std::string line = Plural(ranges_, "range", "ranges");
    for (size_t i = 0; i < kWords.size(); ++i) {
      if (bytes_[i] > 0) line += fmt::format(", {} {}", HumanSize(bytes_[i]), kWords[i]);
    }
    out_.Put(line + "\n");
    if (names_ != nullptr) names_->EndText(out_);
  }

  const ImgdumpOptions& options_;
  DiffNames* names_;
  bool named_;  // what is written has names
  std::vector<Difference> kept_;
  Disk before_, after_;
  TextWriter& out_;
  JsonWriter json_;
  Progress progress_;
  ByteVector left_ = ByteVector(kStep), right_ = ByteVector(kStep);
  uint64_t offset_ = 0, length_ = 0, ranges_ = 0;
  Change change_{};
  std::array<uint64_t, static_cast<size_t>(Change::kEnd)> bytes_{};
};

}  // namespace

Status ShowDifferences(const ImgdumpOptions& options, TextWriter& out) {
  const SandboxLevel sandbox = UsableSandbox("imgdump", options.sandbox());
  std::optional<DiffNames> names;
  if (options.names) {
    IMG_ASSIGN_OR_RETURN(names, DiffNames::Start(options, sandbox));
  }
  PutOnSandbox("imgdump", sandbox, names ? names->fd() : -1);
  ChainOptions chain;
  chain.snapshot = options.diff_snapshot;
  chain.format = options.diff_format;
  IMG_ASSIGN_OR_RETURN(Disk before, Disk::Open(options.diff, chain));
  chain.snapshot = options.snapshot;
  chain.format = options.format;
  IMG_ASSIGN_OR_RETURN(Disk after, Disk::Open(options.image, chain));
  return Comparison(options, std::move(before), std::move(after), names ? &*names : nullptr, out)
      .Run();
}

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
// The walk: partitions, in each its file system, in that every name that is in use, and of every
// file the runs of blocks. A run that overlaps a wanted range is a hit. What is wanted and no file
// owns is the file system's own or free, as its maps of blocks say.
#ifdef IMGFSCK_HAVE_TSK
#include <fmt/format.h>

#include <map>
#include <memory>

#include "base/checked.h"
#include "base/interrupt.h"
#include "triage/content.h"
#include "triage/names/guest_names.h"
#include "triage/names/tsk_disk.h"
#include "triage/names/tsk_library.h"
#include "triage/names/wanted.h"

namespace imgfsck {
namespace {

constexpr uint64_t kMostBlockLooks = 1 << 20;  // blocks whose state is looked up, of a volume
constexpr uint64_t kMostRecords = 1 << 16;     // records of the $MFT, of one wanted range

struct FsCloser {
  void operator()(TSK_FS_INFO* fs) const { Tsk()->fs_close(fs); }
};
using Fs = std::unique_ptr<TSK_FS_INFO, FsCloser>;

std::string LastError() {
  const char* text = Tsk()->error_get();
  return text == nullptr ? "it cannot be read" : text;
}

class VolumeNames {
 public:
  VolumeNames(TskDisk& disk, TSK_FS_INFO* fs, uint32_t volume, const WantedRanges& wanted,
              size_t most_hits, NameFacts* facts)
      : disk_(disk),
        fs_(fs),
        base_(static_cast<uint64_t>(fs->offset)),
        block_(fs->block_size),
        volume_(volume),
        wanted_(wanted),
        most_hits_(most_hits),
        facts_(facts) {}

  void Run(GuestVolume* volume) {
    const uint64_t end = SaturatingAdd(volume->offset, volume->length);
    if (!wanted_.Any(volume->offset, end) || block_ == 0) return;
    if (TSK_FS_TYPE_ISNTFS(fs_->ftype)) FindResidents();
    Tsk()->error_reset();
    const auto flags = static_cast<TSK_FS_DIR_WALK_FLAG_ENUM>(
        TSK_FS_DIR_WALK_FLAG_ALLOC | TSK_FS_DIR_WALK_FLAG_RECURSE | TSK_FS_DIR_WALK_FLAG_NOORPHAN);
    if (Tsk()->fs_dir_walk(fs_, fs_->root_inum, flags, Visit, this) != 0) {
      volume->trouble = LastError();
    }
    NameTheRest(volume->offset, end);
  }

 private:
  static TSK_WALK_RET_ENUM Visit(TSK_FS_FILE* file, const char* path, void* self) {
    return static_cast<VolumeNames*>(self)->VisitFile(file, path);
  }

  TSK_WALK_RET_ENUM VisitFile(TSK_FS_FILE* file, const char* folder) {
    if (StopRequested() || facts_->more) return TSK_WALK_STOP;
    if (file->name == nullptr || file->name->name == nullptr || TSK_FS_ISDOT(file->name->name)) {
      return TSK_WALK_CONT;
    }
    std::string path = "/";
    if (folder != nullptr) path += folder;
    path += file->name->name;
    if (file->meta == nullptr) return TSK_WALK_CONT;
    if (const auto record = residents_.find(file->meta->addr); record != residents_.end()) {
      Add(record->second, record->second + record_size_, NameKind::kResident, path, std::nullopt);
    }
    const int attributes = Tsk()->fs_file_attr_getsize(file);
    for (int i = 0; i < attributes; ++i) {
      const TSK_FS_ATTR* attribute = Tsk()->fs_file_attr_get_idx(file, i);
      if (attribute != nullptr && (attribute->flags & TSK_FS_ATTR_NONRES) != 0) {
        VisitAttribute(*attribute, path);
      }
    }
    Tsk()->error_reset();
    return TSK_WALK_CONT;
  }

  void VisitAttribute(const TSK_FS_ATTR& attribute, const std::string& path) {
    const bool tree = attribute.type == TSK_FS_ATTR_TYPE_UNIX_INDIR ||
                      attribute.type == TSK_FS_ATTR_TYPE_UNIX_EXTENT;
    const bool stream = attribute.type == TSK_FS_ATTR_TYPE_NTFS_DATA && attribute.name != nullptr &&
                        attribute.name[0] != '\0';
    for (const TSK_FS_ATTR_RUN* run = attribute.nrd.run; run != nullptr; run = run->next) {
      // A filler stands for what was not found, a sparse run for zeros: neither lies anywhere.
      if ((run->flags & (TSK_FS_ATTR_RUN_FLAG_FILLER | TSK_FS_ATTR_RUN_FLAG_SPARSE)) != 0) continue;
      // The length of a run of extent blocks is wrong in the library.
      const uint64_t length = attribute.type == TSK_FS_ATTR_TYPE_UNIX_EXTENT ? 1 : run->len;
      const auto [begin, end] = RangeOf(run->addr, length);
      if (tree) {
        Add(begin, end, NameKind::kMetadata, path, std::nullopt);
      } else {
        const uint64_t start = SaturatingMul(run->offset, block_);
        Add(begin, end, NameKind::kFile, stream ? fmt::format("{}:{}", path, attribute.name) : path,
            start - std::min<uint64_t>(start, attribute.nrd.skiplen));
      }
    }
  }

  std::pair<uint64_t, uint64_t> RangeOf(uint64_t address, uint64_t blocks) const {
    const uint64_t begin = SaturatingAdd(base_, SaturatingMul(address, block_));
    return {begin, SaturatingAdd(begin, SaturatingMul(blocks, block_))};
  }

  void Add(uint64_t begin, uint64_t end, NameKind kind, const std::string& path,
           std::optional<uint64_t> file_offset) {
    wanted_.Overlaps(begin, end, [&](uint64_t from, uint64_t to) {
      if (facts_->hits.size() >= most_hits_) {
        facts_->more = true;
        return;
      }
      NameHit hit{MakeGuestRange(from, to - from), volume_, kind, path, std::nullopt};
      if (file_offset) hit.file_offset = SaturatingAdd(*file_offset, from - begin);
      facts_->hits.push_back(std::move(hit));
      named_.push_back(MakeGuestRange(from, to - from));
    });
  }

  // Small files of NTFS lie in their records. Which records are wanted, and where each lies.
  void FindResidents() {
    uint8_t boot[512];
    disk_.Read(base_, boot);
    const auto clusters = static_cast<int8_t>(boot[0x40]);
    record_size_ = clusters > 0                     ? static_cast<uint64_t>(clusters) * block_
                   : clusters > -31 && clusters < 0 ? uint64_t{1} << -clusters
                                                    : 0;
    if (record_size_ < 256 || record_size_ > 64 * kKiB) return;
    const std::unique_ptr<TSK_FS_FILE, decltype(Tsk()->fs_file_close)> table(
        Tsk()->fs_file_open_meta(fs_, nullptr, 0), Tsk()->fs_file_close);
    if (table == nullptr) return Tsk()->error_reset();
    const TSK_FS_ATTR* data =
        Tsk()->fs_file_attr_get_type(table.get(), TSK_FS_ATTR_TYPE_NTFS_DATA, 0, 0);
    if (data == nullptr || (data->flags & TSK_FS_ATTR_NONRES) == 0) return Tsk()->error_reset();
    for (const TSK_FS_ATTR_RUN* run = data->nrd.run; run != nullptr; run = run->next) {
      if ((run->flags & (TSK_FS_ATTR_RUN_FLAG_FILLER | TSK_FS_ATTR_RUN_FLAG_SPARSE)) != 0) continue;
      const auto [begin, end] = RangeOf(run->addr, run->len);
      const uint64_t start = SaturatingMul(run->offset, block_);
      wanted_.Overlaps(begin, end, [&, first = begin](uint64_t from, uint64_t to) {
        uint64_t record = (start + (from - first)) / record_size_;
        const uint64_t stop = std::min(DivRoundUp(start + (to - first), record_size_),
                                       SaturatingAdd(record, kMostRecords));
        for (; record < stop; ++record) {
          residents_.emplace(record, first + (record * record_size_ - start));
        }
      });
    }
  }

  // What is wanted and has no name yet.
  void NameTheRest(uint64_t begin, uint64_t end) {
    const WantedRanges named(std::move(named_));
    uint64_t looks = 0;
    wanted_.Overlaps(begin, end, [&](uint64_t from, uint64_t to) {
      uint64_t at = from;
      auto gap = [&](uint64_t stop) {
        if (at < stop) NameGap(at, stop, &looks);
      };
      named.Overlaps(from, to, [&](uint64_t used, uint64_t used_end) {
        gap(used);
        at = std::max(at, used_end);
      });
      gap(to);
    });
  }

  void NameGap(uint64_t begin, uint64_t end, uint64_t* looks) {
    std::optional<NameKind> kind;
    uint64_t start = begin;
    for (uint64_t at = begin; at < end;) {
      if (++*looks > kMostBlockLooks || StopRequested()) return;
      const uint64_t block = (at - base_) / block_;
      const uint64_t next = std::min(end, base_ + (block + 1) * block_);
      const NameKind now = StateOf(block);
      if (kind && now != *kind) {
        Put(start, at, *kind);
        start = at;
      }
      kind = now;
      at = next;
    }
    if (kind) Put(start, end, *kind);
  }

  NameKind StateOf(uint64_t block) {
    if (block > fs_->last_block_act) return NameKind::kUnallocated;
    const TSK_FS_BLOCK_FLAG_ENUM flags = fs_->block_getflags(fs_, block);
    Tsk()->error_reset();
    return (flags & TSK_FS_BLOCK_FLAG_UNALLOC) != 0 ? NameKind::kUnallocated : NameKind::kMetadata;
  }

  void Put(uint64_t begin, uint64_t end, NameKind kind) {
    if (facts_->hits.size() >= most_hits_) {
      facts_->more = true;
      return;
    }
    facts_->hits.push_back({MakeGuestRange(begin, end - begin), volume_, kind, "", std::nullopt});
  }

  TskDisk& disk_;
  TSK_FS_INFO* fs_;
  const uint64_t base_, block_;
  const uint32_t volume_;
  const WantedRanges& wanted_;
  const size_t most_hits_;
  NameFacts* facts_;
  uint64_t record_size_ = 0;
  std::map<uint64_t, uint64_t> residents_;  // number of a record -> its place on the disk
  std::vector<GuestRange> named_;
};

class DiskNames {
 public:
  DiskNames(const GuestDisk& disk, std::vector<GuestRange> wanted, size_t most_hits)
      : disk_(disk), wanted_(std::move(wanted)), most_hits_(most_hits) {}

  NameFacts Run() {
    if (!Volume(0, disk_.size(), true)) {
      Partitions(TSK_VS_TYPE_GPT);
      if (facts_.volumes.empty()) Partitions(TSK_VS_TYPE_DOS);
      if (facts_.volumes.empty()) Volume(0, disk_.size(), false);
    }
    facts_.faulted = disk_.TakeFaults();
    std::ranges::stable_sort(facts_.hits, {},
                             [](const NameHit& hit) { return hit.range.offset.value; });
    facts_.done = true;
    return std::move(facts_);
  }

 private:
  void Partitions(TSK_VS_TYPE_ENUM type) {
    Tsk()->error_reset();
    const std::unique_ptr<TSK_VS_INFO, decltype(Tsk()->vs_close)> table(
        Tsk()->vs_open(disk_.get(), 0, type), Tsk()->vs_close);
    if (table == nullptr) return;
    for (TSK_PNUM_T i = 0; i < table->part_count && !StopRequested(); ++i) {
      const TSK_VS_PART_INFO* part = Tsk()->vs_part_get(table.get(), i);
      if (part == nullptr || (part->flags & TSK_VS_PART_FLAG_ALLOC) == 0) continue;
      const uint64_t offset = SaturatingMul(part->start, table->block_size);
      const uint64_t length = SaturatingMul(part->len, table->block_size);
      if (offset >= disk_.size()) continue;
      Volume(offset, std::min(length, disk_.size() - offset), false);
    }
  }

  // Looks at the file system there. False when there is none and `only_known` asked for one.
  bool Volume(uint64_t offset, uint64_t length, bool only_known) {
    GuestVolume volume{offset, length, "", false, ""};
    Fs fs;
    for (TSK_FS_TYPE_ENUM type :
         {TSK_FS_TYPE_NTFS_DETECT, TSK_FS_TYPE_FAT_DETECT, TSK_FS_TYPE_EXT_DETECT}) {
      Tsk()->error_reset();
      fs.reset(Tsk()->fs_open_img(disk_.get(), static_cast<TSK_OFF_T>(offset), type));
      if (fs != nullptr) break;
    }
    if (fs == nullptr) {
      if (only_known) return false;
      volume.type = Known(offset, length);
      volume.trouble = "not mapped";
      facts_.volumes.push_back(std::move(volume));
      return true;
    }
    if (const char* name = Tsk()->fs_type_toname(fs->ftype)) volume.type = name;
    volume.mapped = true;
    VolumeNames(disk_, fs.get(), static_cast<uint32_t>(facts_.volumes.size()), wanted_, most_hits_,
                &facts_)
        .Run(&volume);
    facts_.volumes.push_back(std::move(volume));
    return true;
  }

  std::string Known(uint64_t offset, uint64_t length) {
    const auto matches = RecognizeDisk(
        length, [&](uint64_t at, MutableBytes buffer) { disk_.Read(offset + at, buffer); });
    for (const ContentMatch& match : matches) {
      if (match.kind == ContentKind::kFileSystem) return std::string(match.name);
    }
    return "";
  }

  TskDisk disk_;
  WantedRanges wanted_;
  const size_t most_hits_;
  NameFacts facts_;
};

}  // namespace

bool CanNameFiles() { return Tsk() != nullptr; }

NameFacts NameRanges(const GuestDisk& disk, std::vector<GuestRange> wanted, size_t most_hits) {
  if (CanNameFiles()) return DiskNames(disk, std::move(wanted), most_hits).Run();
  NameFacts facts;
  facts.trouble = "The Sleuth Kit's library (" IMGFSCK_TSK_SONAME ") cannot be loaded";
  return facts;
}

}  // namespace imgfsck
#endif  // IMGFSCK_HAVE_TSK

// SPDX-License-Identifier: Apache-2.0
// imgio convert: a disk into a new image of any format that can be written.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "base/parallel.h"
#include "base/text.h"
#include "chain/composed.h"
#include "io/bad_ranges.h"
#include "tools/imgio/commands.h"
#include "tools/imgio/copy.h"
#include "tools/imgio/new_backing.h"

namespace imgfsck {
namespace {

// The image that is written: a new one, or (-n) one that exists.
struct Target {
  std::unique_ptr<NewFile> file, data;
  std::unique_ptr<Chain> base;  // -B: what the new image does not hold is there
  std::unique_ptr<Driver> driver;
  std::unique_ptr<Chain> existing;
  Driver& get() { return existing ? existing->driver() : *driver; }
};

Status OpenBase(const ImgioOptions& o, const Format& format, CreateOptions* set, Target* target) {
  if (!HasCreateOption(format, "backing_file")) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("images of format {} have no backing file", format.name),
                 {}};
  }
  IMG_ASSIGN_OR_RETURN(target->base, OpenNewBacking(o, o.words[1], format, *set));
  return NoteNewBacking(*target->base, o.words[1], format, set);
}

Status MakeTarget(const ImgioOptions& o, const Format& format, uint64_t size, Target* target) {
  IMG_ASSIGN_OR_RETURN(CreateOptions set, FormatOptions(o));
  if (set.contains("backing_file")) IMG_RETURN_IF_ERROR(OpenBase(o, format, &set, target));
  IMG_ASSIGN_OR_RETURN(target->file, NewFile::Create(o.words[1], o.force));
  OpenOptions open;
  open.writable = true;
  open.path = o.words[1];
  if (auto name = set.find("data_file"); name != set.end()) {
    IMG_ASSIGN_OR_RETURN(std::string path, ResolveDataFileName(name->second));
    IMG_ASSIGN_OR_RETURN(target->data, NewFile::Create(path, o.force));
    IMG_RETURN_IF_ERROR(target->data->store().SetSize(size));
    open.data_store = &target->data->store();
  }
  if (set.contains("passphrase")) open.passphrase = set["passphrase"];
  ByteStore& store = target->file->store();
  IMG_RETURN_IF_ERROR(format.create(store, size, set));
  IMG_ASSIGN_OR_RETURN(target->driver, format.open(store, &store, open));
  if (target->base) target->driver->SetBackingReader(ReaderOver(target->base->driver()));
  return Ok();
}

Status OpenExisting(const ImgioOptions& o, uint64_t size, Target* target) {
  ImgioOptions options = o;
  options.snapshot.clear();
  IMG_ASSIGN_OR_RETURN(target->existing,
                       OpenChain(options, o.words[1], {.writable = true}, o.second_format));
  if (target->existing->driver().VirtualSize() < size) {
    return Error{ErrorCode::kInvalid, "the existing image is too small", {}};
  }
  return Ok();
}

Status ReportLost(const ImgioOptions& o, uint64_t size, const std::vector<GuestRange>& lost) {
  uint64_t bytes = 0;
  for (const GuestRange& range : lost) {
    fmt::print("lost {} {}\n", range.offset.value, range.length);
    bytes += range.length;
  }
  if (!lost.empty()) {
    PrintMessage("imgio", o.words[0],
                 fmt::format("{} bytes in {} ranges could not be read and are zeros now", bytes,
                             lost.size()));
  }
  if (o.lost_map.empty()) return Ok();
  std::ofstream out(o.lost_map, std::ios::binary);
  out << FormatDdrescueMap(size, lost);
  out.close();
  if (out) return Ok();
  return Error{ErrorCode::kIo, "cannot write " + Printable(o.lost_map), {}};
}

bool SameFile(const std::string& one, const std::string& other) {
  std::error_code ignored;
  return std::filesystem::weakly_canonical(one, ignored) ==
         std::filesystem::weakly_canonical(other, ignored);
}

Status CheckTarget(const ImgioOptions& o, Driver& target) {
  Capabilities can = target.capabilities();
  if (!can.write) return Error{ErrorCode::kUnsupported, "that format cannot be written", {}};
  if (o.compressed && !can.compressed_write) {
    return Error{ErrorCode::kUnsupported, "the new image cannot hold compressed clusters", {}};
  }
  return Ok();
}

}  // namespace

Result<int> ConvertCommand(const ImgioOptions& o) {
  const Format* format = FindFormat(o.second_format.empty() ? "raw" : o.second_format);
  if (format == nullptr || format->create == nullptr || format->open == nullptr) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("images of format \"{}\" cannot be made", Printable(o.second_format)),
                 {}};
  }
  IMG_ASSIGN_OR_RETURN(auto chain, OpenChain(o, o.words[0], {}));
  if (chain->UsesFile(o.words[1])) {
    return Error{
        ErrorCode::kConflict, fmt::format("{} is what is to be read", Printable(o.words[1])), {}};
  }
  if (!o.lost_map.empty() && (chain->UsesFile(o.lost_map) || SameFile(o.lost_map, o.words[1]))) {
    return Error{ErrorCode::kConflict,
                 fmt::format("{} is one of the two images", Printable(o.lost_map)),
                 {}};
  }
  Driver& source = chain->driver();
  const uint64_t size = source.VirtualSize();
  Target target;
  IMG_RETURN_IF_ERROR(o.existing ? OpenExisting(o, size, &target)
                                 : MakeTarget(o, *format, size, &target));
  IMG_RETURN_IF_ERROR(CheckTarget(o, target.get()));
  Progress progress("imgio", o.progress);
  progress.Start(o.words[0]);
  CopyOptions copy;
  copy.threads = o.threads > 0 ? o.threads : UsableCores();
  copy.compress = o.compressed;
  copy.salvage = o.salvage;
  // A block device or an image that exists holds something else until it is overwritten.
  copy.zeros_needed =
      o.existing || (target.file && target.file->file().is_block_device() && format->name == "raw");
  // Inside a raw file nothing but the bytes changes, and it has its length from the start.
  copy.parallel_write = format->name == "raw";
  copy.sparse = o.sparse.value_or(4096);
  if (target.base) copy.base = &target.base->driver();
  copy.progress = &progress;
  std::vector<GuestRange> lost;
  IMG_RETURN_IF_ERROR(CopyDisk(source, target.get(), copy, &lost));
  IMG_RETURN_IF_ERROR(target.get().Close());
  progress.Clear();
  if (target.data) IMG_RETURN_IF_ERROR(target.data->Keep(o.durable));
  if (target.file) IMG_RETURN_IF_ERROR(target.file->Keep(o.durable));
  IMG_RETURN_IF_ERROR(ReportLost(o, size, lost));
  return 0;
}

}  // namespace imgfsck

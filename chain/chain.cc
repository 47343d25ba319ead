// SPDX-License-Identifier: Apache-2.0
#include "chain/chain.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "base/text.h"
#include "chain/composed.h"
#include "chain/vhd_parent.h"
#include "formats/qcow2/driver.h"

namespace imgfsck {
namespace {

Error About(const std::string& path, Error error) {
  error.message = fmt::format("{}: {}", Printable(path), error.message);
  return error;
}

Status OpenFile(const std::string& path, bool named, const ChainOptions& options,
                ChainLayer* layer) {
  if (options.writable && !named) {
    IMG_ASSIGN_OR_RETURN(layer->store, FileStore::Open(path, FileStore::Mode::kExisting));
    if (!options.lock) return Ok();
    IMG_ASSIGN_OR_RETURN(layer->lock, ImageLock::Acquire(layer->store->fd(), path));
    return Ok();
  }
  if (named) {
    IMG_ASSIGN_OR_RETURN(layer->source, OpenNamed(path));
  } else {
    IMG_ASSIGN_OR_RETURN(layer->source, FileSource::Open(path));
  }
  return Ok();
}

// The file that holds the guest data of a qcow2 image which says so.
Status OpenDataFile(const std::string& name, ChainLayer* layer) {
  if (name.empty()) {
    return Error{ErrorCode::kNotFound, "the image does not name its external data file", {}};
  }
  IMG_ASSIGN_OR_RETURN(std::string path, ResolveDataFileName(name));
  if (layer->store) {
    IMG_ASSIGN_OR_RETURN(layer->data_store, OpenNamedForWriting(path));
  } else {
    IMG_ASSIGN_OR_RETURN(layer->data_source, OpenNamed(path));
  }
  return Ok();
}

// The data file that the image itself names.
Status OpenItsDataFile(ChainLayer* layer) {
  if (layer->format->name != "qcow2") return Ok();
  IMG_ASSIGN_OR_RETURN(auto data_file, qcow2::DataFileName(layer->file()));
  return data_file ? OpenDataFile(*data_file, layer) : Ok();
}

Status OpenDriver(const ChainOptions& options, bool named, ChainLayer* layer) {
  if (layer->format->open == nullptr) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("the {} format has no driver", layer->format->name),
                 {}};
  }
  OpenOptions open;
  open.writable = layer->store != nullptr;
  open.passphrase = options.passphrase;
  if (!named) open.snapshot = options.snapshot;
  open.size_policy = options.size_policy;
  open.path = layer->path;
  open.data_source = layer->data_source.get();
  open.data_store = layer->data_store.get();
  IMG_ASSIGN_OR_RETURN(layer->driver, layer->format->open(layer->file(), layer->store.get(), open));
  return Ok();
}

Result<const Format*> FormatOf(const ByteSource& file, const std::string& name, bool else_raw) {
  const Format* format = name.empty() ? ProbeFormat(file) : FindFormat(name);
  if (format == nullptr && name.empty() && else_raw) format = FindFormat("raw");
  if (format != nullptr) return format;
  if (!name.empty()) {
    return Error{
        ErrorCode::kUnsupported, fmt::format("unknown format \"{}\"", Printable(name)), {}};
  }
  return Error{
      ErrorCode::kInvalid, "the format is not recognised, and nobody says that it is raw", {}};
}

// Path and format. A differencing VHD has several names for its parent, and an id to tell the right
// one by.
Result<std::pair<std::string, std::string>> ParentOfVhd(const ChainLayer& layer) {
  IMG_ASSIGN_OR_RETURN(auto image, vhd::ParseImage(layer.file(), {}));
  IMG_ASSIGN_OR_RETURN(vhd::Parent parent, vhd::ResolveParent(*image, layer.path));
  if (parent.fit != vhd::ParentFit::kFits && parent.fit != vhd::ParentFit::kRawFits) {
    return Error{ErrorCode::kConflict,
                 fmt::format("{}: \"{}\" is not the disk that it was made from",
                             Printable(layer.path), Printable(parent.path)),
                 {}};
  }
  return std::pair<std::string, std::string>(parent.path, parent.image ? "vpc" : "raw");
}

}  // namespace

Chain::~Chain() {
  composed_.reset();
  // Overlays read through their bases.
  for (auto& layer : layers_) layer->driver.reset();
}

// No file twice: neither a loop nor an image over itself.
Status Chain::CheckNew(const ChainLayer& layer) {
  struct stat fresh {};
  if (fstat(layer.fd(), &fresh) != 0) return ErrorFromErrno(errno, "stat");
  for (const auto& known : layers_) {
    struct stat other {};
    if (fstat(known->fd(), &other) != 0) return ErrorFromErrno(errno, "stat");
    if (other.st_dev == fresh.st_dev && other.st_ino == fresh.st_ino) {
      return Error{ErrorCode::kInvalid, "the chain of backing files bites its own tail", {}};
    }
  }
  if (layers_.size() >= kMostLayers) {
    return Error{ErrorCode::kTooLarge, "too many backing files", {}};
  }
  return Ok();
}

Result<Chain::File> Chain::NextOf(const ChainLayer& layer, const BackingReference& backing) {
  if (layer.format->name == "vpc") {
    IMG_ASSIGN_OR_RETURN(auto parent, ParentOfVhd(layer));
    return File{parent.first, parent.second, true, false};
  }
  IMG_ASSIGN_OR_RETURN(std::string path, ResolveBackingName(layer.path, backing.name));
  return File{std::move(path), backing.format, true, backing.else_raw};
}

Status Chain::Add(const File& file, const ChainOptions& options) {
  auto layer = std::make_unique<ChainLayer>();
  layer->path = file.path;
  auto open = [&]() -> Status {
    IMG_RETURN_IF_ERROR(OpenFile(file.path, file.named, options, layer.get()));
    IMG_RETURN_IF_ERROR(CheckNew(*layer));
    IMG_ASSIGN_OR_RETURN(layer->format, FormatOf(layer->file(), file.format, file.else_raw));
    IMG_RETURN_IF_ERROR(OpenItsDataFile(layer.get()));
    return OpenDriver(options, file.named, layer.get());
  };
  if (auto status = open(); !status) return About(file.path, std::move(status).error());
  layers_.push_back(std::move(layer));
  return Ok();
}

Status Chain::AddFound(const ChainFile& file, const ChainOptions& options) {
  auto layer = std::make_unique<ChainLayer>();
  layer->path = file.path;
  auto open = [&]() -> Status {
    IMG_ASSIGN_OR_RETURN(layer->source, FileSource::Open(file.path));
    IMG_RETURN_IF_ERROR(CheckNew(*layer));
    IMG_ASSIGN_OR_RETURN(layer->format, FormatOf(layer->file(), file.format, false));
    if (!file.data_path.empty()) {
      IMG_ASSIGN_OR_RETURN(layer->data_source, FileSource::Open(file.data_path));
    }
    return OpenDriver(options, !layers_.empty(), layer.get());
  };
  if (auto status = open(); !status) return About(file.path, std::move(status).error());
  layers_.push_back(std::move(layer));
  return Ok();
}

Status Chain::Follow(const ChainOptions& options) {
  while (auto backing = layers_.back()->driver->Backing()) {
    if (options.backing == BackingUse::kIgnore) break;
    if (options.backing == BackingUse::kRefuse) {
      return Error{ErrorCode::kPermission,
                   fmt::format("{}: it has a backing file, and none is to be opened",
                               Printable(layers_.back()->path)),
                   {}};
    }
    IMG_ASSIGN_OR_RETURN(File next, NextOf(*layers_.back(), *backing));
    IMG_RETURN_IF_ERROR(Add(next, options));
  }
  Compose();
  return Ok();
}

void Chain::Compose() {
  for (size_t i = 0; i + 1 < layers_.size(); ++i) {
    layers_[i]->driver->SetBackingReader(ReaderOver(*layers_[i + 1]->driver));
  }
  composed_ = std::make_unique<ComposedDriver>(this);
}

Result<std::unique_ptr<Chain>> Chain::OpenFiles(const std::vector<ChainFile>& files,
                                                const ChainOptions& options) {
  std::unique_ptr<Chain> chain(new Chain);
  for (const ChainFile& file : files) IMG_RETURN_IF_ERROR(chain->AddFound(file, options));
  if (files.empty()) return Error{ErrorCode::kInvalid, "a chain has one file at least", {}};
  chain->Compose();
  return chain;
}

Result<std::unique_ptr<Chain>> Chain::Open(const std::string& path, const ChainOptions& options) {
  std::unique_ptr<Chain> chain(new Chain);
  IMG_RETURN_IF_ERROR(chain->Add({path, options.format}, options));
  IMG_RETURN_IF_ERROR(chain->Follow(options));
  return chain;
}

Result<std::unique_ptr<Chain>> Chain::OpenBacking(const std::string& image_path,
                                                  const BackingReference& reference,
                                                  const ChainOptions& options) {
  std::unique_ptr<Chain> chain(new Chain);
  IMG_ASSIGN_OR_RETURN(std::string path, ResolveBackingName(image_path, reference.name));
  IMG_RETURN_IF_ERROR(chain->Add({path, reference.format, true, reference.else_raw}, options));
  IMG_RETURN_IF_ERROR(chain->Follow(options));
  return chain;
}

bool Chain::UsesFile(const std::string& path) const {
  struct stat wanted {};
  if (stat(path.c_str(), &wanted) != 0) return false;
  auto same = [&](const auto& file) {
    struct stat open {};
    return file && fstat(file->fd(), &open) == 0 && open.st_dev == wanted.st_dev &&
           open.st_ino == wanted.st_ino;
  };
  return std::ranges::any_of(layers_, [&](const auto& layer) {
    return same(layer->source) || same(layer->store) || same(layer->data_source) ||
           same(layer->data_store);
  });
}

Result<ChainStatus> Chain::StatusAt(uint64_t offset, uint64_t limit) {
  limit = std::min(limit, layers_.front()->driver->VirtualSize() - offset);
  std::optional<uint64_t> place;
  for (size_t depth = 0; depth < layers_.size(); ++depth) {
    Driver& driver = *layers_[depth]->driver;
    if (offset >= driver.VirtualSize()) {
      // What lies behind the end of a backing file is zeros, by the layer that asks for it.
      return ChainStatus{{limit, MappingState::kZero, place}, std::max<size_t>(depth, 1) - 1, true};
    }
    limit = std::min(limit, driver.VirtualSize() - offset);
    IMG_ASSIGN_OR_RETURN(BlockStatus status, driver.StatusAt(offset, limit));
    if (status.state != MappingState::kUnallocated) return ChainStatus{status, depth, false};
    limit = std::min(limit, status.length);
    place = status.host_offset;  // kept for data, though there is none
  }
  return ChainStatus{{limit, MappingState::kUnallocated, place}, layers_.size() - 1, false};
}

}  // namespace imgfsck

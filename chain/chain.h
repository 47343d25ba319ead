// SPDX-License-Identifier: Apache-2.0
// An image with its backing files, as the one disk that a guest sees. Formats never open another
// file; what they need is opened here, through the gate.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "chain/gate.h"
#include "formats/format.h"
#include "io/lock.h"

namespace imgfsck {

enum class BackingUse {
  kOpen,    // open them, all the way down
  kRefuse,  // refuse an image that has one
  kIgnore,  // ranges that a backing file has read as zeros: for work on metadata only
};

struct ChainOptions {
  std::string format;     // of the image itself; empty: by its content
  bool writable = false;  // the image itself; backing files never are
  BackingUse backing = BackingUse::kOpen;
  bool lock = true;  // hold QEMU's locks while writing
  std::string passphrase, snapshot;
  std::string size_policy = "auto";
};

// One image of a chain.
struct ChainLayer {
  std::string path;
  const Format* format = nullptr;
  std::unique_ptr<FileSource> source;       // open for reading…
  std::unique_ptr<FileStore> store;         // …or for writing
  std::unique_ptr<FileSource> data_source;  // external data file
  std::unique_ptr<FileStore> data_store;
  std::unique_ptr<ImageLock> lock;
  std::unique_ptr<Driver> driver;  // goes first
  const ByteSource& file() const {
    return store ? static_cast<const ByteSource&>(*store) : *source;
  }
  int fd() const { return store ? store->fd() : source->fd(); }
};

// A file that somebody else found for a chain.
struct ChainFile {
  std::string path, format;
  std::string data_path;  // of its external data file; empty: it has none
};

// Where a run of guest bytes comes from.
struct ChainStatus {
  BlockStatus status;     // unallocated: no layer has it, not even the last one
  size_t depth = 0;       // the layer that decides; 0 is the image itself
  bool past_end = false;  // zeros, as the file behind that layer is too short
};

class Chain {
 public:
  // kInvalid when the format is not recognised, a chain bites its tail or is too long.
  static Result<std::unique_ptr<Chain>> Open(const std::string& path, const ChainOptions& options);
  ~Chain();

  // The disk as a whole: its StatusAt() answers for all layers together.
  Driver& driver() { return *composed_; }
  const std::vector<std::unique_ptr<ChainLayer>>& layers() const { return layers_; }
  Result<ChainStatus> StatusAt(uint64_t offset, uint64_t limit);
  // True when `path` is one of the files that are open here, under whatever name.
  bool UsesFile(const std::string& path) const;

  // The files of a chain that the caller has found, the image itself first: no name in them is
  // followed. Read-only.
  static Result<std::unique_ptr<Chain>> OpenFiles(const std::vector<ChainFile>& files,
                                                  const ChainOptions& options);

  // A base without overlay, for rebase: the layers that `reference` of an image at `image_path`
  // leads to.
  static Result<std::unique_ptr<Chain>> OpenBacking(const std::string& image_path,
                                                    const BackingReference& reference,
                                                    const ChainOptions& options);

 private:
  Chain() = default;
  struct File {
    std::string path, format;  // format: empty when nobody says
    bool named = false;        // by an image, not by the user
    bool else_raw = false;     // what is not recognised is raw
  };
  static Result<File> NextOf(const ChainLayer& layer, const BackingReference& backing);
  Status Add(const File& file, const ChainOptions& options);
  Status AddFound(const ChainFile& file, const ChainOptions& options);
  Status Follow(const ChainOptions& options);
  void Compose();
  Status CheckNew(const ChainLayer& layer);
  std::vector<std::unique_ptr<ChainLayer>> layers_;
  std::unique_ptr<Driver> composed_;
};

}  // namespace imgfsck

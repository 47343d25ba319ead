// SPDX-License-Identifier: Apache-2.0
// What imgio can do. Each command prints its result and returns an exit status; an error is what it
// could not do.
#pragma once

#include <memory>
#include <string>

#include "chain/chain.h"
#include "tools/imgio/options.h"

namespace imgfsck {

using ImgioCommand = Result<int> (*)(const ImgioOptions& options);

Result<int> CreateCommand(const ImgioOptions& options);
Result<int> InfoCommand(const ImgioOptions& options);
Result<int> MapCommand(const ImgioOptions& options);
Result<int> ReadCommand(const ImgioOptions& options);
Result<int> WriteCommand(const ImgioOptions& options);
Result<int> ZeroCommand(const ImgioOptions& options);
Result<int> DiscardCommand(const ImgioOptions& options);
Result<int> CompareCommand(const ImgioOptions& options);
Result<int> ConvertCommand(const ImgioOptions& options);
Result<int> ResizeCommand(const ImgioOptions& options);
Result<int> CommitCommand(const ImgioOptions& options);
Result<int> RebaseCommand(const ImgioOptions& options);
Result<int> SnapshotCommand(const ImgioOptions& options);
Result<int> BitmapCommand(const ImgioOptions& options);

// The file's contents; one trailing newline is dropped. Empty when no file was named.
Result<std::string> Passphrase(const ImgioOptions& options);

struct ChainUse {
  bool writable = false;
  bool ignore_backing = false;  // header, snapshots, bitmaps: no guest data is read
};
// The image at `path` as the options say (format, passphrase, snapshot, chain).
Result<std::unique_ptr<Chain>> OpenChain(const ImgioOptions& options, const std::string& path,
                                         ChainUse use, const std::string& format = "");
// -o key=value,key=value… and what other options say of the same.
Result<CreateOptions> FormatOptions(const ImgioOptions& options);

// A new, empty file for an image: never over an existing one unless the options say so, or it is a
// block device. Removed again on destruction unless kept.
class NewFile {
 public:
  static Result<std::unique_ptr<NewFile>> Create(const std::string& path, bool force);
  ~NewFile();
  FileStore& store() { return *store_; }
  void Keep() { keep_ = true; }

 private:
  std::string path_;
  std::unique_ptr<FileStore> store_;
  std::unique_ptr<ImageLock> lock_;  // of a file that existed
  bool keep_ = false, ours_ = false;
};

}  // namespace imgfsck

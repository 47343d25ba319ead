// SPDX-License-Identifier: Apache-2.0
// What imgio can do. Each command prints its result and returns an exit status; an error is what it
// could not do.
#pragma once

#include <memory>
#include <string>

#include "chain/chain.h"
#include "tools/imgio/new_file.h"
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
// What some formats record of their backing file: when it was last written, and its length.
Status NoteStamp(const ChainLayer& base, BackingReference* reference);
bool HasCreateOption(const Format& format, std::string_view name);

struct ChainUse {
  bool writable = false;
  bool ignore_backing = false;  // header, snapshots, bitmaps: no guest data is read
};
// The image at `path` as the options say (format, passphrase, snapshot, chain).
Result<std::unique_ptr<Chain>> OpenChain(const ImgioOptions& options, const std::string& path,
                                         ChainUse use, const std::string& format = "");
// -o key=value,key=value… and what other options say of the same.
Result<CreateOptions> FormatOptions(const ImgioOptions& options);

}  // namespace imgfsck

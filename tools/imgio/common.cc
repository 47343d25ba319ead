// SPDX-License-Identifier: Apache-2.0
// What the commands share: options into opened images, and files for new ones.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "base/text.h"
#include "tools/imgio/commands.h"

namespace imgfsck {

Result<std::string> Passphrase(const ImgioOptions& options) {
  if (options.password_file.empty()) return std::string();
  std::ifstream in(options.password_file, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), {});
  if (!in) {
    return Error{ErrorCode::kIo, "cannot read the passphrase from " + options.password_file, {}};
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

Result<std::unique_ptr<Chain>> OpenChain(const ImgioOptions& options, const std::string& path,
                                         ChainUse use, const std::string& format) {
  ChainOptions chain;
  chain.format = format.empty() ? options.format : format;
  chain.writable = use.writable;
  if (options.no_chain) chain.backing = BackingUse::kRefuse;
  if (use.ignore_backing) chain.backing = BackingUse::kIgnore;
  chain.size_policy = options.size_policy;
  chain.snapshot = options.snapshot;
  IMG_ASSIGN_OR_RETURN(chain.passphrase, Passphrase(options));
  return Chain::Open(path, chain);
}

Result<CreateOptions> FormatOptions(const ImgioOptions& options) {
  CreateOptions result;
  for (const std::string& set : options.set) {
    size_t at = 0;
    while (at <= set.size()) {
      // ",," stands for a comma, as for qemu-img.
      std::string item;
      for (; at < set.size(); ++at) {
        if (set[at] == ',' && !set.substr(at).starts_with(",,")) break;
        if (set[at] == ',') ++at;
        item += set[at];
      }
      ++at;
      size_t equals = item.find('=');
      if (item.empty()) continue;
      std::string name = item.substr(0, equals);
      result[name] = equals == std::string::npos ? "on" : item.substr(equals + 1);
    }
  }
  if (!options.backing.empty() && options.command == "create") {
    result["backing_file"] = options.backing;
  }
  if (!options.backing_format.empty() && options.command == "create") {
    result["backing_fmt"] = options.backing_format;
  }
  bool encrypted = result.contains("encrypt.format") || result.contains("encryption");
  if (encrypted) {
    IMG_ASSIGN_OR_RETURN(result["passphrase"], Passphrase(options));
  }
  return result;
}

Result<std::unique_ptr<NewFile>> NewFile::Create(const std::string& path, bool force) {
  std::unique_ptr<NewFile> file(new NewFile);
  file->path_ = path;
  struct stat status {};
  bool exists = stat(path.c_str(), &status) == 0;
  bool device = exists && S_ISBLK(status.st_mode);
  if (exists && !device && !force) {
    return Error{ErrorCode::kExists,
                 fmt::format("{} exists; --force overwrites it", Printable(path)), {}};
  }
  IMG_ASSIGN_OR_RETURN(file->store_,
                       FileStore::Open(path, exists ? FileStore::Mode::kExisting
                                                    : FileStore::Mode::kCreateNew));
  file->ours_ = !exists;
  if (exists) {
    IMG_ASSIGN_OR_RETURN(file->lock_, ImageLock::Acquire(file->store_->fd(), path));
    IMG_RETURN_IF_ERROR(file->store_->SetSize(0));
  }
  return file;
}

NewFile::~NewFile() {
  if (ours_ && !keep_) unlink(path_.c_str());
}

}  // namespace imgfsck

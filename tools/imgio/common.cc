// SPDX-License-Identifier: Apache-2.0
// What the commands share: options into opened images, and files for new ones.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "base/text.h"
#include "tools/common/passphrase.h"
#include "tools/common/terminal.h"
#include "tools/imgio/commands.h"

namespace imgfsck {
namespace {

// What is read while others write may be of different times.
void WarnOfWriters(const Chain& chain) {
  for (const auto& layer : chain.layers()) {
    auto use = ProbeImageUse(layer->fd());
    if (!use || !use->written) continue;
    PrintMessage("imgio", layer->path,
                 "a running program writes to it; what is read may not hang "
                 "together");
  }
}

}  // namespace

Status NoteStamp(const ChainLayer& base, BackingReference* reference) {
  struct stat status = {};
  if (fstat(base.fd(), &status) != 0) return ErrorFromErrno(errno, "stat " + Printable(base.path));
  reference->mtime_seconds = static_cast<int64_t>(status.st_mtim.tv_sec);
  reference->file_size = base.file().Size();
  return Ok();
}

bool HasCreateOption(const Format& format, std::string_view name) {
  return std::ranges::any_of(format.create_options,
                             [&](const OptionHelp& help) { return help.name == name; });
}

Result<std::string> Passphrase(const ImgioOptions& options) {
  if (options.password_file.empty()) return std::string();
  return ReadPassphrase(options.password_file);
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
  IMG_ASSIGN_OR_RETURN(auto opened, Chain::Open(path, chain));
  if (!use.writable && !options.share) WarnOfWriters(*opened);
  return opened;
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
  if (result.contains("passphrase")) {
    return Error{ErrorCode::kInvalid, "a passphrase comes from a file: --password-file", {}};
  }
  const bool is_new = options.command == "create" || options.command == "convert";
  if (!options.backing.empty() && is_new) result["backing_file"] = options.backing;
  if (!options.backing_format.empty() && is_new) result["backing_fmt"] = options.backing_format;
  bool encrypted = result.contains("encrypt.format") || result.contains("encryption");
  if (encrypted) {
    IMG_ASSIGN_OR_RETURN(result["passphrase"], Passphrase(options));
  }
  return result;
}

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
// imgio create. A backing file is looked at for its size and format, unless -u says not to.
#include <fmt/format.h>

#include "base/text.h"
#include "tools/imgio/commands.h"
#include "tools/imgio/new_backing.h"

namespace imgfsck {
Result<int> CreateCommand(const ImgioOptions& options) {
  const Format* format = FindFormat(options.format.empty() ? "raw" : options.format);
  if (format == nullptr || format->create == nullptr) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("images of format \"{}\" cannot be made", Printable(options.format)),
                 {}};
  }
  IMG_ASSIGN_OR_RETURN(CreateOptions set, FormatOptions(options));
  bool has_size = !options.sizes.empty();
  uint64_t size = has_size ? options.sizes[0] : 0;
  if (auto option = set.extract("size"); option && !has_size) {
    auto wanted = ParseSize(option.mapped());
    if (!wanted) return Error{ErrorCode::kInvalid, "the option size takes a size", {}};
    size = *wanted;
    has_size = true;
  }
  const std::string& path = options.words[0];
  if (set.contains("backing_file") && !options.unsafe) {
    IMG_ASSIGN_OR_RETURN(auto base, OpenNewBacking(options, path, *format, set));
    IMG_RETURN_IF_ERROR(NoteNewBacking(*base, path, *format, &set));
    if (!has_size) size = SizeFromBacking(*base, *format);
  } else if (!has_size) {
    return Error{ErrorCode::kInvalid, "a new image needs a size", {}};
  }
  IMG_ASSIGN_OR_RETURN(auto file, NewFile::Create(path, options.force));
  std::unique_ptr<NewFile> data;
  if (auto name = set.find("data_file"); name != set.end()) {
    IMG_ASSIGN_OR_RETURN(std::string data_path, ResolveDataFileName(name->second));
    IMG_ASSIGN_OR_RETURN(data, NewFile::Create(data_path, options.force));
    IMG_RETURN_IF_ERROR(data->store().SetSize(size));
  }
  IMG_RETURN_IF_ERROR(format->create(file->store(), size, set));
  if (data) IMG_RETURN_IF_ERROR(data->Keep(true));
  IMG_RETURN_IF_ERROR(file->Keep(true));
  if (!options.quiet) {
    fmt::print("{}: {} image of {} bytes\n", Printable(path), format->name, size);
  }
  return 0;
}

}  // namespace imgfsck

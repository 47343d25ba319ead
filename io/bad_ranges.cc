// SPDX-License-Identifier: Apache-2.0
// The map file of GNU ddrescue: comment lines, one status line ("position status [pass]"), then
// blocks "position size status". Status: ? not tried, * not trimmed, / not scraped, - bad sector,
// + finished. A map is the user's, but still only text: sizes are bounded and sums checked.
#include "io/bad_ranges.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/checked.h"
#include "base/text.h"
#include "io/file.h"

namespace imgfsck {
namespace {

constexpr uint64_t kLargestMap = 256 * kMiB;  // bytes
constexpr std::string_view kStatuses = "?*/-+";

std::string_view NextWord(std::string_view* line) {
  constexpr std::string_view kBlanks = " \t\r";
  line->remove_prefix(std::min(line->find_first_not_of(kBlanks), line->size()));
  const std::string_view word = line->substr(0, line->find_first_of(kBlanks));
  line->remove_prefix(word.size());
  return word;
}

// Decimal, 0x hexadecimal or 0 octal, as ddrescue reads them.
bool ParseNumber(std::string_view word, uint64_t* value) {
  int base = 10;
  if (word.starts_with("0x") || word.starts_with("0X")) {
    base = 16;
    word.remove_prefix(2);
  } else if (word.size() > 1 && word.front() == '0') {
    base = 8;
  }
  const char* end = word.data() + word.size();
  const auto [next, error] = std::from_chars(word.data(), end, *value, base);
  return error == std::errc() && next == end && !word.empty();
}

template <class Range>
std::vector<Range> SortedAndMerged(std::vector<Range> ranges) {
  std::ranges::sort(ranges);
  std::vector<Range> merged;
  for (const Range& range : ranges) {
    if (range.length == 0) continue;
    if (merged.empty() || range.offset.value > merged.back().end()) {
      merged.push_back(range);
    } else if (range.end() > merged.back().end()) {
      merged.back().length = range.end() - merged.back().offset.value;
    }
  }
  return merged;
}

// One block line into `bad`; false when it is none.
bool ParseBlock(std::string_view line, std::vector<HostRange>* bad) {
  uint64_t offset = 0, length = 0;
  if (!ParseNumber(NextWord(&line), &offset) || !ParseNumber(NextWord(&line), &length))
    return false;
  const std::string_view status = NextWord(&line);
  if (status.size() != 1 || kStatuses.find(status) == std::string_view::npos) return false;
  if (!NextWord(&line).empty() || !CheckedAdd(offset, length)) return false;
  if (status == "+" || length == 0) return true;
  if (!bad->empty() && bad->back().end() == offset) {
    bad->back().length += length;  // '*', '/' and '-' often follow one another
  } else {
    bad->push_back(MakeHostRange(offset, length));
  }
  return true;
}

}  // namespace

Result<std::vector<HostRange>> ParseDdrescueMap(std::string_view text) {
  std::vector<HostRange> bad;
  bool have_status = false;
  for (uint64_t number = 1; !text.empty(); ++number) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    std::string_view rest = line;
    const std::string_view first = NextWord(&rest);
    if (first.empty() || first.front() == '#') continue;
    uint64_t ignored = 0;
    const bool good = have_status ? ParseBlock(line, &bad)
                                  : ParseNumber(first, &ignored) && NextWord(&rest).size() == 1;
    if (!good) {
      return Error{ErrorCode::kInvalid,
                   fmt::format("line {} of the ddrescue map is not understood: {}", number,
                               Printable(line.substr(0, 80))),
                   {}};
    }
    have_status = true;
  }
  if (!have_status) return Error{ErrorCode::kInvalid, "no ddrescue map: no status line", {}};
  return SortedAndMerged(std::move(bad));
}

Result<std::vector<HostRange>> ReadDdrescueMap(const std::string& path) {
  IMG_ASSIGN_OR_RETURN(const auto file, FileSource::Open(path));
  if (file->Size() > kLargestMap) {
    return Error{ErrorCode::kTooLarge,
                 fmt::format("{} is too large for a ddrescue map", Printable(path)),
                 {}};
  }
  ByteVector content(file->Size());
  IMG_RETURN_IF_ERROR(ReadExact(*file, 0, content));
  auto ranges = ParseDdrescueMap(AsText(content));
  if (ranges) return ranges;
  Error error = std::move(ranges).error();
  error.message = fmt::format("{}: {}", Printable(path), error.message);
  return error;
}

std::string FormatDdrescueMap(uint64_t size, const std::vector<GuestRange>& bad,
                              const std::vector<std::string>& comments) {
  std::string text = "# Mapfile. Created by imgfsck\n";
  for (const std::string& comment : comments) text += "# " + comment + "\n";
  text +=
      "# current_pos  current_status  current_pass\n"
      "0x00000000     +               1\n"
      "#      pos        size  status\n";
  const auto block = [&text](uint64_t offset, uint64_t end, char status) {
    if (offset < end) text += fmt::format("{:#010x}  {:#010x}  {}\n", offset, end - offset, status);
  };
  uint64_t at = 0;
  for (const GuestRange& range : SortedAndMerged(bad)) {
    if (range.offset.value >= size) break;
    const uint64_t end = std::min(range.end(), size);
    block(at, range.offset.value, '+');
    block(range.offset.value, end, '-');
    at = end;
  }
  block(at, size, '+');
  return text;
}

BadRangeSource::BadRangeSource(const ByteSource& base, std::vector<HostRange> bad)
    : base_(base), bad_(SortedAndMerged(std::move(bad))) {}

Result<size_t> BadRangeSource::ReadAt(uint64_t offset, MutableBytes buffer) const {
  const uint64_t size = base_.Size();
  if (offset >= size || buffer.empty()) return size_t{0};
  buffer = buffer.first(std::min<uint64_t>(buffer.size(), size - offset));
  const auto next = std::ranges::upper_bound(bad_, offset, {}, &HostRange::end);
  if (next == bad_.end() || next->offset.value >= offset + buffer.size()) {
    return base_.ReadAt(offset, buffer);
  }
  const uint64_t first_bad = std::max(offset, next->offset.value);
  IMG_RETURN_IF_ERROR(ReadPadded(base_, offset, buffer.first(first_bad - offset)));
  return Error{ErrorCode::kIo, fmt::format("the medium could not be read at {:#x}", first_bad),
               first_bad};
}

}  // namespace imgfsck

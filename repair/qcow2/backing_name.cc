// SPDX-License-Identifier: Apache-2.0
// The place and the length of the backing file's name, from the text that stands in the first
// cluster: QEMU puts the name right behind the header extensions.
#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "repair/qcow2/extension_area.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kBackingNameProblems = {
    Problem::kQcow2BackingOffset, Problem::kQcow2BackingSize, Problem::kQcow2BackingMissing};

// Bytes of readable text at the start of `bytes`.
uint64_t TextLength(Bytes bytes) {
  std::string_view text = AsText(bytes);
  size_t length = 0;
  while (length < text.size()) {
    uint32_t code_point = 0;
    const size_t step = DecodeUtf8(text.substr(length), &code_point);
    if (step == 0 || code_point < 0x20 || !IsHarmless(code_point)) break;
    length += step;
  }
  return length;
}

class BackingNameRepair {
 public:
  explicit BackingNameRepair(const PassContext& context)
      : context_(context),
        image_(*StateOf(context.report).image),
        header_(image_.header),
        cluster_(image_.first_cluster) {
    Header alone = header_;
    alone.backing_file_offset = 0;
    const ExtensionArea area = ParseExtensions(alone, cluster_);
    begin_ = area.end_marker && !area.overrun ? area.end : header_.ExtensionsBegin();
  }

  Result<PassOutcome> Run() {
    if (Should(Problem::kQcow2BackingOffset)) {
      FindName();
    } else if (Should(Problem::kQcow2BackingSize)) {
      const uint64_t length = NameAt(header_.backing_file_offset);
      if (length > 0) Take(header_.backing_file_offset, length);
    } else {
      IMG_RETURN_IF_ERROR(CutLink());
      return outcome_;
    }
    if (outcome_.changes == 0) {
      outcome_.notes.push_back(
          "no text that can be the backing file's name is left in the first cluster");
      return outcome_;
    }
    ByteVector bytes = image_.first_cluster;
    EncodeHeader(header_, bytes);
    IMG_RETURN_IF_ERROR(context_.image.WriteAt(0, bytes));
    return outcome_;
  }

 private:
  bool Should(Problem problem) const { return Mends(context_, problem); }

  // Only by --fix: the file is not there.
  Status CutLink() {
    HeaderArea area = AreaOf(image_);
    area.backing_name.reset();
    area.SetExtension(kExtBackingFormat, std::nullopt);
    IMG_ASSIGN_OR_RETURN(const ByteVector bytes, EncodeFirstCluster(image_, std::move(area)));
    outcome_.particulars.push_back("the link to the backing file was cut");
    Declare();
    return context_.image.WriteAt(0, bytes);
  }

  // The length of a whole name at `offset`: text that ends with a zero or with the cluster; 0 where
  // there is none.
  uint64_t NameAt(uint64_t offset) const {
    if (offset < begin_ || offset >= cluster_.size()) return 0;
    const uint64_t length = TextLength(Bytes(cluster_).subspan(offset));
    const bool ends = offset + length == cluster_.size() || cluster_[offset + length] == 0;
    return ends && length <= kMaxBackingNameLength ? length : 0;
  }

  // The name's place: where it belongs, else the only text there is between zeros. A few letters
  // may stand anywhere in other data.
  void FindName() {
    const uint64_t recorded = header_.backing_file_size;
    uint64_t found = 0, found_length = 0;
    for (uint64_t at = begin_; at < cluster_.size();) {
      if (cluster_[at] == 0) {
        ++at;
        continue;
      }
      const bool begins = at == begin_ || cluster_[at - 1] == 0;
      const uint64_t length = begins ? NameAt(at) : 0;
      if (length > 0 && (length == recorded || at == begin_)) return Take(at, length);
      if (length > 0 && found_length > 0) return;  // which of them?
      if (length > 0) {
        found = at;
        found_length = length;
      }
      at += std::max<uint64_t>(length, 1);
    }
    if (found_length > 0) Take(found, found_length);
  }

  void Take(uint64_t offset, uint64_t length) {
    header_.backing_file_offset = offset;
    header_.backing_file_size = static_cast<uint32_t>(length);
    const Bytes name = Bytes(cluster_).subspan(offset, length);
    outcome_.particulars.push_back(
        fmt::format("the backing file is \"{}\"", Printable(AsText(name))));
    Declare();
  }

  // What nothing maps reads from another file than before, or from one at all.
  void Declare() {
    ++outcome_.changes;
    for (size_t layer = 0; layer < image_.LayerCount(); ++layer) {
      const LayerRange range{image_.LayerName(layer), MakeGuestRange(0, image_.LayerSize(layer))};
      outcome_.changed.push_back(range);
    }
  }

  const PassContext& context_;
  const Image& image_;
  Header header_;
  ByteVector cluster_;
  uint64_t begin_ = 0;  // of what may hold the name
  PassOutcome outcome_;
};

}  // namespace

const Pass kBackingNamePass{
    "backing-name", 15, "find the backing file's name in the first cluster",
    [](const CheckReport& report, const RepairOptions& options) {
      return StateOf(report).walked && WantedAny(report, options, kBackingNameProblems);
    },
    [](const PassContext& context) { return BackingNameRepair(context).Run(); }};

}  // namespace imgfsck::qcow2

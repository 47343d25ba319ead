// SPDX-License-Identifier: Apache-2.0
#include "triage/named_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "base/text.h"
#include "triage/byte_statistics.h"
#include "triage/content.h"

namespace imgfsck {
namespace {

constexpr std::array<std::string_view, 13> kContainers = {"qcow2", "qcow", "qed",   "vhd",  "vpc",
                                                          "vhdx",  "avhd", "avhdx", "vmdk", "vdi",
                                                          "cow",   "hdd",  "hds"};
constexpr std::array<std::string_view, 4> kRaws = {"img", "raw", "dsk", "dd"};

constexpr uint64_t kPiece = 64 * kKiB;
constexpr uint64_t kPieces = 64;  // looked at, evenly spread

bool IsOf(std::string_view word, const auto& list) {
  return std::ranges::find(list, word) != list.end();
}

// VMware keeps disks without headers under names of their own: "-flat.vmdk", "-s001.vmdk".
bool IsRawExtent(std::string_view stem) {
  const size_t dash = stem.rfind('-');
  if (dash == std::string_view::npos) return false;
  const std::string_view tail = stem.substr(dash + 1);
  if (tail == "flat" || tail == "rdm" || tail == "rdmp" || tail == "ctk") return true;
  return tail.size() == 4 && (tail[0] == 's' || tail[0] == 'f') &&
         std::ranges::all_of(tail.substr(1), [](char c) { return c >= '0' && c <= '9'; });
}

struct Looks {
  uint64_t seen = 0, zero = 0, noise = 0;
  uint64_t noisy_head = 0;  // bytes
};

// An unreadable piece counts as seen, and as nothing else.
Looks LookAt(const ByteSource& file) {
  Looks looks;
  const uint64_t pieces = (file.Size() + kPiece - 1) / kPiece;
  const uint64_t count = std::min(pieces, kPieces);
  ByteVector buffer(kPiece);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t piece = count == 1 ? 0 : (pieces - 1) / (count - 1) * i;
    const uint64_t at = piece * kPiece;
    const MutableBytes bytes = MutableBytes(buffer).first(std::min(kPiece, file.Size() - at));
    ++looks.seen;
    if (!ReadPadded(file, at, bytes)) continue;
    if (AllZero(bytes)) {
      ++looks.zero;
      continue;
    }
    const bool noise = LooksEncrypted(StatisticsOf(bytes), bytes.size());
    if (noise) ++looks.noise;
    if (i > 0) continue;
    for (const uint64_t head : {kPiece, 4 * kKiB}) {  // fewer bytes tell nothing
      if (head > bytes.size() || looks.noisy_head > 0) continue;
      const Bytes first = bytes.first(head);
      if (LooksEncrypted(StatisticsOf(first), head)) looks.noisy_head = head;
    }
  }
  return looks;
}

std::string Describe(const Looks& looks) {
  if (looks.seen == 0) return "it is empty";
  if (looks.zero == looks.seen) return "all that was looked at is zeros";
  if (looks.noise + looks.zero == looks.seen) return "it is noise, as encryption leaves it";
  std::string text = "nothing in it is known";
  if (looks.noise > 0) {
    text = fmt::format("{} of {} pieces that were looked at are noise, as encryption leaves it",
                       looks.noise, looks.seen);
  }
  if (looks.noisy_head > 0) {
    text += fmt::format("; it begins with {} of noise", HumanSize(looks.noisy_head));
  }
  return text;
}

}  // namespace

NamedAs ExpectedByName(std::string_view path) {
  std::string name(path.substr(path.rfind('/') + 1));
  std::ranges::transform(name, name.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  });
  std::string_view rest = name;
  for (bool last = true;; last = false) {
    const size_t dot = rest.rfind('.');
    if (dot == std::string_view::npos) return NamedAs::kNothing;
    const std::string_view word = rest.substr(dot + 1);
    rest = rest.substr(0, dot);
    const bool container = IsOf(word, kContainers), raw = IsOf(word, kRaws);
    if (!container && !raw) continue;
    if (!last) return NamedAs::kOnce;
    return raw || (word == "vmdk" && IsRawExtent(rest)) ? NamedAs::kRaw : NamedAs::kContainer;
  }
}

std::optional<Reason> MissingImage(const ByteSource& file, std::string_view path) {
  const NamedAs named = ExpectedByName(path);
  if (named == NamedAs::kNothing) return std::nullopt;
  const Looks looks = LookAt(file);
  if (named != NamedAs::kContainer) {
    // A disk without a header may hold anything, and beside images lie sums, notes, archives of
    // them; none of these is noise from its first byte on.
    if (looks.noisy_head == 0 || file.Size() < 4 * kKiB) return std::nullopt;
    ByteVector start(std::min<uint64_t>(file.Size(), 4 * kKiB));
    if (!ReadPadded(file, 0, start) || RecognizePiece(start)) return std::nullopt;
  }
  Reason reason{ReasonCode::kNamedImage,
                0,
                std::min<uint64_t>(file.Size(), kReasonBytes),
                {},
                Describe(looks)};
  reason.bytes.resize(reason.length);
  if (!ReadPadded(file, 0, reason.bytes)) reason.bytes.clear();
  return reason;
}

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
// --profile azure: what Azure asks of a VHD beyond being sound.
#include <fmt/format.h>

#include "analyzers/vhd/rules.h"
#include "base/checked.h"

namespace imgfsck::vhd {

void JudgeAzure(const Image& image, Findings* out) {
  const Footer& f = image.footer;
  uint64_t at = FooterAt(image);
  auto size_text = fmt::format("{} bytes", f.current_size);
  if (image.sparse()) {
    out->Add(At(Problem::kVhdAzureNotFixed, "footer", at + footer_at::kDiskType, 4,
                std::string(ToText(image.kind))));
  }
  if (f.current_size % kMiB != 0) {
    Finding finding = At(Problem::kVhdAzureSize, "footer", at + footer_at::kCurrentSize, 8,
                         fmt::format("{}, {} more make it whole", size_text,
                                     AlignUp(f.current_size, kMiB) - f.current_size));
    if (image.sparse()) finding.repair = RepairClass::kNone;
    out->Add(std::move(finding));
  }
  bool by_size = VirtualSize(f, SizePolicy::kAuto) == AlignDown(f.current_size, kSectorSize) &&
                 QemuVirtualSize(f) == AlignDown(f.current_size, kSectorSize);
  bool geometry =
      IsSaturated(f.geometry) || f.geometry == GeometryFor(f.current_size / kSectorSize);
  if (!by_size || !geometry) {
    out->Add(At(Problem::kVhdAzureGeometry, "footer", at + footer_at::kCylinders, 4,
                fmt::format("{}, {} by the geometry", size_text, ChsBytes(f))));
  }
}

}  // namespace imgfsck::vhd

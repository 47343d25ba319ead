// SPDX-License-Identifier: Apache-2.0
#include "triage/report/html_picture.h"

#include <algorithm>
#include <array>

#include "base/base64.h"
#include "base/checked.h"
#include "base/text.h"
#include "triage/report/png.h"

namespace imgfsck {
namespace {

constexpr uint32_t kColumns = 128;
constexpr uint32_t kCellWidth = 5, kCellHeight = 6;  // in the SVG's units
constexpr uint32_t kLeft = 84, kTop = 24;            // room for the axes
constexpr uint32_t kTicks = 8;                       // rows that carry their offset, at most

constexpr size_t kStates = static_cast<size_t>(CellState::kStates);
constexpr std::array<Rgb, kStates + 1> kPalette = {{
    {0xff, 0xff, 0xff},  // empty
    {0xf2, 0xf2, 0xf2},  // unallocated
    {0xd9, 0xd9, 0xd9},  // zero
    {0xb0, 0xb0, 0xb0},  // unclaimed
    {0x00, 0x9e, 0x73},  // metadata
    {0x56, 0xb4, 0xe9},  // data
    {0x00, 0x72, 0xb2},  // compressed
    {0xf0, 0xe4, 0x42},  // changed
    {0xe6, 0x9f, 0x00},  // leaked
    {0xcc, 0x79, 0xa7},  // shared
    {0xd5, 0x5e, 0x00},  // damaged
    {0x00, 0x00, 0x00},  // unreadable
    {0xff, 0xff, 0xff},  // behind the end
}};

std::string Colour(const Rgb& rgb) {
  return fmt::format("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2]);
}

void PutLabel(uint32_t x, uint32_t y, bool to_the_left, std::string_view text, HtmlWriter& html) {
  html.Raw("<text x=\"").Number(x).Raw("\" y=\"").Number(y);
  if (to_the_left) html.Raw("\" text-anchor=\"end");
  html.Raw("\" font-size=\"11\" font-family=\"monospace\" fill=\"#57606a\">").Text(text);
  html.Raw("</text>");
}

void PutCells(const Picture& picture, uint32_t width, uint32_t height, HtmlWriter& html) {
  ByteVector pixels(picture.cells);
  pixels.resize(size_t{width} * height, static_cast<uint8_t>(kStates));
  const ByteVector png = MakePng(width, height, pixels, kPalette);
  html.Raw("<image x=\"").Number(kLeft).Raw("\" y=\"").Number(kTop);
  html.Raw("\" width=\"").Number(width * kCellWidth);
  html.Raw("\" height=\"").Number(height * kCellHeight);
  html.Raw("\" preserveAspectRatio=\"none\" href=\"data:image/png;base64,");
  html.Encoded(Base64Encode(png)).Raw("\"/>");
  html.Raw("<rect fill=\"none\" stroke=\"#57606a\" x=\"").Number(kLeft).Raw("\" y=\"");
  html.Number(kTop).Raw("\" width=\"").Number(width * kCellWidth).Raw("\" height=\"");
  html.Number(height * kCellHeight).Raw("\"/>");
}

void PutNumbers(const Picture& picture, HtmlWriter& html) {
  html.Raw(
      "<div class=\"wide\"><table "
      "class=\"legend\"><tr><th></th><th>what</th><th>bytes</th><th></th></tr>");
  for (size_t state = 0; state < kStates; ++state) {
    if (picture.bytes[state] == 0) continue;
    html.Raw(
        "<tr><td><svg width=\"24\" height=\"24\" role=\"presentation\"><rect width=\"24\" "
        "height=\"24\" stroke=\"#57606a\" fill=\"");
    html.Text(Colour(kPalette[state])).Raw("\"/></svg></td>");
    html.Cell(ToText(static_cast<CellState>(state))).NumberCell(picture.bytes[state]);
    html.Cell(HumanSize(picture.bytes[state])).Raw("</tr>");
  }
  html.Raw("</table></div>");
}

}  // namespace

void WritePicture(const Picture& picture, std::string_view title, HtmlWriter& html) {
  if (picture.empty()) return;
  const auto cells = static_cast<uint32_t>(picture.cells.size());
  const uint32_t width = std::min(cells, kColumns);
  const uint32_t height = static_cast<uint32_t>(DivRoundUp(cells, width));
  const uint32_t full_width = kLeft + kColumns * kCellWidth + 8;
  const uint32_t full_height = kTop + height * kCellHeight + 8;
  html.Raw("<div><h4>").Text(title).Raw("</h4><p class=\"soft\">").Text(HumanSize(picture.size));
  html.Raw(", a cell is ").Text(HumanSize(picture.cell)).Raw(", a row ");
  html.Text(HumanSize(SaturatingMul(picture.cell, width)));
  html.Raw("; the worst of a cell is shown</p>");
  html.Raw("<svg role=\"img\" viewBox=\"0 0 ").Number(full_width).Raw(" ").Number(full_height);
  html.Raw("\"><title>").Text(title).Raw("</title>");
  PutLabel(kLeft, kTop - 8, false, "0", html);
  if (width == kColumns) {
    PutLabel(kLeft + kColumns * kCellWidth / 2, kTop - 8, false,
             fmt::format("+{}", Hex(SaturatingMul(picture.cell, kColumns / 2))), html);
  }
  const uint32_t step = std::max<uint32_t>(3, (height + kTicks - 1) / kTicks);
  for (uint32_t row = 0; row < height; row += step) {
    const uint64_t offset = SaturatingMul(picture.cell, uint64_t{row} * width);
    PutLabel(kLeft - 6, kTop + row * kCellHeight + 9, true, Hex(offset), html);
  }
  PutCells(picture, width, height, html);
  html.Raw("</svg>");
  PutNumbers(picture, html);
  html.Raw("</div>");
}

}  // namespace imgfsck

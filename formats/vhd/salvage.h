// SPDX-License-Identifier: Apache-2.0
// Makes the best of footers whose checksum is wrong: fields that make it right again, then fields
// that fit the file. Nothing here decides whether such a footer is to be gone by.
#pragma once

#include <optional>

#include "formats/vhd/image.h"

namespace imgfsck::vhd {

// How sure a footer is with a wrong checksum that nothing put right.
inline constexpr double kChecksumWrong = 0.5;

bool LooksReasonable(const Footer& footer);
Footer WithCookie(const Footer& footer);

// The footer with the fewest fields replaced by what they usually are for which the stored
// checksum is right. Nothing when there is none.
std::optional<Footer> CorrectFooter(const Footer& damaged);

// Each field from one of the two, so that the checksum is right.
std::optional<Footer> MergeFooters(const Footer& a, const Footer& b);

// Replaces the fields of image->footer that cannot be right by what fits the rest of the file, and
// says so in footer_from. For a footer with a wrong checksum, once the tables are located.
void FitFooterToFile(Image* image);

}  // namespace imgfsck::vhd

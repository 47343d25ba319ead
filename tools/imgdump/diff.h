// SPDX-License-Identifier: Apache-2.0
// imgdump --diff: the guest ranges in which two disks differ, be they two images, an image and a
// snapshot, or two snapshots of one. Backing files are followed; nothing is written.
#pragma once

#include "base/text_writer.h"
#include "tools/imgdump/options.h"

namespace imgfsck {

Status ShowDifferences(const ImgdumpOptions& options, TextWriter& out);

}  // namespace imgfsck

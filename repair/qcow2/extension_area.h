// SPDX-License-Identifier: Apache-2.0
// Rewrites the header's extension area.
#pragma once

#include <functional>

#include "formats/qcow2/driver_header.h"
#include "formats/qcow2/image.h"

namespace imgfsck::qcow2 {

// All records that the keeper accepts, in their order, then END, then zeros up to the backing
// file's name or the end of what the area took before. `cluster`: the first cluster, changed in
// place; `area` was parsed from it.
void RewriteExtensions(const ExtensionArea& area, MutableBytes cluster,
                       const std::function<bool(const Extension&)>& keep);

// Header, whole records and backing name of the image, to change and to write back.
HeaderArea AreaOf(const Image& image);
// The first cluster with `area` in place of what was there; bytes behind both stay. Fails when the
// area does not fit.
Result<ByteVector> EncodeFirstCluster(const Image& image, HeaderArea area);

}  // namespace imgfsck::qcow2

// SPDX-License-Identifier: Apache-2.0
// What a cluster of a qcow2 image that no structure claims may have been: metadata that damage cut
// off is kept in a copy without guest data.
#pragma once

#include <vector>

#include "formats/qcow2/image.h"

namespace imgfsck::qcow2 {

// An L1, L2, refcount or bitmap table, or a part of one: every entry makes sense.
bool IsTable(const Image& image, Bytes bytes);
// Counts of clusters: small ones.
bool IsRefcountBlock(const Image& image, Bytes bytes);
// An L2 table of which a part was overwritten, without the nonsense. Nothing when most of it is.
std::optional<ByteVector> MendedTable(const Image& image, Bytes bytes);
// The table with one entry that makes no sense in place of all that make none.
ByteVector WithoutNonsense(const Image& image, Bytes bytes);

// Entries one after another from `offset` on that can be told from anything else.
std::vector<Snapshot> SnapshotsAt(const Image& image, uint64_t offset);
std::vector<Bitmap> BitmapsAt(const Image& image, uint64_t offset);
bool IsLuksHeader(Bytes bytes);

}  // namespace imgfsck::qcow2

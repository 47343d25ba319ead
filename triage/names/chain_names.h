// SPDX-License-Identifier: Apache-2.0
// Names of the guest's files on the disk that a chain of images makes up.
#pragma once

#include "chain/chain.h"
#include "model/name_facts.h"

namespace imgfsck {

// Besides what the query asks for: the files in the ranges that the image's own bitmaps call dirty,
// when `bitmaps`.
NameFacts NamesOfChain(Chain& chain, NameQuery query, bool bitmaps);

}  // namespace imgfsck

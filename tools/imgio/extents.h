// SPDX-License-Identifier: Apache-2.0
// The parts of disks that are worth reading, one after another; needs no memory for the list.
#pragma once

#include <optional>
#include <vector>

#include "formats/driver.h"

namespace imgfsck {

// Cuts the first `size` bytes into pieces (multiples of `piece`, the last one perhaps shorter) and
// leaves out those that every one of the disks is known to have as zeros without reading them.
// Without a disk no piece is left out.
class DataPieces {
 public:
  DataPieces(const std::vector<Driver*>& disks, uint64_t size, uint64_t piece);
  // Nothing at the end. One call at a time.
  Result<std::optional<GuestRange>> Next();

 private:
  struct Disk {
    Driver* driver = nullptr;
    uint64_t zero_until = 0;  // from at_ on; a size means: to the end
  };
  Status SkipZeros(Disk& disk) const;
  std::vector<Disk> disks_;
  const uint64_t size_, piece_;
  uint64_t at_ = 0;
};

}  // namespace imgfsck

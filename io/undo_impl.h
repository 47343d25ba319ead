// SPDX-License-Identifier: Apache-2.0
// What undo_record.cc and undo_apply.cc share, and nobody else includes.
#pragma once

#include <memory>
#include <string>

#include "io/undo_database.h"
#include "io/undo_record.h"

namespace imgfsck {

struct UndoRecord::Impl {
  std::unique_ptr<UndoDatabase> database;
  State state = State::kPrepared;
  std::string image_path;
  uint64_t old_size = 0, new_size = 0;  // bytes
  uint64_t patch_count = 0, bytes = 0;
  uint64_t header_length = 0;  // bytes of the old image that header_hash covers; 0: not readable
  std::string header_hash;
  std::string hash;  // over the patches and everything above but the state
};

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
// The model of images as an SQL script: piped into sqlite3 it makes the same database that
// database_file.h writes.
#pragma once

#include <span>

#include "base/text_writer.h"
#include "model/live_model.h"

namespace imgfsck {

// Each source with an image_id of its own.
Status WriteSqlScript(std::span<const ModelSource> sources, TextWriter& out);

}  // namespace imgfsck

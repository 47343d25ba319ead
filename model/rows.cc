// SPDX-License-Identifier: Apache-2.0
#include "model/rows.h"

namespace imgfsck {

std::string_view ToText(MappingState state) {
  switch (state) {
    case MappingState::kUnallocated:
      return "unallocated";
    case MappingState::kZero:
      return "zero";
    case MappingState::kData:
      return "data";
    case MappingState::kCompressed:
      return "compressed";
  }
  return "unknown";
}

}  // namespace imgfsck

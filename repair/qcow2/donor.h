// SPDX-License-Identifier: Apache-2.0
// An older copy of the same image, which may lend mappings (--donor). It is untrusted like any
// image: a mapping of its active disk counts only where the cluster it leads to misses a reference
// in the image under repair.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "formats/qcow2/image.h"

namespace imgfsck::qcow2 {

class Donor {
 public:
  // `source` may be null: a donor that has nothing. When it cannot lend to `image`, why_not() says
  // why.
  static Result<Donor> Open(const ByteSource* source, const Image& image);

  bool usable() const { return image_ != nullptr; }
  const std::string& why_not() const { return why_not_; }  // a sentence, or empty
  // Where its L2 table of `column` lies; 0 without one.
  uint64_t TableOffset(uint64_t column) const;
  // The table's bytes; nothing where it has none, or one that is none.
  std::optional<ByteVector> Table(uint64_t column) const;

 private:
  std::unique_ptr<Image> image_;
  std::string why_not_;
};

}  // namespace imgfsck::qcow2

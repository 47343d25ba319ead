// SPDX-License-Identifier: Apache-2.0
// The first cluster as a whole, for rewriting it: header, extensions, backing file's name (sheet,
// sections 1 and 2). Fields and extensions that nobody here knows are carried over as they are.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/qcow2/header.h"

namespace imgfsck::qcow2 {

struct HeaderArea {
  struct Record {
    uint32_t type = 0;
    ByteVector data;
  };
  Header header;
  ByteVector fields;            // the header's bytes, header_length of them
  std::vector<Record> records;  // extensions, without END
  std::optional<std::string> backing_name;

  static Result<HeaderArea> Parse(Bytes cluster);  // kInvalid: an extension does not fit
  // Puts `data` in the place of the extension of that type; none removes it.
  void SetExtension(uint32_t type, std::optional<ByteVector> data);
  // The whole cluster; kTooLarge when it does not fit.
  Result<ByteVector> Encode();
};

// The extension that names the features, as QEMU writes it.
ByteVector FeatureNames();

}  // namespace imgfsck::qcow2

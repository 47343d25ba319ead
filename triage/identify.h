// SPDX-License-Identifier: Apache-2.0
// What a file is, by its content and never by its name.
#pragma once

#include <memory>

#include "formats/format.h"
#include "io/file.h"
#include "triage/facts.h"
#include "triage/inventory.h"

namespace imgfsck {

// A file under examination.
struct Subject {
  std::unique_ptr<FileSource> file;  // null: it cannot be opened
  const Format* format = nullptr;    // null: no image, or of a format that is only recognised
  bool damaged_header = false;       // the format is a guess
  std::unique_ptr<ImageRows> rows;   // null where `format` is

  // True when it is not the file that the inventory found, or not in the same state.
  bool Changed(const FoundFile& found) const;
};

Subject OpenSubject(const FoundFile& found, IdentityFacts* facts);

// The signatures on the disk in the image, as far as the image itself has them.
std::vector<Signature> GuestSignatures(const ByteSource& file, const Format& format);

}  // namespace imgfsck

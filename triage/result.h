// SPDX-License-Identifier: Apache-2.0
// All that one run found out, as plain data; every report of imgtriage is made from it and from
// nothing else, so that the same input gives the same bytes.
#pragma once

#include <vector>

#include "triage/chain_graph.h"
#include "triage/facts.h"
#include "triage/inventory.h"

namespace imgfsck {

struct TriagedFile {
  FoundFile file;
  ImageFacts facts;
  Verdict verdict = Verdict::kSafe;  // meaningful for images
  std::optional<bool> untouched;     // whether it was the same at the end; nothing: not asked for

  bool is_image() const { return facts.identity.kind == FileKind::kImage; }
};

struct TriageResult {
  Policy policy = Policy::kOpenstack;
  Severity fail_on = Severity::kLeak;
  size_t max_findings = 1000;      // listed of an image
  std::vector<TriagedFile> files;  // by path
  ChainGraph chain;
  std::vector<PathError> errors;
  uint64_t directories = 0, symlinks = 0, specials = 0;
};

// Links the chains, adds the reasons that they give, and judges every file.
void Conclude(TriageResult* result);

}  // namespace imgfsck

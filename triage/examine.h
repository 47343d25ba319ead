// SPDX-License-Identifier: Apache-2.0
// The examination of one file, as it runs in a worker: what it is, what speaks against opening it,
// whether it is sound. Opens that file, read-only, and no other: names in it are not followed, not
// even looked at. Each stage sends its results before the next begins.
#pragma once

#include "triage/facts.h"
#include "triage/inventory.h"
#include "triage/policy/policy.h"
#include "triage/rules.h"
#include "triage/worker_pool.h"

namespace imgfsck {

struct ExamineOptions {
  bool deep = false;
  unsigned threads = 1;
  size_t max_findings = 1000;  // kept, of each problem
  PolicyOptions policy;
  HashOptions hash;      // of the file's bytes, where any
  std::string model;     // a database to write the image's model into; empty: none
  int64_t image_id = 1;  // in it
  bool pictures = false, entropy = false;
  std::string orphans;  // a folder for copies of unclaimed bytes; empty: none
  std::vector<Rule> rules;
};

// In a worker.
void Examine(const FoundFile& file, const ExamineOptions& options, Sender& sender);

// A check's results as facts.
CheckFacts FactsOfCheck(const CheckReport& report);

// In the parent: what a worker sent, and how it ended.
ImageFacts FactsOf(const WorkerOutcome& outcome);

}  // namespace imgfsck

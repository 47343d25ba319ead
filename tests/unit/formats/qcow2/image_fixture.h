// SPDX-License-Identifier: Apache-2.0
// New qcow2 images in memory, and what our own check and QEMU's say of them.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "analyzers/check.h"
#include "formats/qcow2/format.h"
#include "tests/unit/formats/driver_helpers.h"

namespace imgfsck::qcow2 {

inline ByteVector NewImage(uint64_t size, const CreateOptions& options = {}) {
  MemoryStore store;
  auto status = kQcow2Format.create(store, size, options);
  EXPECT_TRUE(status) << (status ? "" : status.error().message);
  return store.bytes();
}

struct Verdict {
  uint64_t corruptions = 0, leaks = 0, warnings = 0;
  std::string text;  // what was found
  bool sound() const { return corruptions == 0 && leaks == 0 && warnings == 0; }
};

inline Verdict CheckBytes(const ByteSource& source) {
  CheckOptions options;
  options.deep = true;
  options.threads = 1;
  auto report = CheckImage(source, kQcow2Format, options);
  if (!report) return {1, 0, 0, report.error().message};
  Verdict verdict;
  for (const Finding& finding : report->findings.kept()) {
    Severity severity = finding.severity_or_default();
    verdict.corruptions += severity == Severity::kCorruption ? finding.count : 0;
    verdict.leaks += severity == Severity::kLeak ? finding.count : 0;
    verdict.warnings += severity == Severity::kWarning ? finding.count : 0;
    if (severity == Severity::kInfo) continue;
    verdict.text += std::string(finding.info().code) + " " + finding.Message() + " (" +
                    finding.structure + ")\n";
  }
  return verdict;
}

// Writes the image to a file of its own and runs a shell command on it, `$I` being its name.
inline int RunOn(const ByteVector& image, const std::string& command) {
  std::string path = testing::TempDir() + "qcow2-test-" + std::to_string(getpid());
  FILE* file = fopen(path.c_str(), "wb");
  EXPECT_NE(file, nullptr);
  EXPECT_EQ(fwrite(image.data(), 1, image.size(), file), image.size());
  EXPECT_EQ(fclose(file), 0);
  int status = std::system(("I='" + path + "'; " + command).c_str());
  unlink(path.c_str());
  return WEXITSTATUS(status);
}

// `encryption`: "", "aes" or "luks"; the passphrase is "secret".
inline int QemuCheck(const ByteVector& image, const std::string& encryption = "") {
  if (encryption.empty()) return RunOn(image, "qemu-img check -q -f qcow2 \"$I\"");
  return RunOn(image,
               "qemu-img check -q --object secret,id=key,data=secret --image-opts driver=qcow2,"
               "encrypt.format=" +
                   encryption + ",encrypt.key-secret=key,file.filename=\"$I\"");
}

// A file beside the image, gone at the end: a backing file, or an external data file.
class SideFile {
 public:
  explicit SideFile(const std::string& name)
      : path_(testing::TempDir() + name + "-" + std::to_string(getpid())) {}
  SideFile(const SideFile&) = delete;
  SideFile& operator=(const SideFile&) = delete;
  ~SideFile() { unlink(path_.c_str()); }
  const std::string& path() const { return path_; }
  void Put(const ByteVector& bytes) const {
    FILE* file = fopen(path_.c_str(), "wb");
    ASSERT_NE(file, nullptr);
    ASSERT_EQ(fwrite(bytes.data(), 1, bytes.size(), file), bytes.size());
    ASSERT_EQ(fclose(file), 0);
  }

 private:
  std::string path_;
};

#define ASSERT_OK(expression)                                        \
  do {                                                               \
    const auto& ok_status = (expression);                            \
    ASSERT_TRUE(ok_status.has_value()) << ok_status.error().message; \
  } while (false)

}  // namespace imgfsck::qcow2

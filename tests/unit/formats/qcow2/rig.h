// SPDX-License-Identifier: Apache-2.0
// For tests that stop or fail a driver somewhere: images with something of everything in them, the
// operations that are tried on them, and what may be left of either.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/driver.h"
#include "io/fault.h"

namespace imgfsck::qcow2 {

struct Layout {
  const char* name;
  CreateOptions options;
  bool backing = false;

  bool v2() const { return options.contains("compat"); }
  bool data_file() const { return options.contains("data_file"); }
  bool encrypted() const { return options.contains("encrypt.format"); }
};

struct Operation {
  const char* name;
  Status (*run)(Driver& driver);
};

// Every operation on every layout that can do it at all.
struct Trial {
  const Layout* layout;
  const Operation* operation;
  size_t number;
  // Which of `count` kinds of trouble to try: all with IMGFSCK_LONG=1, else `few`, others each
  // time.
  std::vector<size_t> Kinds(size_t count, size_t few) const;
};
std::ostream& operator<<(std::ostream& out, const Trial& trial);
std::vector<Trial> AllTrials();

// The bytes of an image and of its external data file (empty where it has none).
struct Files {
  ByteVector image, data;
};
Files Seasoned(const Layout& layout, const Operation& operation);

// The files on a disk that may fail, and a driver on them.
class Rig {
 public:
  Rig(const Layout& layout, const Files& files, FaultPlan image_plan = {},
      FaultPlan data_plan = {});
  Status Open(bool writable = true);
  Driver& driver() { return *driver_; }
  void Close() { driver_.reset(); }
  FaultStore& image() { return image_; }
  FaultStore& data() { return data_; }
  bool Fired() const { return image_.Fired() || data_.Fired(); }
  Files Survivors() const { return {image_.Survivor(), data_.Survivor()}; }

 private:
  const Layout& layout_;
  FaultStore image_, data_;
  std::unique_ptr<Driver> driver_;
};

ByteVector Contents(const Layout& layout, const Files& files);
// Of the disk's first bytes and its last ones, where it is huge.
inline constexpr uint64_t kLookedAt = 4 << 20;

// Empty when nothing is wrong but what a crash may leave (sheet, section 13): leaks, counts that
// are too high, marks of an unclean end.
std::string Damage(const Files& files);
// Empty when every sector reads as in `before` or as in `after`.
std::string Mixed(const ByteVector& now, const ByteVector& before, const ByteVector& after);

}  // namespace imgfsck::qcow2

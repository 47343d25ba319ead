// SPDX-License-Identifier: Apache-2.0
#include "base/text_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <memory>

namespace imgfsck {
namespace {

TEST(TextWriter, WritesAllKindsToAString) {
  std::string text;
  {
    TextWriter out(&text);
    out.Put('a');
    out.Put("bc ");
    out.PutNumber(UINT64_MAX);
    out.Put(' ');
    out.PutSigned(INT64_MIN);
    out.Put(' ');
    out.PutHex(UINT64_MAX);
    EXPECT_TRUE(out.Finish());
  }
  EXPECT_EQ(text, "abc 18446744073709551615 -9223372036854775808 0xffffffffffffffff");
}

TEST(TextWriter, KeepsOrderAcrossItsBufferAndAFile) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), std::fclose);
  std::string expected;
  {
    TextWriter out(fileno(file.get()));
    for (uint64_t i = 0; i < 50000; ++i) {
      out.PutNumber(i);
      out.Put(',');
      expected += std::to_string(i) + ",";
      if (i % 20000 == 7) {
        const std::string large(TextWriter::kBuffer + 5, 'x');
        out.Put(large);
        expected += large;
      }
    }
  }  // flushed by the destructor
  std::string read(expected.size() + 10, '\0');
  const ssize_t got = pread(fileno(file.get()), read.data(), read.size(), 0);
  ASSERT_EQ(got, static_cast<ssize_t>(expected.size()));
  read.resize(expected.size());
  EXPECT_TRUE(read == expected);
}

TEST(TextWriter, FirstErrorSticks) {
  const int fd = open("/dev/full", O_WRONLY);
  ASSERT_GE(fd, 0);
  TextWriter out(fd);
  out.Put("x");
  EXPECT_TRUE(out.ok());
  auto status = out.Finish();
  close(fd);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kNoSpace);
  out.Put("y");
  EXPECT_FALSE(out.Finish());
}

}  // namespace
}  // namespace imgfsck

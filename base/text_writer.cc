// SPDX-License-Identifier: Apache-2.0
#include "base/text_writer.h"

#include <unistd.h>

#include <cerrno>

namespace imgfsck {

TextWriter::TextWriter(int fd) : fd_(fd), buffer_(new char[kBuffer]) {}
TextWriter::TextWriter(std::string* out) : out_(out), buffer_(new char[kBuffer]) {}
TextWriter::~TextWriter() { Flush(); }

void TextWriter::WriteOut(std::string_view text) {
  if (!status_) return;
  if (out_ != nullptr) {
    out_->append(text);
    return;
  }
  while (!text.empty()) {
    ssize_t written = ::write(fd_, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      status_ = ErrorFromErrno(errno, "write the output");
      return;
    }
    text.remove_prefix(static_cast<size_t>(written));
  }
}

void TextWriter::Flush() {
  WriteOut({buffer_.get(), used_});
  used_ = 0;
}

void TextWriter::PutLarge(std::string_view text) {
  Flush();
  WriteOut(text);
}

Status TextWriter::Finish() {
  Flush();
  return status_;
}

}  // namespace imgfsck

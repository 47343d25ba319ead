// SPDX-License-Identifier: Apache-2.0
// What the live tables of one image share: the source, the lazily run check, and texts that SQLite
// may point to. Internal to model/.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/text.h"
#include "model/live_model.h"

namespace imgfsck {

class LiveState {
 public:
  explicit LiveState(const ModelSource& source) : source_(source) {}

  const ModelSource& source() const { return source_; }

  Result<const Findings*> findings() {
    if (!findings_) findings_ = source_.findings ? source_.findings() : &none_;
    return *findings_;
  }

  // `text` as valid UTF-8, at a place that stays. For texts of which there are few.
  std::string_view Intern(std::string_view text) {
    if (last_interned_ == nullptr || text != last_interned_->first) {
      last_interned_ = &*interned_.try_emplace(std::string(text), ValidUtf8(text)).first;
    }
    return last_interned_->second;
  }

  void SetError(const Error& error) { error_ = error; }
  std::optional<Error> TakeError() { return std::exchange(error_, std::nullopt); }

 private:
  ModelSource source_;
  Findings none_;
  std::optional<Result<const Findings*>> findings_;
  std::unordered_map<std::string, std::string> interned_;
  std::pair<const std::string, std::string>* last_interned_ = nullptr;  // most rows repeat it
  std::optional<Error> error_;
};

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
#include "triage/hashing.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <memory>

#include "base/interrupt.h"
#include "base/parallel.h"
#include "base/text.h"
#include "io/sha256.h"

namespace imgfsck {
namespace {

constexpr uint64_t kChunk = 4 * kMiB;  // read at a time; divides kHashPiece
static_assert(kHashPiece % kChunk == 0);
constexpr uint64_t kMostPieces = 1 << 20;                 // listed
constexpr uint64_t kLongestInPieces = uint64_t{1} << 50;  // hashed at all

class Digest {
 public:
  Digest(std::string name, const EVP_MD* algorithm)
      : name_(std::move(name)), context_(EVP_MD_CTX_new()) {
    IMG_CHECK(context_ != nullptr);
    IMG_CHECK(EVP_DigestInit_ex(context_.get(), algorithm, nullptr) == 1);
  }
  void Add(Bytes bytes) {
    IMG_CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
  }
  std::string Hex() {
    std::array<uint8_t, EVP_MAX_MD_SIZE> digest{};
    unsigned size = 0;
    IMG_CHECK(EVP_DigestFinal_ex(context_.get(), digest.data(), &size) == 1);
    return HexEncode(Bytes(digest).first(size));
  }
  const std::string& name() const { return name_; }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::string name_;
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

// SHA-256 of each piece. A piece of zeros is not computed: its digest is known.
class Pieces {
 public:
  // At the end of a piece only.
  void AddZeroPieces(uint64_t count) {
    while (count-- > 0) {
      zeros_ = filled_ = kHashPiece;
      End();
    }
  }
  void Add(Bytes bytes, bool zero) {
    if (zero && zeros_ == filled_) {
      zeros_ += bytes.size();
    } else {
      Materialize();
      digest_->Add(bytes);
    }
    filled_ += bytes.size();
    if (filled_ == kHashPiece) End();
  }
  // The digests, and that of all of them.
  std::vector<std::string> Take(std::string* all) {
    if (filled_ > 0) End();
    *all = all_.HexDigest();
    if (count_ > kMostPieces) done_.clear();
    return std::move(done_);
  }

 private:
  // The zeros that were only counted so far.
  void Materialize() {
    if (digest_) return;
    digest_.emplace();
    for (uint64_t left = zeros_; left > 0;) {
      const uint64_t length = std::min<uint64_t>(left, zero_.size());
      digest_->Add(Bytes(zero_).first(length));
      left -= length;
    }
  }
  void End() {
    if (zeros_ == kHashPiece && !digest_) {
      if (whole_zero_.empty()) {
        Materialize();
        whole_zero_ = digest_->HexDigest();
      }
      Keep(whole_zero_);
    } else {
      Materialize();
      Keep(digest_->HexDigest());
    }
    digest_.reset();
    filled_ = zeros_ = 0;
  }
  void Keep(const std::string& hex) {
    ByteVector raw;
    IMG_CHECK(HexDecode(hex, &raw));
    all_.Add(raw);
    if (++count_ <= kMostPieces) done_.push_back(hex);
  }

  std::optional<Sha256> digest_;
  ByteVector zero_ = ByteVector(64 * kKiB);
  uint64_t filled_ = 0, zeros_ = 0;
  std::string whole_zero_;
  uint64_t count_ = 0;
  std::vector<std::string> done_;
  Sha256 all_;
};

class Hasher {
 public:
  Hasher(const HashSource& source, const HashOptions& options)
      : source_(source), options_(options), buffer_(kChunk), zeros_(kChunk) {
    if (options.md5) digests_.emplace_back("md5", EVP_md5());
    if (options.sha1) digests_.emplace_back("sha1", EVP_sha1());
    if (options.sha256) digests_.emplace_back("sha256", EVP_sha256());
  }

  Result<HashFacts> Run() {
    for (uint64_t at = 0; at < source_.size;) {
      IMG_RETURN_IF_ERROR(CheckStop());
      const HashExtent extent = source_.extent(at);
      const uint64_t end = at + std::clamp<uint64_t>(extent.length, 1, source_.size - at);
      if (extent.zero && digests_.empty() && at % kHashPiece == 0) {
        const uint64_t pieces = (end - at) / kHashPiece;
        pieces_.AddZeroPieces(pieces);
        at += pieces * kHashPiece;
      }
      while (at < end) {
        IMG_RETURN_IF_ERROR(CheckStop());
        // Never across a multiple of the chunk, so that no piece's end lies inside.
        const uint64_t length = std::min(end - at, kChunk - at % kChunk);
        if (extent.zero) {
          Add(Bytes(zeros_).first(length), true);
        } else {
          const MutableBytes bytes = MutableBytes(buffer_).first(length);
          Read(at, bytes);
          Add(bytes, AllZero(bytes));
        }
        at += length;
      }
    }
    return Finish();
  }

 private:
  void Add(Bytes bytes, bool zero) {
    const size_t jobs = digests_.size() + (options_.pieces ? 1 : 0);
    IMG_CHECK(ParallelFor(jobs, options_.threads, [&](unsigned, size_t job) {
                job < digests_.size() ? digests_[job].Add(bytes) : pieces_.Add(bytes, zero);
                return Ok();
              }).has_value());
  }

  // Halves what fails until single units are left; those are zeros, and listed.
  void Read(uint64_t offset, MutableBytes bytes) {
    struct Pending {
      uint64_t offset, length;
    };
    std::vector<Pending> parts = {{0, bytes.size()}};
    while (!parts.empty()) {
      const Pending part = parts.back();
      parts.pop_back();
      const MutableBytes piece = bytes.subspan(part.offset, part.length);
      if (source_.read(offset + part.offset, piece)) continue;
      if (part.length <= source_.unit) {
        std::ranges::fill(piece, uint8_t{0});
        Bad(offset + part.offset, part.length);
        continue;
      }
      const uint64_t units = part.length / source_.unit;
      const uint64_t half = std::max<uint64_t>(units / 2, 1) * source_.unit;
      parts.push_back({part.offset + half, part.length - half});
      parts.push_back({part.offset, half});
    }
  }
  void Bad(uint64_t offset, uint64_t length) {
    std::vector<HostRange>& bad = facts_.unreadable;
    if (!bad.empty() && bad.back().end() == offset) {
      bad.back().length += length;
    } else {
      bad.push_back(MakeHostRange(offset, length));
    }
  }

  HashFacts Finish() {
    facts_.done = true;
    facts_.bytes = source_.size;
    for (Digest& digest : digests_) facts_.digests[digest.name()] = digest.Hex();
    if (options_.pieces) {
      facts_.pieces = pieces_.Take(&facts_.digests["pieces"]);
    }
    return std::move(facts_);
  }

  const HashSource& source_;
  const HashOptions& options_;
  ByteVector buffer_, zeros_;
  std::vector<Digest> digests_;
  Pieces pieces_;
  HashFacts facts_;
};

}  // namespace

std::optional<HashOptions> ParseHashOptions(std::string_view text) {
  HashOptions options;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view name = text.substr(0, comma);
    bool* flag = name == "md5"      ? &options.md5
                 : name == "sha1"   ? &options.sha1
                 : name == "sha256" ? &options.sha256
                 : name == "pieces" ? &options.pieces
                                    : nullptr;
    if (flag == nullptr) return std::nullopt;
    *flag = true;
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  if (!options.any()) return std::nullopt;
  return options;
}

HashSource HashSourceOf(const ByteSource& file) {
  HashSource source;
  source.size = file.Size();
  source.extent = [&file](uint64_t offset) -> HashExtent {
    auto extent = file.ExtentAt(offset);
    if (!extent || extent->length == 0) return {file.Size() - offset, false};
    return {extent->offset + extent->length - offset, extent->hole};
  };
  source.read = [&file](uint64_t offset, MutableBytes buffer) {
    return ReadExact(file, offset, buffer);
  };
  return source;
}

HashSource HashSourceOf(Driver& disk) {
  HashSource source;
  source.size = disk.VirtualSize();
  source.extent = [&disk](uint64_t offset) -> HashExtent {
    auto status = disk.StatusAt(offset, disk.VirtualSize() - offset);
    if (!status || status->length == 0) return {kChunk - offset % kChunk, false};
    const bool stored =
        status->state == MappingState::kData || status->state == MappingState::kCompressed;
    return {status->length, !stored};
  };
  source.read = [&disk](uint64_t offset, MutableBytes buffer) { return disk.Read(offset, buffer); };
  return source;
}

Result<HashFacts> Hash(const HashSource& source, const HashOptions& options) {
  HashFacts facts;
  if (source.size > kLongestInPieces) {
    facts.trouble = fmt::format("{} are not hashed", HumanSize(source.size));
    return facts;
  }
  if (source.size <= options.longest || !options.streams()) return Hasher(source, options).Run();
  HashOptions in_pieces;
  in_pieces.pieces = true;
  in_pieces.threads = options.threads;
  IMG_ASSIGN_OR_RETURN(facts, Hasher(source, in_pieces).Run());
  if (!options.pieces) facts.pieces.clear();
  facts.trouble = fmt::format(
      "{}, most of which are stored nowhere, are hashed in pieces alone (--max-time hashes them as "
      "one)",
      HumanSize(source.size));
  return facts;
}

}  // namespace imgfsck

// SPDX-License-Identifier: Apache-2.0
// Single mapping entries that cannot be read: what decodes is kept, the rest reads as zeros from
// then on. With a backing file that takes a cluster of zeros, lest the base shine through.
#include <algorithm>

#include "formats/common/deflate.h"
#include "repair/qcow1/editor.h"
#include "repair/qcow1/passes.h"

namespace imgfsck::qcow1 {
namespace {

class Entries {
 public:
  explicit Entries(const PassContext& context)
      : editor_(context), deep_(context.options.check.deep) {}

  Result<PassOutcome> Run() {
    unaligned_ = editor_.Mends(Problem::kQcowL2EntryUnaligned);
    past_eof_ = editor_.Mends(Problem::kQcowL2EntryPastEof);
    zero_length_ = editor_.Mends(Problem::kQcowComprSize);
    cut_stream_ = editor_.Mends(Problem::kQcowComprPastEof);
    undecodable_ = deep_ && editor_.Mends(Problem::kQcowComprUndecodable);
    past_size_ = editor_.Mends(Problem::kQcowPastSize);
    plaintext_ = editor_.Mends(Problem::kQcowComprPlaintext);
    IMG_RETURN_IF_ERROR(ForEachEntry(editor_.image(), editor_.state().fates,
                                     [this](const EntryRef& ref) { return Repair(ref); }));
    if (without_key_ > 0) {
      editor_.Note("some clusters can only be written with the image's passphrase");
    }
    return editor_.Finish();
  }

 private:
  const Image& image() const { return editor_.image(); }
  const Geometry& g() const { return image().geometry; }

  Status Repair(const EntryRef& ref) {
    EntryCheck check = CheckEntry(image(), ref.entry);
    if (past_size_ && ref.Guest(image()) >= AlignUp(image().header.size, g().cluster_size)) {
      return editor_.SetEntry(ref.HostOffset(image()), Entry{});
    }
    if (!ref.entry.compressed()) {
      bool mend = check.unreadable ? unaligned_ : check.past_eof && past_eof_;
      return mend ? Zero(ref, 0) : Ok();
    }
    if (check.unreadable) return zero_length_ ? FindLength(ref) : Ok();
    if (check.past_eof) return cut_stream_ ? KeepPrefix(ref) : Ok();
    if (plaintext_) return KeepPrefix(ref);
    if (!undecodable_ || Decodes(ref)) return Ok();
    return KeepPrefix(ref);
  }

  // Fills cluster_ with what comes out of the stream, zeros behind it.
  Decoded Decode(const EntryRef& ref, uint64_t length) {
    cluster_.assign(g().cluster_size, 0);
    stream_.assign(length, 0);
    uint64_t offset = ref.entry.offset(g());
    auto got = editor_.bytes().ReadAt(offset, stream_);
    if (!got) return {};
    return InflateRawPart(Bytes(stream_).first(*got), cluster_);
  }

  bool Decodes(const EntryRef& ref) { return Decode(ref, ref.entry.length(g())).complete; }

  // A stream of length zero: its true length is what a decoder takes from there.
  Status FindLength(const EntryRef& ref) {
    Decoded decoded = Decode(ref, g().cluster_size - 1);
    if (!decoded.complete || decoded.consumed == 0) return Zero(ref, 0);
    editor_.Changed(ClusterRange(image(), ref.Guest(image())), false);
    return editor_.SetEntry(ref.HostOffset(image()),
                            Entry::Compressed(g(), ref.entry.offset(g()), decoded.consumed));
  }

  Status KeepPrefix(const EntryRef& ref) {
    Decoded decoded = Decode(ref, ref.entry.length(g()));
    if (decoded.produced == 0) return Zero(ref, 0);
    if (!MayAppend()) return Ok();
    if (!editor_.CanWriteGuestBytes()) return ++without_key_, Ok();
    std::fill(cluster_.begin() + static_cast<ptrdiff_t>(decoded.produced), cluster_.end(),
              uint8_t{0});
    if (!decoded.complete) Declare(ref, decoded.produced);
    IMG_ASSIGN_OR_RETURN(uint64_t at, editor_.AppendCluster(ref.Guest(image()), cluster_));
    return editor_.SetEntry(ref.HostOffset(image()), Entry{at});
  }

  // Not where an entry points that this pass leaves alone.
  bool MayAppend() const {
    bool clusters = past_eof_ || !editor_.Found(Problem::kQcowL2EntryPastEof);
    bool streams = cut_stream_ || !editor_.Found(Problem::kQcowComprPastEof);
    bool tables = !editor_.Found(Problem::kQcowL1EntryPastEof);
    return (clusters && streams && tables) || editor_.CanAppend(kMiB);
  }

  Status Zero(const EntryRef& ref, uint64_t kept) {
    if (!image().header.has_backing_name()) {
      Declare(ref, kept);
      return editor_.SetEntry(ref.HostOffset(image()), Entry{});
    }
    if (!MayAppend()) return Ok();
    if (!editor_.CanWriteGuestBytes()) return ++without_key_, Ok();
    Declare(ref, kept);
    uint64_t at = 0;
    if (image().encrypted()) {
      cluster_.assign(g().cluster_size, 0);
      IMG_ASSIGN_OR_RETURN(at, editor_.AppendCluster(ref.Guest(image()), cluster_));
    } else {
      IMG_ASSIGN_OR_RETURN(at, editor_.AppendZeros(g().cluster_size, g().cluster_size));
    }
    return editor_.SetEntry(ref.HostOffset(image()), Entry{at});
  }

  // The cluster is lost but for its first `kept` bytes.
  void Declare(const EntryRef& ref, uint64_t kept) {
    GuestRange range = ClusterRange(image(), ref.Guest(image()));
    kept = std::min(kept, range.length);
    editor_.Changed(MakeGuestRange(range.offset.value + kept, range.length - kept), true);
  }

  Editor editor_;
  bool deep_;
  bool unaligned_ = false, past_eof_ = false, zero_length_ = false, cut_stream_ = false;
  bool undecodable_ = false, past_size_ = false, plaintext_ = false;
  uint64_t without_key_ = 0;
  ByteVector stream_, cluster_;
};

}  // namespace

Result<PassOutcome> RepairL2Entries(const PassContext& context) { return Entries(context).Run(); }

}  // namespace imgfsck::qcow1

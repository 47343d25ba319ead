// SPDX-License-Identifier: Apache-2.0
// The deep check (rows 62 to 65 and 151): every compressed cluster is decoded, on all cores; holes
// of the host file inside data clusters are counted.
#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "analyzers/qcow2/entry_rules.h"
#include "analyzers/qcow2/state.h"
#include "analyzers/qcow2/stream_overlaps.h"
#include "analyzers/qcow2/streams.h"
#include "base/interrupt.h"
#include "base/parallel.h"
#include "base/text.h"
#include "formats/common/stored.h"

namespace imgfsck::qcow2 {
namespace {

constexpr size_t kWork = 1 << 15;  // entries gathered before they are decoded together
constexpr size_t kShare = 32;      // of these, what a thread takes at a time

// A compressed entry, and what became of it.
struct Work {
  StreamRef ref;
  DecodedStream decoded;

  auto Key() const { return std::tuple(ref.table.column, ref.index, ref.descriptor); }
};

class DeepCheck {
 public:
  DeepCheck(CheckState* state, const CheckOptions& options, Findings* findings)
      : state_(*state),
        image_(*state->image),
        g_(image_.geometry),
        options_(options),
        findings_(findings),
        decoder_(image_) {}

  Status Run() {
    IMG_RETURN_IF_ERROR(DecodeAll());
    IMG_RETURN_IF_ERROR(JudgeOverlaps());
    return JudgeHoles();
  }

 private:
  Status DecodeAll() {
    std::vector<TableRef> tables;
    std::vector<HostRange> bad;
    const Columns& columns = *state_.columns;
    for (uint64_t begin = 0; begin < columns.count(); begin += columns.ChunkSize()) {
      columns.Read(begin, std::min(begin + columns.ChunkSize(), columns.count()), &tables, nullptr,
                   &bad);
      for (const TableRef& table : tables) {
        // The tables of one column share most entries: they are decoded together.
        if (work_.size() >= kWork && table.column != work_.back().ref.table.column) {
          IMG_RETURN_IF_ERROR(DecodeWork());
        }
        Gather(table);
        IMG_RETURN_IF_ERROR(CheckStop());
        if (options_.progress)
          options_.progress("compressed clusters", table.column, columns.count());
      }
    }
    return DecodeWork();
  }

  void Gather(const TableRef& table) {
    bytes_.resize(g_.cluster_size);
    std::vector<HostRange> bad;
    ReadTolerant(*image_.source, table.offset, bytes_, &bad);
    if (AllZero(bytes_) || Implausible(image_, bytes_)) return;
    for (uint64_t i = 0; i < g_.l2_entries; ++i) {
      const Entry entry = LoadEntry(g_, bytes_, i);
      if (!entry.compressed() || ClaimOf(image_, entry).kind == EntryClaim::Kind::kNone) continue;
      work_.push_back({{table, i, entry.descriptor}, {}});
    }
  }

  Status DecodeWork() {
    std::stable_sort(work_.begin(), work_.end(),
                     [](const Work& a, const Work& b) { return a.Key() < b.Key(); });
    std::vector<size_t> firsts;  // of entries that are the same
    for (size_t i = 0; i < work_.size(); ++i) {
      if (i == 0 || work_[i].Key() != work_[i - 1].Key()) firsts.push_back(i);
    }
    IMG_RETURN_IF_ERROR(ParallelFor(
        DivRoundUp(firsts.size(), kShare), options_.threads == 0 ? UsableCores() : options_.threads,
        [&](unsigned, size_t share) -> Status {
          const size_t end = std::min(firsts.size(), (share + 1) * kShare);
          for (size_t i = share * kShare; i < end; ++i) {
            Work& work = work_[firsts[i]];
            work.decoded = decoder_.Decode(work.ref.descriptor);
          }
          return CheckStop();
        }));
    for (size_t i = 0; i < work_.size(); ++i) {
      const bool again = i > 0 && work_[i].Key() == work_[i - 1].Key();
      if (again) work_[i].decoded = work_[i - 1].decoded;
      Judge(work_[i], !again);
    }
    work_.clear();
    return Ok();
  }

  void Judge(const Work& work, bool first) {
    const CompressedSpan span = DecodeCompressed(g_, work.ref.descriptor);
    const DecodedStream& decoded = work.decoded;
    if (first) {
      streams_.Add(span.offset, decoded.sound ? decoded.length : decoder_.shortest());
    }
    auto add = [&](Problem problem, std::string detail, std::vector<StreamRef>* list,
                   uint64_t descriptor) {
      findings_->Add(
          EntryFinding(image_, work.ref.table, work.ref.index, problem, std::move(detail)));
      if (list->size() >= StreamPlaces::kMost) return;
      list->push_back({work.ref.table, work.ref.index, descriptor});
    };
    std::string where = fmt::format("{} bytes at {}", span.length, Hex(span.offset));
    if (!decoded.sound) {
      add(Problem::kQcow2ComprUndecodable, std::move(where), &state_.undecodable,
          work.ref.descriptor);
    } else if (decoded.length > span.length) {
      add(Problem::kQcow2ComprShortSpan, fmt::format("{}, {} needed", where, decoded.length),
          &state_.misfits, decoder_.WithLength(work.ref.descriptor, decoded.length));
    } else if ((span.offset + decoded.length - 1) >> g_.cluster_bits < (span.end() - 1) >>
               g_.cluster_bits) {
      add(Problem::kQcow2ComprLongSpan, fmt::format("{}, {} used", where, decoded.length),
          &state_.misfits, decoder_.WithLength(work.ref.descriptor, decoded.length));
    }
  }

  Status JudgeOverlaps() {
    return JudgeStreamOverlaps(
        image_, *state_.columns, streams_.Overlapping(),
        [&](const CompressedSpan& span) {
          const DecodedStream decoded = decoder_.Decode(span);
          return decoded.sound ? decoded.length : decoder_.shortest();
        },
        findings_, &state_.overlaps);
  }

  // Data clusters without a byte of their own in the host file: never written, or punched by an
  // accident that no metadata shows.
  Status JudgeHoles() {
    uint64_t found = 0, first = 0;
    for (uint64_t at = 0; at < image_.file_size;) {
      auto extent = image_.source->ExtentAt(at);
      if (!extent || extent->length == 0) break;
      if (extent->hole) {
        IMG_RETURN_IF_ERROR(ForEachLastingHole(
            *image_.source, at, at + extent->length, [&](uint64_t begin, uint64_t end) -> Status {
              for (uint64_t c = DivRoundUp(begin, g_.cluster_size); c < end >> g_.cluster_bits;
                   ++c) {
                if (!state_.claims().IsData(c)) continue;
                if (found++ == 0) first = c;
              }
              return Ok();
            }));
      }
      at += extent->length;
    }
    if (found == 0) return Ok();
    Finding f;
    f.problem = Problem::kQcow2DataHole;
    f.structure = "data";
    f.host = MakeHostRange(first << g_.cluster_bits, g_.cluster_size);
    f.count = found;
    if (findings_->Units(Severity::kCorruption) > 0) f.severity = Severity::kWarning;
    findings_->Add(std::move(f));
    return Ok();
  }

  CheckState& state_;
  const Image& image_;
  const Geometry& g_;
  const CheckOptions& options_;
  Findings* findings_;
  StreamDecoder decoder_;
  ByteVector bytes_;
  std::vector<Work> work_;
  StreamPlaces streams_;
};

}  // namespace

Status JudgeDeep(CheckState* state, const CheckOptions& options, Findings* findings) {
  return DeepCheck(state, options, findings).Run();
}

}  // namespace imgfsck::qcow2

// SPDX-License-Identifier: Apache-2.0
// qcow2: names, features, sizes and counts, as the header and what hangs on it state them.
#include <fmt/format.h>

#include <algorithm>

#include "formats/qcow2/image.h"
#include "triage/policy/collector.h"

namespace imgfsck {
namespace {

using namespace qcow2;

// Beyond this, opening takes minutes; honest ones take some million.
constexpr uint32_t kMostIterations = 200'000'000;

// Where the field `name` stands in the header.
const FieldSpec& Field(std::string_view name) {
  return *std::ranges::find(HeaderFields(), name, &FieldSpec::name);
}

class Qcow2Judge {
 public:
  Qcow2Judge(std::shared_ptr<const Image> image, ReasonCollector& out)
      : image_(std::move(image)), h_(image_->header), out_(out) {}

  void Run() {
    Features();
    Shape();
    if (!image_->walkable) return;
    Backing();
    DataFile();
    Tables();
    Snapshots();
    Bitmaps();
    Encryption();
  }

 private:
  void At(ReasonCode code, std::string_view field, std::string detail = {}) {
    const FieldSpec& spec = Field(field);
    out_.AddAt(code, spec.offset, spec.length, std::move(detail));
  }

  void Features() {
    if (h_.version != 2 && h_.version != 3) {
      At(ReasonCode::kFeatureUnknown, "version", fmt::format("version {}", h_.version));
    }
    const uint64_t unknown = h_.incompatible_features & ~kIncompatKnown;
    if (unknown != 0) {
      At(ReasonCode::kFeatureUnknown, "incompatible_features", fmt::format("bits {:#x}", unknown));
    }
    if (h_.Incompatible(kIncompatCompression) && h_.compression_type > kZstd) {
      At(ReasonCode::kFeatureUnknown, "compression_type",
         fmt::format("compression {}", h_.compression_type));
    }
    if (h_.Incompatible(kIncompatDirty)) {
      At(ReasonCode::kTimeBomb, "incompatible_features", "marked dirty");
    }
    if (h_.Incompatible(kIncompatCorrupt)) {
      At(ReasonCode::kDamaged, "incompatible_features", "marked corrupt");
    }
  }

  // Fields that readers shift and multiply by.
  void Shape() {
    if (h_.cluster_bits < kMinClusterBits || h_.cluster_bits > kMaxClusterBits) {
      At(ReasonCode::kMemSafety, "cluster_bits", fmt::format("{}", h_.cluster_bits));
    }
    if (h_.refcount_order > kMaxRefcountOrder) {
      At(ReasonCode::kMemSafety, "refcount_order", fmt::format("{}", h_.refcount_order));
    }
    // Whatever can be made of the rest: readers go by this one number.
    if (h_.backing_file_offset != 0 && !image_->walkable) {
      At(ReasonCode::kRefBacking, "backing_file_offset");
    }
  }

  void Backing() {
    if (h_.backing_file_offset == 0) return;
    const uint64_t offset = h_.backing_file_offset, length = h_.backing_file_size;
    const uint64_t cluster = image_->geometry.cluster_size;
    if (image_->backing_name) {
      out_.AddName(ReasonCode::kRefBacking, *image_->backing_name, offset, length);
    } else {
      At(ReasonCode::kRefBacking, "backing_file_offset", "its name cannot be read");
    }
    if (!RangeFits(offset, length, cluster)) {
      out_.AddAt(ReasonCode::kNameOverlap, offset, length, "outside the first cluster");
    } else if (offset < h_.ExtensionsBegin()) {
      out_.AddAt(ReasonCode::kNameOverlap, offset, length, "on the header");
    }
    if (length > kMaxBackingNameLength) {
      At(ReasonCode::kMemSafety, "backing_file_size", fmt::format("{} bytes", length));
    }
  }

  void DataFile() {
    const Extension* record = image_->extensions.Find(kExtDataFile);
    if (record != nullptr && image_->data_file_name) {
      out_.AddName(
          image_->has_data_file() ? ReasonCode::kRefDataFile : ReasonCode::kRefDataFileUnused,
          *image_->data_file_name, record->offset + 8, record->length);
    } else if (image_->has_data_file()) {
      At(ReasonCode::kRefDataFile, "incompatible_features", "without a name");
    }
  }

  void Tables() {
    if (image_->active.declared > kMaxL1Bytes / 8) {
      At(ReasonCode::kDosTable, "l1_size", fmt::format("{} entries", image_->active.declared));
    }
    const uint64_t counts = uint64_t{h_.refcount_table_clusters} * image_->geometry.cluster_size;
    if (counts > kMaxRefcountTableBytes) {
      At(ReasonCode::kDosTable, "refcount_table_clusters", fmt::format("{} bytes", counts));
    }
    if (h_.nb_snapshots > kMaxSnapshots) {
      At(ReasonCode::kDosTable, "nb_snapshots", fmt::format("{} snapshots", h_.nb_snapshots));
    }
    // A header without an image behind it.
    if (h_.l1_table_offset >= image_->file_size && h_.refcount_table_offset >= image_->file_size) {
      At(ReasonCode::kProbeConfusion, "l1_table_offset", "neither table lies in the file");
    }
    if (image_->extensions.overrun) {
      out_.AddAt(ReasonCode::kDosTable, *image_->extensions.overrun, 8,
                 "a header extension does not fit");
    }
  }

  void Snapshots() {
    for (const Snapshot& s : image_->snapshots.entries) {
      if (s.vm_state_size() > 0) {
        out_.AddAt(ReasonCode::kSnapshotVmState, s.host_offset, s.length,
                   fmt::format("{}: {} bytes", s.name, s.vm_state_size()));
      }
      if (s.l1_size > kMaxL1Bytes / 8) {
        out_.AddAt(ReasonCode::kDosTable, s.host_offset + 8, 4,
                   fmt::format("{} entries", s.l1_size));
      }
      if (s.extra_data_size > kMaxSnapshotExtra) {
        out_.AddAt(ReasonCode::kDosTable, s.host_offset + 36, 4,
                   fmt::format("{} bytes of extra data", s.extra_data_size));
      }
    }
  }

  void Bitmaps() {
    const Extension* record = image_->extensions.Find(kExtBitmaps);
    if (record != nullptr && image_->bitmaps_extension) {
      const BitmapsExtension& e = *image_->bitmaps_extension;
      if (e.nb_bitmaps > kMaxBitmaps || e.directory_size > kMaxBitmapDirectoryBytes) {
        out_.AddAt(ReasonCode::kDosTable, record->offset + 8, 16,
                   fmt::format("{} bitmaps in {} bytes", e.nb_bitmaps, e.directory_size));
      }
    }
    for (const Bitmap& b : image_->bitmaps.entries) {
      if (b.in_use()) {
        out_.AddAt(ReasonCode::kTimeBomb, b.host_offset, b.length, "bitmap in use: " + b.name);
      }
      if (b.table_size > kMaxBitmapTableEntries) {
        out_.AddAt(ReasonCode::kDosTable, b.host_offset + 8, 4,
                   fmt::format("{} entries", b.table_size));
      }
    }
  }

  void Encryption() {
    if (h_.crypt_method == kCryptAes) At(ReasonCode::kLegacyCrypt, "crypt_method");
    if (h_.crypt_method == kCryptLuks) At(ReasonCode::kEncrypted, "crypt_method", "LUKS");
    if (h_.crypt_method > kCryptLuks) {
      At(ReasonCode::kFeatureUnknown, "crypt_method", fmt::format("method {}", h_.crypt_method));
    }
    if (!image_->luks || !image_->encryption) return;
    uint32_t most = image_->luks->digest_iterations;
    for (const LuksSlot& slot : image_->luks->slots) {
      if (slot.state == kLuksSlotActive) most = std::max(most, slot.iterations);
    }
    if (most > kMostIterations) {
      out_.AddAt(ReasonCode::kDosTable, image_->encryption->offset, kLuksHeaderSize,
                 fmt::format("{} iterations of the key derivation", most));
    }
  }

  std::shared_ptr<const Image> image_;
  const Header& h_;
  ReasonCollector& out_;
};

}  // namespace

void JudgeQcow2(ReasonCollector& out) {
  auto image = ParseImage(out.file());
  if (image) Qcow2Judge(std::move(*image), out).Run();
}

}  // namespace imgfsck

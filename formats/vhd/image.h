// SPDX-License-Identifier: Apache-2.0
// A VHD as found: both footers, the dynamic header, where the tables lie; and what to go by where
// they are damaged. Parsing never stops at damage and reports nothing: analyzers/vhd says what is
// wrong, repair/vhd writes down what this file concluded. Memory does not grow with the image; the
// block allocation table (BAT) is read in pieces (bat.h).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/units.h"
#include "formats/vhd/geometry.h"
#include "formats/vhd/parse.h"
#include "io/byte_source.h"

namespace imgfsck::vhd {

// What stands where a footer or header should be. A higher one is more to be believed.
enum class SlotState : uint8_t {
  kAbsent,
  kKilled,    // filled with 0xC7: tapdisk has it open, or died
  kPoisoned,  // vhd-util was moving blocks
  kRemains,   // parts of the signature, and a wrong checksum: headers only
  kNoCookie,  // sound but for the cookie
  kBadChecksum,
  kSound,
};

struct FooterSlot {
  SlotState state = SlotState::kAbsent;
  uint64_t offset = 0, length = kFooterSize;
  Footer footer;
  bool believable() const { return state >= SlotState::kNoCookie; }
  bool sound() const { return state == SlotState::kSound; }
};

// How the fields that are gone by were come by.
enum class Origin : uint8_t {
  kStored,     // as they stand at their place
  kCopy,       // from the other footer
  kElsewhere,  // found by searching the file
  kCorrected,  // with a field changed so that the stored checksum is right
  kInferred,   // worked out from other structures
};

struct Provenance {
  Origin origin = Origin::kStored;
  double confidence = 1;  // 0-1
  std::string evidence;   // in words; empty for kStored
};

enum class Kind : uint8_t { kFixed, kDynamic, kDifferencing };
std::string_view ToText(Kind kind);  // "fixed", "dynamic", "differencing"

// A range that metadata claims. The footer is not among them: it moves.
struct MetaRegion {
  uint64_t offset = 0, length = 0;
  std::string_view kind;  // as in the table `region`
  std::string name;       // "locator[2]"
  uint64_t end() const { return offset + length; }
};

struct ParseOptions {
  SizePolicy policy = SizePolicy::kAuto;
  bool search = true;   // look further than the places where structures belong
  bool make_up = true;  // a footer where none is left
};

struct Image {
  const ByteSource* source = nullptr;
  uint64_t file_size = 0;
  SizePolicy policy = SizePolicy::kAuto;
  std::vector<HostRange> unreadable;

  FooterSlot trailing, leading;
  bool trailing_at_end = false;  // no bytes behind the trailing footer
  Footer footer;                 // the one to go by
  Provenance footer_from;
  Kind kind = Kind::kFixed;

  // All below only when sparse().
  SlotState header_state = SlotState::kAbsent;
  uint64_t header_offset = 0;  // where it stands, or should
  DynHeader stored_header;     // what stands there
  DynHeader header;            // the one to go by
  Provenance header_from;
  uint64_t block_size = 0, bitmap_bytes = 0;
  uint64_t bat_offset = 0;
  uint64_t bat_entries = 0;            // as many as the header says
  uint64_t bat_stored = 0;             // of those, inside the file
  uint64_t batmap_offset = 0;          // where its header belongs
  std::optional<BatmapHeader> batmap;  // when it has its cookie
  std::vector<MetaRegion> regions;     // ascending

  bool sparse() const { return kind != Kind::kFixed; }
  uint64_t VirtualSize() const { return vhd::VirtualSize(footer, policy); }
  uint64_t BlocksNeeded() const;  // entries that the size asks for
  uint64_t BlockLength() const { return bitmap_bytes + block_size; }
  uint64_t BatBytes() const {
    return (bat_entries * 4 + kSectorSize - 1) / kSectorSize * kSectorSize;
  }
  uint64_t BatmapBytes() const;                // of the map, inside the file
  bool BatmapUsable() const;                   // in the file, long enough
  bool ClearOfMetadata(uint64_t start) const;  // a block that starts there
  uint64_t EndOfMetadata() const;              // of the part before the blocks
  uint64_t DataEnd() const;                    // trailing footer, or the file's end
};

// Fills regions anew, after a table was moved.
void ListRegions(Image* image);

// Fails only when the source gives nothing at all.
Result<std::unique_ptr<Image>> ParseImage(const ByteSource& source, const ParseOptions& options);

}  // namespace imgfsck::vhd

// SPDX-License-Identifier: Apache-2.0
// The guest-to-host map in the two shapes of `qemu-img map`: JSON, byte for byte as QEMU 7.2
// prints it, and text. Millions of entries go through here, so it formats without detours.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/text_writer.h"
#include "model/rows.h"

namespace imgfsck {

struct MapEntry {
  uint64_t start = 0, length = 0;  // guest bytes
  uint64_t depth = 0;              // 0: this image, 1: its backing file …
  bool present = false;            // a layer of the chain says what is there
  bool zero = false, data = false;
  std::optional<uint64_t> offset;  // where the bytes are stored as they are
  std::string_view filename;       // of that layer's file; the same object for the same file
};

// A mapping row of the image at `depth`. `ends_chain`: nothing lies below, so what is not
// allocated reads as zeros.
MapEntry MapEntryOf(const MappingRow& row, uint64_t depth, bool ends_chain,
                    std::string_view filename);

enum class MapStyle { kJson, kText };

// Takes entries in ascending order and joins those that continue each other, as qemu-img does.
class MapWriter {
 public:
  MapWriter(MapStyle style, TextWriter& out);
  void Add(const MapEntry& entry);
  Status Finish();

 private:
  void Put(const MapEntry& entry, bool last);
  void PutJson(const MapEntry& entry, bool last);
  void PutText(const MapEntry& entry);
  MapStyle style_;
  TextWriter& out_;
  std::optional<MapEntry> pending_;
};

// The map of one layer of one image, without what its backing file has. Fails when the layer does
// not exist.
Status WriteMap(const ImageRows& rows, const std::string& layer, MapStyle style, TextWriter& out);

}  // namespace imgfsck

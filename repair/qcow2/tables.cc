// SPDX-License-Identifier: Apache-2.0
#include "base/interrupt.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {

Status ForEachTable(Overlay& overlay, const CheckState& state, const TableVisitor& visit) {
  const Columns& columns = *state.columns;
  uint64_t size = state.image->geometry.cluster_size;
  std::vector<TableRef> tables;
  std::vector<HostRange> bad;
  ByteVector bytes(size);
  for (uint64_t begin = 0; begin < columns.count(); begin += columns.ChunkSize()) {
    columns.Read(begin, std::min(begin + columns.ChunkSize(), columns.count()), &tables, nullptr,
                 &bad);
    for (const TableRef& table : tables) {
      IMG_RETURN_IF_ERROR(CheckStop());
      bad.clear();
      ReadTolerant(overlay, table.offset, bytes, &bad);
      // What the medium does not give is not rewritten with guesses.
      if (!bad.empty() || AllZero(bytes) || Implausible(*state.image, bytes)) continue;
      bool changed = false;
      IMG_RETURN_IF_ERROR(visit(table, bytes, &changed));
      if (changed) IMG_RETURN_IF_ERROR(overlay.WriteAt(table.offset, bytes));
    }
  }
  return Ok();
}

void AddLayers(const CheckState& state, const TableRef& table, uint64_t index,
               std::vector<LayerRange>* ranges) {
  const Image& image = *state.image;
  const Geometry& g = image.geometry;
  uint64_t guest = (table.column * g.l2_entries + index) << g.cluster_bits;
  for (uint32_t layer : state.columns->LayersOf(table.column, table.offset)) {
    ranges->push_back({image.LayerName(layer), MakeGuestRange(guest, g.cluster_size)});
  }
}

}  // namespace imgfsck::qcow2

// SPDX-License-Identifier: Apache-2.0
// What is wrong in a table that several layers use is wrong in each of them.
#include <map>
#include <utility>

#include "analyzers/qcow2/state.h"
#include "formats/qcow2/mapping.h"

namespace imgfsck::qcow2 {
namespace {

constexpr size_t kMostTables = 4096;  // asked about
constexpr size_t kMostLayers = 64;    // named with one finding

class Sharing {
 public:
  explicit Sharing(const CheckState& state) : image_(*state.image), columns_(*state.columns) {
    for (size_t i = 0; i < image_.LayerCount(); ++i) numbers_.try_emplace(image_.LayerName(i), i);
  }

  void Name(Finding* f) {
    if (!f->guest || f->layer.empty()) return;
    const auto number = numbers_.find(f->layer);
    if (number == numbers_.end()) return;
    const uint64_t column = f->guest->offset.value / image_.geometry.l2_span;
    if (f->structure != image_.TableName(number->second, column)) return;
    const auto* layers = LayersOf(number->second, column);
    if (layers == nullptr) return;
    size_t named = 0;
    for (uint32_t layer : *layers) {
      if (layer == number->second || ++named > kMostLayers) continue;
      f->also.push_back({image_.LayerName(layer), f->guest, image_.TableName(layer, column)});
    }
  }

 private:
  const std::vector<uint32_t>* LayersOf(size_t layer, uint64_t column) {
    auto known = known_.find({layer, column});
    if (known != known_.end()) return &known->second;
    if (known_.size() >= kMostTables) return nullptr;
    const uint64_t table = TableOffset(image_, L1Window(image_, layer).At(column));
    auto& layers = known_[{layer, column}];
    if (table != 0) layers = columns_.LayersOf(column, table);
    return &layers;
  }

  const Image& image_;
  const Columns& columns_;
  std::map<std::string, size_t> numbers_;
  std::map<std::pair<size_t, uint64_t>, std::vector<uint32_t>> known_;
};

}  // namespace

void NameSharingLayers(const CheckState& state, Findings* findings) {
  if (!state.walked || state.image->LayerCount() < 2) return;
  Sharing sharing(state);
  for (Finding& finding : findings->kept()) sharing.Name(&finding);
}

}  // namespace imgfsck::qcow2

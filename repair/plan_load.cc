// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/checked.h"
#include "base/text.h"
#include "io/file.h"
#include "io/sha256.h"
#include "repair/judge.h"
#include "repair/plan_file.h"

namespace imgfsck {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kHashKey = ", \"sha256\": \"";
constexpr size_t kHashTail = kHashKey.size() + 64 + 3;  // the digits, "}\n

Error Unsound(std::string_view what) {
  return {ErrorCode::kInvalid, fmt::format("not a sound plan file: {}", what), {}};
}

Result<std::string> ReadText(const std::string& path) {
  IMG_ASSIGN_OR_RETURN(const auto file, FileSource::Open(path));
  if (file->Size() > kLargestPlanFile) {
    return Error{
        ErrorCode::kTooLarge, fmt::format("{} is larger than any plan file", Printable(path)), {}};
  }
  std::string text(file->Size(), '\0');
  IMG_RETURN_IF_ERROR(ReadExact(*file, 0, {reinterpret_cast<uint8_t*>(text.data()), text.size()}));
  return text;
}

// The hash stands last and covers everything before it.
Status CheckHash(std::string_view text) {
  if (text.size() < kHashTail) return Unsound("it is too short");
  const std::string_view body = text.substr(0, text.size() - kHashTail);
  const std::string expected = fmt::format("{}{}\"}}\n", kHashKey, HexSha256(AsBytes(body)));
  if (text.substr(body.size()) == expected) return Ok();
  return Unsound("its hash does not match, so it was changed or cut off");
}

const Json* Find(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  auto member = object.find(key);
  return member == object.end() ? nullptr : &*member;
}
Result<uint64_t> Number(const Json& object, const char* key) {
  const Json* member = Find(object, key);
  if (member == nullptr || !member->is_number_unsigned()) {
    return Unsound(fmt::format("\"{}\" is no number", key));
  }
  return member->get<uint64_t>();
}
Result<std::string> Text(const Json& object, const char* key) {
  const Json* member = Find(object, key);
  if (member == nullptr || !member->is_string()) {
    return Unsound(fmt::format("\"{}\" is no text", key));
  }
  return member->get<std::string>();
}
Result<const Json*> Array(const Json& object, const char* key) {
  const Json* member = Find(object, key);
  if (member == nullptr || !member->is_array()) {
    return Unsound(fmt::format("\"{}\" is no list", key));
  }
  return member;
}

Status LoadRanges(const Json& json, const char* key, std::vector<LayerRange>* ranges) {
  IMG_ASSIGN_OR_RETURN(const Json* list, Array(json, key));
  for (const Json& item : *list) {
    IMG_ASSIGN_OR_RETURN(std::string layer, Text(item, "layer"));
    IMG_ASSIGN_OR_RETURN(const uint64_t offset, Number(item, "guest-offset"));
    IMG_ASSIGN_OR_RETURN(const uint64_t length, Number(item, "guest-length"));
    if (!CheckedAdd(offset, length)) return Unsound("a guest range is too large");
    ranges->push_back({std::move(layer), MakeGuestRange(offset, length)});
  }
  return Ok();
}

Status LoadPasses(const Json& json, Plan* plan) {
  IMG_ASSIGN_OR_RETURN(const Json* list, Array(json, "passes"));
  for (const Json& item : *list) {
    PassRun run;
    IMG_ASSIGN_OR_RETURN(run.name, Text(item, "name"));
    IMG_ASSIGN_OR_RETURN(run.sentence, Text(item, "sentence"));
    IMG_ASSIGN_OR_RETURN(run.outcome.changes, Number(item, "changes"));
    const Json* dropped = Find(item, "dropped");
    run.dropped = dropped != nullptr && dropped->is_boolean() && dropped->get<bool>();
    if (run.dropped) {
      IMG_ASSIGN_OR_RETURN(run.reason, Text(item, "reason"));
    }
    IMG_ASSIGN_OR_RETURN(const Json* notes, Array(item, "notes"));
    for (const Json& note : *notes) {
      if (note.is_string()) run.outcome.notes.push_back(note.get<std::string>());
    }
    plan->passes.push_back(std::move(run));
  }
  return Ok();
}

// Writes one patch into the overlay, whose base must hold its pre-image.
Status LoadPatch(const Json& item, uint64_t* end, Overlay* overlay) {
  IMG_ASSIGN_OR_RETURN(const uint64_t offset, Number(item, "offset"));
  IMG_ASSIGN_OR_RETURN(const uint64_t old_length, Number(item, "old-length"));
  IMG_ASSIGN_OR_RETURN(const std::string old_hash, Text(item, "old-sha256"));
  IMG_ASSIGN_OR_RETURN(const std::string encoded, Text(item, "new"));
  ByteVector bytes;
  if (!Base64Decode(encoded, &bytes)) return Unsound("new bytes are not in base 64");
  const uint64_t old_size = overlay->base().Size();
  const uint64_t old_end = std::min(old_size, SaturatingAdd(offset, bytes.size()));
  if (offset < *end || bytes.empty() || !RangeFits(offset, bytes.size(), overlay->Size()) ||
      old_length != old_end - std::min(old_end, offset)) {
    return Unsound("a patch is out of order or does not fit the image");
  }
  *end = offset + bytes.size();
  ByteVector old_bytes(old_length);
  IMG_RETURN_IF_ERROR(ReadExact(overlay->base(), offset, old_bytes));
  if (HexSha256(old_bytes) != old_hash) {
    return Error{ErrorCode::kConflict,
                 "the image is not what the plan was made for: other bytes stand where it would "
                 "write; nothing was changed",
                 offset};
  }
  return overlay->WriteAt(offset, bytes);
}

Status LoadPatches(const Json& json, const Format& format, Plan* plan) {
  const Json* image = Find(json, "image");
  if (image == nullptr) return Unsound("it names no image");
  IMG_ASSIGN_OR_RETURN(const std::string name, Text(*image, "format"));
  IMG_ASSIGN_OR_RETURN(const uint64_t old_size, Number(*image, "size"));
  IMG_ASSIGN_OR_RETURN(const uint64_t new_size, Number(json, "new-size"));
  if (name != format.name || old_size != plan->overlay->Size()) {
    return Error{ErrorCode::kConflict,
                 fmt::format("the plan is for a {} image of {} bytes, and this is a {} image of {}",
                             Printable(name), old_size, format.name, plan->overlay->Size()),
                 {}};
  }
  if (new_size > INT64_MAX) return Unsound("the new length is absurd");
  IMG_RETURN_IF_ERROR(plan->overlay->SetSize(new_size));
  IMG_ASSIGN_OR_RETURN(const Json* patches, Array(json, "patches"));
  uint64_t end = 0;
  for (const Json& item : *patches) {
    IMG_RETURN_IF_ERROR(LoadPatch(item, &end, plan->overlay.get()));
  }
  return Ok();
}

Status JudgeResult(const Plan& plan) {
  RangeSet touched;
  IMG_RETURN_IF_ERROR(plan.overlay->ForEachPatch([&](uint64_t offset, Bytes, Bytes bytes) {
    touched.Add(offset, bytes.size());
    return Ok();
  }));
  const auto problems = NewProblems(plan.before, plan.after, std::move(touched), {});
  if (problems.empty()) return Ok();
  return Error{
      ErrorCode::kConflict,
      "the plan would bring a new problem, so it is not carried out: " + problems.front().sentence,
      {}};
}

}  // namespace

Result<Plan> LoadPlanFile(const std::string& path, const ByteSource& source, const Format& format,
                          const RepairKit& kit) {
  IMG_ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  IMG_RETURN_IF_ERROR(CheckHash(text));
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return Unsound("it is not JSON");
  IMG_ASSIGN_OR_RETURN(const uint64_t version, Number(json, "imgfsck-plan"));
  if (version != 1) return Unsound(fmt::format("its version is {}, not 1", version));
  Plan plan;
  plan.overlay = std::make_unique<Overlay>(source);
  IMG_RETURN_IF_ERROR(LoadPatches(json, format, &plan));
  IMG_RETURN_IF_ERROR(LoadPasses(json, &plan));
  IMG_RETURN_IF_ERROR(LoadRanges(json, "changed", &plan.changed));
  IMG_RETURN_IF_ERROR(LoadRanges(json, "lost", &plan.lost));
  IMG_RETURN_IF_ERROR(MeasurePatches(*plan.overlay, &plan.patches, &plan.bytes, &plan.patch_hash));
  IMG_ASSIGN_OR_RETURN(plan.before, kit.check(source));
  if (plan.Empty()) return plan;
  IMG_ASSIGN_OR_RETURN(plan.after, kit.check(*plan.overlay));
  IMG_RETURN_IF_ERROR(JudgeResult(plan));
  return plan;
}

}  // namespace imgfsck

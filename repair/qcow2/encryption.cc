// SPDX-License-Identifier: Apache-2.0
// What leads to the LUKS header (the method in the image's header, the extension with its place and
// length) and the fields of the LUKS header that follow from the others. Nothing that a passphrase
// needs is ever guessed, and no key is needed here.
#include <fmt/format.h>

#include <algorithm>

#include "analyzers/qcow2/luks_rules.h"
#include "repair/qcow2/extension_area.h"
#include "repair/qcow2/luks_search.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kEncryptionProblems = {
    Problem::kQcow2HdrCryptMethod, Problem::kQcow2ExtCryptoMissing, Problem::kQcow2ExtCryptoOrphan,
    Problem::kQcow2ExtCryptoShape, Problem::kQcow2LuksInFile,       Problem::kQcow2LuksSlotState,
    Problem::kQcow2LuksSlotLayout, Problem::kQcow2LuksNoSlot};
// A dropped extension's clusters are left to the lost-found pass.
constexpr Problem kEncryptionMayAdd[] = {Problem::kQcow2RefcountLeak};

class EncryptionRepair {
 public:
  explicit EncryptionRepair(const PassContext& context)
      : context_(context),
        state_(StateOf(context.report)),
        image_(*state_.image),
        area_(AreaOf(image_)) {}

  Result<PassOutcome> Run() {
    if (Should(Problem::kQcow2HdrCryptMethod) || Should(Problem::kQcow2ExtCryptoMissing) ||
        Should(Problem::kQcow2ExtCryptoOrphan) || Should(Problem::kQcow2ExtCryptoShape)) {
      IMG_RETURN_IF_ERROR(MendLink());
      return outcome_;
    }
    if (!image_.encryption || image_.header.crypt_method != kCryptLuks) return outcome_;
    if (!image_.luks || !image_.luks->magic_ok) {
      IMG_RETURN_IF_ERROR(FindElsewhere());
      return outcome_;
    }
    if (Should(Problem::kQcow2LuksInFile)) IMG_RETURN_IF_ERROR(MendLength());
    IMG_RETURN_IF_ERROR(MendPayload());
    for (size_t slot = 0; slot < image_.luks->slots.size(); ++slot) {
      IMG_RETURN_IF_ERROR(MendSlot(slot));
    }
    return outcome_;
  }

 private:
  bool Should(Problem problem) const { return Mends(context_, problem); }

  // The method and the extension: both, or neither.
  Status MendLink() {
    if (!state_.counts_compared) {
      outcome_.notes.push_back("the LUKS header is looked for once the stored counts can be read");
      return Ok();
    }
    std::optional<uint64_t> hint;
    const Extension* record = image_.extensions.Find(kExtEncryption);
    if (record != nullptr && record->data.size() >= 8) hint = BeAt<uint64_t>(record->data, 0);
    const bool method_says_luks = image_.header.crypt_method == kCryptLuks;
    // Without the extension an unknown method alone does not make a header found by chance ours.
    const bool look = method_says_luks || record != nullptr;
    if (auto found = look ? FindLuks(context_.image, state_, hint) : std::nullopt) {
      return Link(*found);
    }
    IMG_ASSIGN_OR_RETURN(const bool plain, ProvenPlain(context_.image, state_));
    if (plain) return Unlink();
    if (record != nullptr && image_.header.crypt_method <= kCryptAes) return Unlink();
    outcome_.notes.push_back(
        record != nullptr || method_says_luks
            ? "no LUKS header, and not one only, was found in the file, and nothing shows that the "
              "data is not encrypted: the encryption is left as it is"
            : "nothing in the file shows whether and how the data is encrypted: left as it is");
    return Ok();
  }

  // The extension is well formed, but no LUKS header stands where it says.
  Status FindElsewhere() {
    if (context_.options.mode != RepairMode::kAll || !state_.counts_compared) return Ok();
    auto found = FindLuks(context_.image, state_, std::nullopt);
    return found ? Link(*found) : Ok();
  }

  Status Link(uint64_t offset) {
    auto luks = PlausibleLuks(context_.image, image_, offset);
    if (!luks) return Ok();
    ByteVector data(kEncryptionExtLength);
    PutBe(data, 0, offset);
    PutBe(data, 8, luks->payload_sector * kSector);
    area_.SetExtension(kExtEncryption, std::move(data));
    area_.header.crypt_method = kCryptLuks;
    outcome_.particulars.push_back(
        fmt::format("the LUKS header at {:#x} was recorded again", offset));
    return WriteArea();
  }

  Status Unlink() {
    area_.SetExtension(kExtEncryption, std::nullopt);
    if (area_.header.crypt_method != kCryptAes) area_.header.crypt_method = kCryptNone;
    outcome_.particulars.push_back(area_.header.crypt_method == kCryptAes
                                       ? "the pointer to a LUKS header that is none was dropped"
                                       : "the image is recorded as not encrypted");
    return WriteArea();
  }

  Status WriteArea() {
    IMG_ASSIGN_OR_RETURN(const ByteVector cluster, EncodeFirstCluster(image_, std::move(area_)));
    ++outcome_.changes;
    // What was encrypted for nobody, or read as plain data, reads otherwise.
    for (size_t layer = 0; layer < image_.LayerCount(); ++layer) {
      outcome_.changed.push_back(
          {image_.LayerName(layer), MakeGuestRange(0, image_.LayerSize(layer))});
    }
    return context_.image.WriteAt(0, cluster);
  }

  // The recorded length against the place where the header says that its keys end.
  Status MendLength() {
    const uint64_t length = image_.luks->payload_sector * kSector;
    const Extension* record = image_.extensions.Find(kExtEncryption);
    auto luks = PlausibleLuks(context_.image, image_, image_.encryption->offset);
    if (!luks || length == image_.encryption->length || record == nullptr) return Ok();
    ++outcome_.changes;
    uint8_t bytes[8];
    StoreBe(bytes, length);
    return context_.image.WriteAt(record->offset + 16, bytes);
  }

  // The other way round: the length is right, and the key slots agree with it.
  Status MendPayload() {
    const uint64_t payload = PayloadSector(*image_.luks, image_.encryption->length);
    const bool may = context_.options.mode == RepairMode::kAll ||
                     context_.options.also_fix.contains(Problem::kQcow2LuksSlotLayout);
    if (payload == image_.luks->payload_sector || !may) return Ok();
    return Put(image_.encryption->offset + kLuksPayloadOffset, static_cast<uint32_t>(payload));
  }

  Status MendSlot(size_t index) {
    const SlotVerdict verdict =
        JudgeSlot(*image_.luks, index, PayloadSector(*image_.luks, image_.encryption->length));
    const LuksSlot& slot = image_.luks->slots[index];
    const uint64_t place = image_.encryption->offset + kLuksSlotsOffset + kLuksSlotSize * index;
    auto may = [&](Problem problem, RepairClass repair) {
      Finding finding;
      finding.problem = problem;
      finding.repair = repair;
      return Allowed(finding, context_.options);
    };
    if (verdict.state && *verdict.state != slot.state &&
        may(Problem::kQcow2LuksSlotState, verdict.state_repair)) {
      IMG_RETURN_IF_ERROR(Put(place, *verdict.state));
    }
    if (verdict.bad_layout && may(Problem::kQcow2LuksSlotLayout, verdict.layout_repair)) {
      IMG_RETURN_IF_ERROR(Put(place + 40, verdict.key_sector));
      IMG_RETURN_IF_ERROR(Put(place + 44, kLuksStripes));
    }
    return Ok();
  }
  Status Put(uint64_t offset, uint32_t value) {
    uint8_t bytes[4];
    StoreBe(bytes, value);
    ++outcome_.changes;
    return context_.image.WriteAt(offset, bytes);
  }

  const PassContext& context_;
  const CheckState& state_;
  const Image& image_;
  HeaderArea area_;
  PassOutcome outcome_;
};

}  // namespace

const Pass kEncryptionPass{
    "encryption",
    47,
    "find the LUKS header again and mend its fields",
    [](const CheckReport& report, const RepairOptions& options) {
      const bool lost =
          options.mode == RepairMode::kAll && report.findings.Has(Problem::kQcow2LuksHeader);
      return StateOf(report).walked && (lost || WantedAny(report, options, kEncryptionProblems));
    },
    [](const PassContext& context) { return EncryptionRepair(context).Run(); },
    {},
    kEncryptionMayAdd};

}  // namespace imgfsck::qcow2

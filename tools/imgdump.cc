// SPDX-License-Identifier: Apache-2.0
// imgdump: shows everything that is in a virtual-disk image. Read-only.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <optional>

#include "analyzers/check.h"
#include "base/interrupt.h"
#include "base/text.h"
#include "extract/metadata_copy.h"
#include "model/database_file.h"
#include "model/query.h"
#include "model/sql_script.h"
#include "repair/output.h"
#include "report/block_bitmap.h"
#include "report/dump.h"
#include "report/hexdump.h"
#include "report/map.h"
#include "tools/common/chain_map.h"
#include "tools/common/exit_codes.h"
#include "tools/common/image.h"
#include "tools/common/sandbox.h"
#include "tools/common/terminal.h"
#include "tools/imgdump/diff.h"
#include "tools/imgdump/options.h"

namespace imgfsck {
namespace {

// The image and, only when something asks for it, its check.
class Dump {
 public:
  explicit Dump(const ImgdumpOptions& options) : options_(options), out_(STDOUT_FILENO) {}

  Status Run() {
    if (!options_.diff.empty()) {
      IMG_RETURN_IF_ERROR(ShowDifferences(options_, out_));
      return out_.Finish();
    }
    if (options_.map && options_.chain) {
      IMG_RETURN_IF_ERROR(MapOfChain());
      return out_.Finish();
    }
    const SandboxLevel sandbox = UsableSandbox("imgdump", options_.sandbox());
    const bool seal = sandbox == SandboxLevel::kSealed;
    if (!seal) PutOnSandbox("imgdump", sandbox);
    IMG_ASSIGN_OR_RETURN(image_, OpenImage(options_.image, options_.format, options_.bad_map, [&] {
                           if (seal) PutOnSandbox("imgdump", sandbox);
                         }));
    if (!options_.metadata.empty()) {
      IMG_RETURN_IF_ERROR(Metadata());
      return out_.Finish();
    }
    IMG_ASSIGN_OR_RETURN(rows_, image_.format->inspect(image_.source(), options_.image));
    IMG_RETURN_IF_ERROR(Show());
    return out_.Finish();
  }

 private:
  Status Show() {
    if (options_.map) return Map();
    if (!options_.hex.empty()) return Hex();
    if (options_.sql) {
      ModelSource source = Source();
      return WriteSqlScript({&source, 1}, out_);
    }
    if (!options_.db.empty()) return WriteDatabaseFile(options_.db, Source());
    if (!options_.queries.empty()) return Query();
    return options_.json ? WriteDumpJson(*rows_, out_) : WriteDumpText(*rows_, out_);
  }

  Status Metadata() {
    Progress progress("imgdump", options_.progress);
    progress.Start(options_.image);
    MetadataCopyOptions copy;
    copy.path = options_.image;
    copy.redact = options_.redact;
    copy.threads = options_.threads;
    copy.progress = [&](std::string_view phase, uint64_t done, uint64_t total) {
      progress.Update(phase, done, total);
    };
    IMG_ASSIGN_OR_RETURN(MetadataCopy made,
                         MakeMetadataCopy(image_.source(), *image_.format, copy));
    IMG_ASSIGN_OR_RETURN(OutputResult written,
                         WriteOutput(*made.bytes, options_.metadata, copy.progress));
    progress.Clear();
    if (ChangedSince(image_)) {
      unlink(options_.metadata.c_str());
      return Error{ErrorCode::kConflict, "the image changed while it was copied; run it again", {}};
    }
    for (auto* notes : {&made.notes, &written.notes}) {
      for (const std::string& note : *notes) PrintMessage("imgdump", options_.image, note);
    }
    out_.Put(fmt::format("{} of metadata written to {}\n", HumanSize(made.bytes->kept_bytes()),
                         Printable(options_.metadata)));
    return Ok();
  }

  Status MapOfChain() {
    ChainOptions options;
    options.format = options_.format;
    options.snapshot = options_.snapshot;
    options.lock = false;
    PutOnSandbox("imgdump", UsableSandbox("imgdump", options_.sandbox()));
    IMG_ASSIGN_OR_RETURN(auto chain, Chain::Open(options_.image, options));
    const MapStyle style = options_.json ? MapStyle::kJson : MapStyle::kText;
    return WriteChainMap(*chain, 0, chain->driver().VirtualSize(), style, out_);
  }

  Status Map() {
    std::string layer(kActiveLayer);
    if (!options_.snapshot.empty()) {
      IMG_ASSIGN_OR_RETURN(layer, SnapshotLayer(options_.snapshot));
    }
    return WriteMap(*rows_, layer, options_.json ? MapStyle::kJson : MapStyle::kText, out_);
  }

  // A snapshot's layer by its id, else by its name.
  Result<std::string> SnapshotLayer(const std::string& wanted) const {
    std::vector<SnapshotRow> snapshots = rows_->Snapshots();
    for (const SnapshotRow& s : snapshots) {
      if (s.id == wanted) return s.id;
    }
    for (const SnapshotRow& s : snapshots) {
      if (s.name == wanted) return s.id;
    }
    return Error{ErrorCode::kNotFound, fmt::format("no snapshot '{}'", wanted), {}};
  }

  Status Hex() {
    std::vector<StructurePiece> pieces = FindStructures(*rows_, options_.hex);
    IMG_ASSIGN_OR_RETURN(auto bitmap, FindBlockBitmap(*rows_, options_.hex));
    if (bitmap) {
      IMG_ASSIGN_OR_RETURN(auto runs, FieldsOfBlockBitmap(image_.source(), *bitmap));
      return WriteHexdump(image_.source(), *bitmap, runs, out_);
    }
    if (pieces.empty()) {
      return Error{ErrorCode::kNotFound, fmt::format("no structure '{}' here", options_.hex), {}};
    }
    std::vector<FieldRow> fields = rows_->Fields();
    for (const StructurePiece& piece : pieces) {
      IMG_RETURN_IF_ERROR(WriteHexdump(image_.source(), piece, fields, out_));
    }
    return Ok();
  }

  Status Query() {
    IMG_ASSIGN_OR_RETURN(auto model, LiveModel::Open(Source()));
    for (const std::string& sql : options_.queries) {
      IMG_RETURN_IF_ERROR(RunQuery(*model, sql, options_.mode, out_));
    }
    return Ok();
  }

  Result<const CheckReport*> Checked() {
    if (!report_) {
      CheckOptions check;
      check.path = options_.image;
      check.threads = options_.threads;
      check.deep = options_.deep;
      check.max_findings = SIZE_MAX;
      IMG_ASSIGN_OR_RETURN(report_, CheckImage(image_.source(), *image_.format, check));
    }
    return &*report_;
  }

  ModelSource Source() {
    ModelSource source;
    source.rows = rows_.get();
    source.findings = [this]() -> Result<const Findings*> {
      IMG_ASSIGN_OR_RETURN(const CheckReport* report, Checked());
      return &report->findings;
    };
    source.refcounts =
        [this](const RowQuery& query) -> Result<std::unique_ptr<RowCursor<RefcountRow>>> {
      IMG_ASSIGN_OR_RETURN(const CheckReport* report, Checked());
      return report->refcounts ? report->refcounts(query) : nullptr;
    };
    return source;
  }

  const ImgdumpOptions& options_;
  OpenedImage image_;
  std::unique_ptr<ImageRows> rows_;
  std::optional<CheckReport> report_;
  TextWriter out_;
};

int Run(int argc, char** argv) {
  ParsedImgdump command = ParseImgdump({argv + 1, argv + argc});
  if (command.exit_code) return PrintEnd(command);
  Status status = Dump(command.options).Run();
  if (StopRequested()) return kExitStopped;
  if (status) return kExitClean;
  PrintMessage("imgdump", command.options.image, status.error().message);
  return status.error().code == ErrorCode::kInterrupted ? kExitStopped : kExitFailed;
}

}  // namespace
}  // namespace imgfsck

int main(int argc, char** argv) { return imgfsck::RunTool("imgdump", imgfsck::Run, argc, argv); }

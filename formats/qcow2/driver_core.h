// SPDX-License-Identifier: Apache-2.0
// An open qcow2 image: what all operations of the driver share. The operations themselves are in
// driver_read, driver_write, driver_zero, driver_resize, snapshot_ops and bitmap_ops.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "formats/driver.h"
#include "formats/qcow2/alloc.h"
#include "formats/qcow2/crypto.h"
#include "formats/qcow2/driver_header.h"
#include "formats/qcow2/driver_l2.h"
#include "formats/qcow2/image.h"

namespace imgfsck::qcow2 {

class BitmapStore;  // bitmap_ops.h

class Core {
 public:
  // Strict: refuses what a reader could misunderstand (see driver_open.cc).
  static Result<std::unique_ptr<Core>> Open(const ByteSource& source, ByteStore* store,
                                            const OpenOptions& options);
  ~Core();

  // To be called before the first change of the image: clears unknown autoclear bits, marks bitmaps
  // as in use and (with lazy refcounts) the image as dirty, repairs the counts of a dirty one.
  Status BeginWriting();
  // Everything changed so far reaches the disk, in the order that keeps the image sound.
  Status Flush();
  // The same when enough has piled up in memory.
  Status FlushIfFull();
  // Ends a session of writing: bitmaps stored, dirty bit cleared.
  Status Close();
  // What a failed operation leaves: an image found to be damaged is marked and never written again.
  Status Finish(Status status);

  // The L2 table of that L1 slot, this image's alone: made or copied where needed.
  Result<std::shared_ptr<L2Table>> WritableTable(uint64_t l1_index);
  void SetL1(uint64_t index, uint64_t entry);
  Status WriteL1();  // its changed entries, without sync
  // Gives up what an L2 entry refers to. Punches no holes.
  void ReleaseEntry(const Entry& entry);
  // Gives up a whole L2 table that the active L1 slot refers to, the slot becoming empty.
  Status DropTable(uint64_t l1_index);
  // One 8 or 12-byte field group of the header, in the file and in `header`.
  Status WriteHeaderBytes(uint64_t offset, Bytes bytes);
  Status SetFeatureBits(uint64_t incompatible, uint64_t autoclear);
  Status RewriteHeader(HeaderArea area);  // the whole first cluster, in one write
  // A new active L1 table of so many entries (in a new place), in force when this returns; the size
  // of the disk changes with it when given.
  Status ReplaceL1(std::vector<uint64_t> l1, std::optional<uint64_t> size);

  uint64_t ClusterEnd(uint64_t guest) const {
    return AlignDown(guest, context.geometry.cluster_size) + context.geometry.cluster_size;
  }
  const Geometry& g() const { return context.geometry; }
  uint64_t L1Index(uint64_t guest) const { return guest / g().l2_span; }
  uint64_t L2Index(uint64_t guest) const { return guest / g().cluster_size % g().l2_entries; }
  bool raw_data() const { return header.Autoclear(kAutoclearRawData); }
  bool lazy() const { return (header.compatible_features & kCompatLazyRefcounts) != 0; }

  std::string path;
  std::unique_ptr<Image> image;  // as parsed when it was opened
  Header header;                 // as it is now
  EntryContext context;
  DriverFile file;       // the image
  DriverFile data_file;  // where guest data lies: the same, or the external file
  DriverFile* data = nullptr;
  std::unique_ptr<SectorCipher> cipher;
  Driver::BackingReader backing;
  bool writable = false;
  bool writing = false;        // BeginWriting() is done
  bool corrupt = false;        // found while writing: no more writes
  bool snapshot_view = false;  // l1 is a snapshot's

  uint64_t size = 0;  // bytes of the disk seen
  uint64_t l1_offset = 0;
  std::vector<uint64_t> l1;     // entries of the disk seen, flags included
  std::set<uint64_t> l1_dirty;  // indexes
  L2Cache tables;
  MetadataMap metadata;  // filled by BeginWriting()
  Refcounts refcounts;
  std::vector<Snapshot> snapshots;
  std::unique_ptr<BitmapStore> bitmaps;
  std::vector<uint64_t> punch;  // host clusters to give back to the file system once they are free

 private:
  Core(const ByteSource& source, ByteStore* store, const OpenOptions& options,
       std::unique_ptr<Image> parsed);
  Status LoadL1(uint64_t offset, uint64_t entries);
  Status SelectSnapshot(const std::string& name_or_id);
  Status ApplyReleases();
  void MapMetadata();
  bool header_unknown_ = false;  // what is on disk; image->first_cluster is what should be
};

// Marks host offsets in messages.
Error DamagedAt(const std::string& what, uint64_t offset);

}  // namespace imgfsck::qcow2

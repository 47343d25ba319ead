-- SPDX-License-Identifier: Apache-2.0
-- The SQL model of images: the one place where its tables are written down. `imgdump --db` and
-- `--sql` create these tables, `imgdump --query` asks the same ones live, and docs/model.md is
-- made from this text. Columns may be added, never renamed; then user_version goes up.
--
-- Offsets, lengths and sizes are bytes. An INTEGER that does not apply, or that is 2^63 or more
-- in the image, is NULL. Text is valid UTF-8: what is not in the image became U+FFFD.

PRAGMA user_version = 1;

-- The images. One row each; every other table refers to it by image_id.
CREATE TABLE image (
  image_id INTEGER PRIMARY KEY,  -- 1 when one image is dumped
  path TEXT NOT NULL,            -- as it was given
  format TEXT NOT NULL,          -- 'qcow2', 'qcow', 'vpc', 'cow', 'raw' …
  version TEXT NOT NULL,         -- '2', '3', 'dynamic' …
  virtual_size INTEGER,          -- of the guest's disk
  file_size INTEGER,             -- of the image file
  cluster_size INTEGER,          -- the unit of allocation
  allocated INTEGER,             -- bytes of the file that the host stores
  sha256 TEXT                    -- of the image file, where it was computed
);

-- Every decoded field of every header, extension, footer and directory entry.
CREATE TABLE field (
  image_id INTEGER NOT NULL,
  structure TEXT NOT NULL,       -- 'header', 'snapshot[0]' …
  host_offset INTEGER,           -- where the field is in the file
  length INTEGER,
  name TEXT NOT NULL,            -- as the format's specification names it
  value INTEGER,                 -- NULL: not a number, or 2^63 and more (then see raw)
  raw TEXT,                      -- the stored bytes in hex; '' when longer than 64 bytes
  meaning TEXT                   -- in words: '64 KiB', 'dirty, corrupt'
);

-- Every range of the file that something claims. Shared clusters have a row for each owner.
CREATE TABLE region (
  image_id INTEGER NOT NULL,
  host_offset INTEGER,
  length INTEGER,
  -- one of: header header-extension backing-name l1 l2 refcount-table refcount-block
  --   snapshot-table bitmap-directory bitmap-table bitmap-data luks bat footer footer-copy
  --   dynamic-header batmap block-bitmap locator cow-bitmap data compressed vm-state slack
  kind TEXT NOT NULL,
  owner TEXT NOT NULL,           -- 'active', a snapshot's id, a bitmap's name, or ''
  guest_offset INTEGER           -- of the guest bytes there; NULL for metadata
);

-- What the guest's bytes are stored as: neighbours that continue each other are one row.
CREATE TABLE mapping (
  image_id INTEGER NOT NULL,
  layer TEXT NOT NULL,           -- 'active', or a snapshot's id
  guest_offset INTEGER,
  length INTEGER,                -- guest bytes
  -- one of: data zero compressed unallocated
  state TEXT NOT NULL CHECK (state IN ('data', 'zero', 'compressed', 'unallocated')),
  host_offset INTEGER,           -- where the bytes, or space reserved for them, lie in the file
  host_length INTEGER,           -- of compressed data: bytes of the stored span
  flags INTEGER NOT NULL         -- bits: 1 COPIED, 2 damaged entry, 4 in data file, 8 past end, 16 encrypted
);

-- Runs of allocation units with the same pair of numbers. Empty for formats without counts.
CREATE TABLE refcount (
  image_id INTEGER NOT NULL,
  host_offset INTEGER,
  length INTEGER,
  stored INTEGER,                -- the count in the image; NULL: 2^63 and more (then see raw)
  referenced INTEGER,            -- the references that the check counted
  raw TEXT                       -- stored in hex where it is 2^63 and more, else NULL
);

-- The internal snapshots.
CREATE TABLE snapshot (
  image_id INTEGER NOT NULL,
  id TEXT NOT NULL,              -- the layer in mapping, region and finding
  name TEXT NOT NULL,
  host_offset INTEGER,           -- of its entry in the snapshot table
  l1_offset INTEGER,
  l1_entries INTEGER,
  virtual_size INTEGER,
  vm_state_size INTEGER,
  date_seconds INTEGER,          -- Unix time
  date_nanoseconds INTEGER,
  vm_clock_nanoseconds INTEGER
);

-- The persistent dirty bitmaps.
CREATE TABLE bitmap (
  image_id INTEGER NOT NULL,
  name TEXT NOT NULL,
  host_offset INTEGER,           -- of its entry in the bitmap directory
  granularity INTEGER,           -- guest bytes a bit
  table_offset INTEGER,
  table_entries INTEGER,
  in_use INTEGER NOT NULL,       -- 1: was not closed properly
  enabled INTEGER NOT NULL,      -- 1: records writes
  consistent INTEGER NOT NULL    -- 1: its contents can be relied on
);

-- The guest ranges that a bitmap calls dirty.
CREATE TABLE bitmap_range (
  image_id INTEGER NOT NULL,
  bitmap TEXT NOT NULL,          -- its name
  guest_offset INTEGER,
  length INTEGER
);

-- Other files that the image names. The names are untrusted: nothing here was opened.
CREATE TABLE link (
  image_id INTEGER NOT NULL,
  -- one of: backing parent data-file
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  format TEXT NOT NULL,          -- '' when the image does not say
  host_offset INTEGER,           -- of the name in the file
  length INTEGER
);

-- What the check found. `imgfsck --explain CODE` says what a code means.
CREATE TABLE finding (
  image_id INTEGER NOT NULL,
  code TEXT NOT NULL,
  -- one of: corruption leak warning info
  severity TEXT NOT NULL CHECK (severity IN ('corruption', 'leak', 'warning', 'info')),
  structure TEXT NOT NULL,       -- 'refcount-block[3]', 'l2[7]', 'header' …
  host_offset INTEGER,           -- the bytes concerned in the file
  length INTEGER,
  guest_offset INTEGER,          -- the guest's bytes concerned
  guest_length INTEGER,
  count INTEGER,                 -- units that this row stands for
  message TEXT NOT NULL,
  -- one of: none safe all
  repair TEXT NOT NULL CHECK (repair IN ('none', 'safe', 'all')),
  fixed INTEGER NOT NULL,        -- 1: a repair mended it
  layer TEXT,                    -- whose guest bytes; NULL for none
  -- one of: none wrong stale zero unreadable
  effect TEXT NOT NULL CHECK (effect IN ('none', 'wrong', 'stale', 'zero', 'unreadable')),
  confidence REAL NOT NULL,      -- 0 to 1
  evidence TEXT,                 -- why, where it is a judgement
  also TEXT NOT NULL             -- JSON: [{layer, guest-offset, guest-length, structure}], others
);

-- Space that is taken and that nothing refers to, or fewer than its count says.
CREATE VIEW leaks AS
  SELECT image_id, host_offset, length, stored, referenced FROM refcount
   WHERE stored > referenced OR stored IS NULL
  UNION ALL
  SELECT image_id, host_offset, length, NULL, NULL FROM finding
   WHERE severity = 'leak' AND host_offset IS NOT NULL
     AND image_id NOT IN (SELECT image_id FROM refcount);

-- Ranges of the file with several claimants: a row for each claimant beside the one named first.
CREATE VIEW overlaps AS
  SELECT f.image_id, f.code, f.host_offset, f.length, f.structure, f.layer, f.guest_offset,
         json_extract(other.value, '$.structure') AS other_structure,
         json_extract(other.value, '$.layer') AS other_layer,
         json_extract(other.value, '$.guest-offset') AS other_guest_offset
    FROM finding AS f, json_each(f.also) AS other;

-- SPDX-License-Identifier: Apache-2.0
-- What --names adds to the SQL model of images (docs/model.md). Offsets and lengths are bytes of
-- the guest's disk.

-- Where there are names, or why there are none: a row for each partition, or for the whole disk.
CREATE TABLE guest_volume (
  image_id INTEGER NOT NULL,
  layer TEXT NOT NULL,           -- 'active', or a snapshot's id
  volume INTEGER,                -- from 0; NULL: names are missing for the layer as a whole
  guest_offset INTEGER,
  length INTEGER,
  type TEXT,                     -- 'ntfs', 'ext4' …; NULL: nothing known
  mapped INTEGER NOT NULL,       -- 1: its files were looked at
  trouble TEXT                   -- why not, or why not all of them
);

-- What findings, lost ranges and unclaimed bytes concern.
CREATE TABLE guest_name (
  image_id INTEGER NOT NULL,
  layer TEXT NOT NULL,
  volume INTEGER NOT NULL,
  guest_offset INTEGER,
  length INTEGER,
  kind TEXT NOT NULL,            -- 'file', 'resident', 'metadata', 'unallocated'
  path TEXT,                     -- NULL: nobody's; bytes that are no UTF-8 became U+FFFD
  path_hex TEXT,                 -- the path's bytes, where they are no UTF-8
  file_offset INTEGER            -- of the first byte, in that file
);

-- The files in what a bitmap calls dirty: those that changed since it began.
CREATE TABLE guest_change (
  image_id INTEGER NOT NULL,
  bitmap TEXT NOT NULL,
  volume INTEGER,
  kind TEXT,
  path TEXT,
  path_hex TEXT,
  bytes INTEGER,                 -- that are dirty
  trouble TEXT                   -- why this bitmap's files are not known; then no other row
);

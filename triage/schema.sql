-- SPDX-License-Identifier: Apache-2.0
-- What imgtriage adds to the SQL model of images (docs/model.md): a row here and the rows of the
-- model with image_id = file_id speak of the same file. Offsets, lengths and sizes are bytes.

-- Every file that was found, images and others.
CREATE TABLE file (
  file_id INTEGER PRIMARY KEY,   -- the image_id in the model's tables
  path TEXT NOT NULL,
  also TEXT NOT NULL,            -- its other names, as a JSON array
  kind TEXT NOT NULL,            -- 'image', 'other', 'unreadable', 'unknown'
  format TEXT,                   -- NULL: no image
  size INTEGER,
  stored INTEGER,                -- bytes that the host keeps of it
  mtime_ns INTEGER,              -- Unix time
  ctime_ns INTEGER,
  policy TEXT NOT NULL,
  verdict TEXT,                  -- 'safe', 'unsafe', 'undecidable'; NULL: not judged
  attention INTEGER NOT NULL,    -- 0 unsafe, 1 undecidable, 2 damaged, 3 sound, 4 no image
  rank INTEGER NOT NULL,         -- 1: the first to look at
  because TEXT NOT NULL,         -- what stands against it, in a line
  complete INTEGER NOT NULL,     -- 1: its examination came to its end
  untouched INTEGER,             -- 1: the same at the end; NULL: not asked for
  trouble TEXT                   -- why it could not be read
);

-- Why a verdict is what it is.
CREATE TABLE reason (
  file_id INTEGER NOT NULL,
  code TEXT NOT NULL,
  weight TEXT NOT NULL,          -- 'unsafe', 'undecidable', 'note'
  host_offset INTEGER,           -- NULL: it has no place
  length INTEGER,
  bytes TEXT,                    -- hex, the first 64
  detail TEXT
);

CREATE TABLE hash (
  file_id INTEGER NOT NULL,
  subject TEXT NOT NULL,         -- 'container': the file; 'content': the disk
  algorithm TEXT NOT NULL,       -- 'md5', 'sha1', 'sha256', 'pieces'
  digest TEXT NOT NULL
);

-- What was hashed as zeros because it could not be read.
CREATE TABLE unreadable (
  file_id INTEGER NOT NULL,
  subject TEXT NOT NULL,
  offset INTEGER,
  length INTEGER
);

-- What a file stores and no structure of it claims.
CREATE TABLE unclaimed (
  file_id INTEGER NOT NULL,
  host_offset INTEGER,
  length INTEGER,
  origin TEXT NOT NULL,          -- 'leaked', 'free', 'slack', 'header-slack', 'trailing'
  class TEXT NOT NULL,           -- 'data', 'text', 'compressed', 'random', 'file-system',
                                 -- 'known-header', 'table'
  what TEXT,                     -- 'l2 table', 'SQLite database' …
  entropy REAL NOT NULL,         -- bits a byte
  guest_offset INTEGER,          -- where it belonged, when that is known
  file TEXT,                     -- the copy that was written of it
  sha256 TEXT                    -- of that copy
);

-- What the user's rules yielded.
CREATE TABLE rule_hit (
  file_id INTEGER NOT NULL,
  rule TEXT NOT NULL,
  severity TEXT,                 -- NULL: the rule failed, and message says why
  message TEXT NOT NULL,
  host_offset INTEGER,
  length INTEGER
);

-- Which file builds on which.
CREATE TABLE chain (
  child_id INTEGER NOT NULL,
  parent_id INTEGER,             -- NULL: not found
  kind TEXT NOT NULL,            -- 'backing', 'parent', 'data-file'
  state TEXT NOT NULL,           -- 'found', 'missing', 'ambiguous', 'not-a-file'
  found_by TEXT,                 -- 'path', 'id', 'content', 'name'
  troubles TEXT NOT NULL         -- JSON array: 'moved', 'newer' …
);

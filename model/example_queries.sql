-- SPDX-License-Identifier: Apache-2.0
-- Queries that show what the model can answer: a title in a comment, then one statement. They
-- stand in docs/model.md, and a test runs each of them.

-- What is wrong, the worst kinds first, with how many units each concerns.
SELECT severity, code, sum(count) AS units, count(*) AS places
  FROM finding
 GROUP BY severity, code
 ORDER BY CASE severity WHEN 'corruption' THEN 0 WHEN 'leak' THEN 1 WHEN 'warning' THEN 2 ELSE 3 END,
          units DESC;

-- Which guest bytes of which disk are touched by damage.
SELECT layer, guest_offset, guest_length, effect, message
  FROM finding
 WHERE severity = 'corruption' AND guest_offset IS NOT NULL
 ORDER BY layer, guest_offset;

-- Where the file's space goes.
SELECT kind, count(*) AS ranges, sum(length) AS bytes
  FROM region
 GROUP BY kind
 ORDER BY bytes DESC;

-- How much of each disk (the active one and every snapshot) is data, zero, compressed or nothing.
SELECT layer, state, sum(length) AS guest_bytes
  FROM mapping
 GROUP BY layer, state
 ORDER BY layer, guest_bytes DESC;

-- Where guest byte 1 MiB of the active disk is stored.
SELECT guest_offset, length, state, host_offset + (1048576 - guest_offset) AS host_byte
  FROM mapping
 WHERE layer = 'active' AND guest_offset <= 1048576 AND guest_offset + length > 1048576;

-- Space that nothing refers to, the largest stretches first.
SELECT host_offset, length, stored, referenced
  FROM leaks
 ORDER BY length DESC
 LIMIT 20;

-- Clusters that several owners claim: corruption waiting for the next write.
SELECT host_offset, length, structure, layer, other_structure, other_layer, other_guest_offset
  FROM overlaps
 ORDER BY host_offset;

-- Counts in the image that do not agree with the references there are.
SELECT host_offset, length, stored, referenced
  FROM refcount
 WHERE stored IS NOT referenced
 ORDER BY host_offset;

-- How scattered each disk's data lies in the file.
SELECT layer, count(*) AS extents, sum(length) / count(*) AS average_bytes
  FROM mapping
 WHERE state = 'data'
 GROUP BY layer;

-- The header, field by field, as it is stored.
SELECT host_offset, length, name, value, raw, meaning
  FROM field
 WHERE structure = 'header'
 ORDER BY host_offset;

-- Files that this image needs and that are not in it.
SELECT kind, name, format FROM link;

-- How much each dirty bitmap would copy in the next backup.
SELECT b.name, b.consistent, count(r.bitmap) AS ranges, coalesce(sum(r.length), 0) AS dirty_bytes
  FROM bitmap AS b LEFT JOIN bitmap_range AS r
    ON r.image_id = b.image_id AND r.bitmap = b.name
 GROUP BY b.rowid;

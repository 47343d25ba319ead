-- SPDX-License-Identifier: Apache-2.0
-- Much leaked space is where deleted snapshots and lost data are to be found: look at it first with
-- --orphans-to.
SELECT 'leak' AS severity,
       round(100.0 * sum(length) / (SELECT file_size FROM image), 1)
         || ' % of the file is counted as used and claimed by nobody' AS message,
       min(host_offset) AS offset,
       max(host_offset + length) - min(host_offset) AS length
  FROM leaks
 WHERE host_offset IS NOT NULL
HAVING sum(length) > 0.05 * (SELECT file_size FROM image);

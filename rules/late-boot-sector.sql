-- SPDX-License-Identifier: Apache-2.0
-- Files grow in the order in which clusters are first written. Where the start of the disk, which an
-- installer writes first, lies behind nearly all other data, it was written anew late: by a
-- repartitioning, a wiper, or a boot kit.
SELECT 'warning' AS severity,
       'the start of the disk was written after ' || round(100.0 * before / total, 1)
         || ' % of the other data' AS message,
       start_at AS offset,
       start_length AS length
  FROM (SELECT first.host_offset AS start_at, first.length AS start_length,
               sum(CASE WHEN other.host_offset < first.host_offset THEN other.length ELSE 0 END)
                 AS before,
               sum(other.length) AS total
          FROM mapping AS first JOIN mapping AS other
            ON other.layer = 'active' AND other.state = 'data' AND other.guest_offset > 0
         WHERE first.layer = 'active' AND first.state = 'data' AND first.guest_offset = 0
           AND (SELECT format FROM image) IN ('qcow2', 'qcow', 'vpc')
           AND first.host_offset IS NOT NULL AND other.host_offset IS NOT NULL)
 WHERE total >= 16777216 AND before > 0.9 * total;

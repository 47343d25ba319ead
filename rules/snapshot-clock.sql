-- SPDX-License-Identifier: Apache-2.0
-- Snapshots are numbered as they are made. One that claims to be older than the one before it was
-- made with a clock set back, or its date was changed afterwards.
SELECT 'warning' AS severity,
       'snapshot ' || id || ' (' || name || ') is dated ' || datetime(date_seconds, 'unixepoch')
         || ', before snapshot ' || previous_id || ' of '
         || datetime(previous_date, 'unixepoch') AS message,
       host_offset AS offset,
       NULL AS length
  FROM (SELECT id, name, host_offset, date_seconds,
               lag(id) OVER (ORDER BY CAST(id AS INTEGER)) AS previous_id,
               lag(date_seconds) OVER (ORDER BY CAST(id AS INTEGER)) AS previous_date
          FROM snapshot
         WHERE date_seconds <> 0)
 WHERE date_seconds < previous_date;

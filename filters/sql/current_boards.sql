-- The title that each board has now, normalised, or the reason why it was dropped. It is the title of the
-- board's last row in reading order.
-- board_rows (board, title, reason, day, place, line): every row that was read; `place` orders sources, and
-- `line` the rows of a source.
SELECT board, title, reason
FROM (
    SELECT board, title, reason,
        row_number() OVER (PARTITION BY board ORDER BY place DESC, line DESC) AS newest
    FROM board_rows
) AS ordered
WHERE newest = 1

-- The title that each board has now, normalised, or why it has none that counts: its last row in reading order.
-- board_rows (board, title, reason, day, place, line): every row read; `place` orders sources, `line` the rows of one.
SELECT board, title, reason
FROM (SELECT board, title, reason, row_number() OVER (PARTITION BY board ORDER BY place DESC, line DESC) AS newest FROM board_rows) AS ordered
WHERE newest = 1

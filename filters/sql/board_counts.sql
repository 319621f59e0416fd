-- On how many distinct boards of a title each pin is.
-- saves (pin, board): every save that was read. title_of (board, place): boards whose title passed.
SELECT pin, place, CAST(count(*) AS INTEGER) AS boards
FROM (SELECT DISTINCT s.pin, s.board, t.place FROM saves AS s JOIN title_of AS t ON t.board = s.board) AS pair
GROUP BY pin, place

-- Each distinct title: how many boards have it, and, if it does not pass, why (`reason`).
-- current_boards (board, title, reason). generic (title): titles that say nothing.
SELECT title, boards, chars, words,
    CASE
        WHEN chars < $min_chars THEN 'shorter than --min-chars'
        WHEN chars > $max_chars THEN 'longer than --max-chars'
        WHEN words > $max_words THEN 'more words than --max-words'
        WHEN title IN (SELECT title FROM generic) THEN 'says nothing'
        WHEN boards > $most_boards THEN 'on more than --max-board-share of the boards'
    END AS reason
FROM (
    SELECT title, count(*) AS boards, length(title) AS chars,
        length(title) - length(replace(title, ' ', '')) + 1 AS words
    FROM current_boards
    WHERE reason IS NULL
    GROUP BY title
) AS counted

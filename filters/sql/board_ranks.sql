-- The best titles of each pin, one row per pin and rank.
-- board_counts (pin, place, boards), title_weights (place, weight, ...).
-- Scores that agree to a relative 1e-9 are equal: the logarithm of a score is ranked, rounded to an integer.
SELECT pin, rank, place, boards, score
FROM (
    SELECT pin, place, boards, score,
        row_number() OVER (
            PARTITION BY pin ORDER BY CAST(round(ln(score) * 1e9) AS BIGINT) DESC, place
        ) AS rank
    FROM (
        SELECT c.pin, c.place, c.boards, c.boards * w.weight AS score
        FROM board_counts AS c
        JOIN title_weights AS w ON w.place = c.place
        WHERE c.boards >= $min_boards
    ) AS scored
) AS ranked
WHERE rank <= $top

-- The best queries of each pin, one row per pin and rank.
-- counted (pin, query, points, engagements, first_day, last_day), queries (code, text).
-- Scores that agree to a relative 1e-9 are equal: the logarithm of a score is ranked, rounded to an integer.
-- Texts are compared only where score and last day leave open which query is kept.
SELECT pin, rank, query, text, engagements, points / $scale AS score, first_day, last_day
FROM (
    SELECT c.*, q.text,
        row_number() OVER (PARTITION BY c.pin ORDER BY c.rounded DESC, c.last_day DESC, q.text) AS rank
    FROM (
        SELECT *, rank() OVER (PARTITION BY pin ORDER BY rounded DESC, last_day DESC) AS best
        FROM (
            SELECT *, CAST(round(ln(points / $scale) * 1e9) AS BIGINT) AS rounded
            FROM counted
            WHERE engagements >= $min_engagements
        ) AS rounded
    ) AS c
    JOIN queries AS q ON q.code = c.query
    WHERE c.best <= $top
) AS ranked
WHERE rank <= $top

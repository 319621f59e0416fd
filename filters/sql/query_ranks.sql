-- The best queries of each pin, one row per pin and rank. Scores that agree to a relative 1e-9 are equal: ranked by a rounded integer.
-- counted (pin, query, points, engagements, first_day, last_day), queries (code, text). Texts are compared only where
-- score and day leave it open who is in.
SELECT pin, rank, query, text, engagements, points / $scale AS score, first_day, last_day
FROM (
    SELECT c.*, q.text, row_number() OVER (PARTITION BY c.pin ORDER BY c.rounded DESC, c.last_day DESC, q.text) AS rank
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

-- As query_counts, but one user can do only so much for a pin and a query. Rows without a user are not bounded.
-- Of each user the $max_per_user engagements of the highest weight count. After that, a user's points are cut
-- to what makes at most $max_share millionths of the points of all that are left: the largest c with
-- c = share * sum of min(points, c). If the k users with the most points are cut, and the others have the
-- points `rest` together, c is share * rest / (1 - k * share).
WITH by_weight AS (
    SELECT l.pin, l.query, coalesce(l.user_id, '') AS person, w.weight, CAST(sum(l.count) AS BIGINT) AS n,
        min(l.day) AS first_day, max(l.day) AS last_day
    FROM log AS l
    JOIN weights AS w ON w.action = l.action
    WHERE l.query IS NOT NULL AND l.day > $after AND l.day <= $as_of
    GROUP BY l.pin, l.query, coalesce(l.user_id, ''), w.weight
),
bounded AS (
    SELECT *,
        CASE WHEN person = '' THEN n
            ELSE greatest(0, least(n, $max_per_user + n - sum(n) OVER (
                PARTITION BY pin, query, person ORDER BY weight DESC
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)))
        END AS counted
    FROM by_weight
),
people AS (
    SELECT pin, query, person, sum(CAST(counted AS DOUBLE) * weight) AS points,
        CAST(sum(counted) AS BIGINT) AS engagements, min(first_day) AS first_day, max(last_day) AS last_day
    FROM bounded
    GROUP BY pin, query, person
),
ordered AS (
    SELECT *,
        row_number() OVER (PARTITION BY pin, query, person = '' ORDER BY points DESC, person) AS place,
        sum(points) OVER (PARTITION BY pin, query) AS all_points,
        sum(points) OVER (PARTITION BY pin, query, person = '' ORDER BY points DESC, person
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS points_so_far
    FROM people
),
limits AS (
    -- The first user, by points, who needs no cut says how many are cut: those before.
    SELECT pin, query,
        coalesce(
            min(CASE WHEN person <> '' AND (
                (place - 1) * $max_share >= 1000000
                OR points * (1000000 - (place - 1) * $max_share)
                    <= $max_share * (all_points - points_so_far + points)
            ) THEN place END),
            count(CASE WHEN person <> '' THEN 1 END) + 1
        ) AS uncut
    FROM ordered
    GROUP BY pin, query
),
cuts AS (
    SELECT l.pin, l.query, l.uncut,
        max(o.all_points) - coalesce(sum(CASE WHEN o.person <> '' AND o.place < l.uncut THEN o.points END), 0)
            AS rest
    FROM limits AS l
    JOIN ordered AS o ON o.pin = l.pin AND o.query = l.query
    GROUP BY l.pin, l.query, l.uncut
)
SELECT o.pin, o.query,
    sum(CASE WHEN o.person = '' OR o.place >= c.uncut THEN o.points
        ELSE floor($max_share * c.rest / (1000000 - (c.uncut - 1) * $max_share)) END) AS points,
    CAST(sum(o.engagements) AS BIGINT) AS engagements,
    min(o.first_day) AS first_day, max(o.last_day) AS last_day
FROM ordered AS o
JOIN cuts AS c ON c.pin = o.pin AND c.query = o.query
GROUP BY o.pin, o.query

-- Counts of several spans of days added up. parts: rows as query_counts gives them.
SELECT pin, query, sum(points) AS points, CAST(sum(engagements) AS BIGINT) AS engagements,
    min(first_day) AS first_day, max(last_day) AS last_day
FROM parts
GROUP BY pin, query

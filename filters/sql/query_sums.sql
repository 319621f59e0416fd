-- Counts of several spans of days into one. parts: rows as those of query_counts.
SELECT pin, query, sum(points) AS points, CAST(sum(engagements) AS BIGINT) AS engagements, min(first_day) AS first_day, max(last_day) AS last_day
FROM parts
GROUP BY pin, query

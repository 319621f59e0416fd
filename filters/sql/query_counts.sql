-- What people did with each pin after each query, within the window of days.
-- log (pin, query, action, day, count): rows of the log. weights (action, weight): the actions that count.
-- Weights are whole numbers: their sum is exact, whatever the order in which an engine adds them.
SELECT l.pin, l.query, sum(CAST(l.count AS DOUBLE) * w.weight) AS points,
    CAST(sum(l.count) AS BIGINT) AS engagements, min(l.day) AS first_day, max(l.day) AS last_day
FROM log AS l
JOIN weights AS w ON w.action = l.action
WHERE l.query IS NOT NULL AND l.day > $after AND l.day <= $as_of
GROUP BY l.pin, l.query

-- What people did after which query, for each pin, within the window. log (pin, query, action, day, count): rows of the log.
-- weights (action, weight): actions that count, with weights as whole numbers; sums of whole numbers are the same in whatever
-- order an engine takes them.
SELECT l.pin, l.query, sum(CAST(l.count AS DOUBLE) * w.weight) AS points, CAST(sum(l.count) AS BIGINT) AS engagements,
    min(l.day) AS first_day, max(l.day) AS last_day
FROM log AS l
JOIN weights AS w ON w.action = l.action
WHERE l.query IS NOT NULL AND l.day > $after AND l.day <= $as_of
GROUP BY l.pin, l.query

-- What people did after which query, for each pin, within the window. log (pin, query, action, first_day, last_day, count): rows of days,
-- or of spans that lie within the window as a whole. weights (action, weight): actions that count, with weights as whole numbers;
-- sums of whole numbers are the same in whatever order an engine takes them.
SELECT l.pin, l.query, sum(CAST(l.count AS DOUBLE) * w.weight) AS points, CAST(sum(l.count) AS BIGINT) AS engagements,
    min(l.first_day) AS first_day, max(l.last_day) AS last_day
FROM log AS l
JOIN weights AS w ON w.action = l.action
WHERE l.query IS NOT NULL AND l.first_day > $after AND l.last_day <= $as_of
GROUP BY l.pin, l.query

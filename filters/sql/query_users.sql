-- How many people are known to have come to a pin by a query, within the window of days.
-- log, weights: see query_counts.
SELECT l.pin, l.query, count(DISTINCT l.user_id) AS users
FROM log AS l
JOIN weights AS w ON w.action = l.action
WHERE l.query IS NOT NULL AND l.day > $after AND l.day <= $as_of AND l.user_id <> ''
GROUP BY l.pin, l.query

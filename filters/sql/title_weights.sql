-- What one more board counts for a title that passed: idf(t) * boards(t) / (boards(t) + 2).
-- The score of a title for a pin is the number of boards times this weight.
-- `place` orders titles of equal score: more words first, then more characters, then by code point.
-- Logarithms are added as integers: the sum is the same whatever the order in which an engine adds them.
WITH passed AS (
    SELECT title, boards, chars, words FROM titles WHERE reason IS NULL
),
word AS (
    SELECT DISTINCT title, boards, unnest(string_split(title, ' ')) AS word FROM passed
),
prevalence AS (
    SELECT word, sum(boards) AS boards FROM word GROUP BY word
),
total AS (
    SELECT sum(boards) AS boards FROM passed
),
idf AS (
    SELECT w.title,
        CAST(sum(CAST(round(ln(1 + t.boards / p.boards) * 1e14) AS BIGINT)) AS DOUBLE) / 1e14 / count(*)
            AS idf
    FROM word AS w
    JOIN prevalence AS p ON p.word = w.word
    CROSS JOIN total AS t
    GROUP BY w.title
)
SELECT p.title, p.boards, i.idf, i.idf * p.boards / (p.boards + 2) AS weight,
    CAST(row_number() OVER (ORDER BY p.words DESC, p.chars DESC, p.title) AS INTEGER) AS place
FROM passed AS p
JOIN idf AS i ON i.title = p.title

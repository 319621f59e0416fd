"""The tables and views of the store, as migrations.

Plain tables that Datasette and the sqlite3 shell show well. docs/schema.md, which is made from this file,
describes each of them.
"""

from __future__ import annotations

MIGRATION_SET = "pincaption"

# Each entry is one migration. It is never changed once it is released, its comments included, because SQLite
# keeps the text of a table in the file. A change to the schema is a new entry.
MIGRATIONS: dict[str, str] = {
    "0001_pins_and_captions": """
    CREATE TABLE pins (
        pin_id TEXT PRIMARY KEY NOT NULL CHECK (pin_id <> ''),
        kind TEXT NOT NULL DEFAULT 'pin' CHECK (kind IN ('pin', 'product')),
        title TEXT,
        description TEXT,
        image TEXT,            -- a path, a URL, or a reference into a Parquet file
        image_sha256 TEXT,     -- of the image's bytes; null until they have been read
        category TEXT,
        locale TEXT,
        created_at TEXT,
        prompt TEXT,           -- overrides the run's prompt for this pin
        deleted_at TEXT,
        has_title INTEGER NOT NULL DEFAULT 1 CHECK (has_title IN (0, 1)),             -- 0: missing, or says nothing
        has_description INTEGER NOT NULL DEFAULT 1 CHECK (has_description IN (0, 1)),
        image_stamp TEXT       -- size and modification time of a local file at ingest: tells when to read it anew
    );

    CREATE TABLE recipes (
        recipe_id TEXT PRIMARY KEY NOT NULL,
        model TEXT NOT NULL,
        revision TEXT,
        weights_digest TEXT NOT NULL,
        prompt TEXT NOT NULL,
        decoding TEXT NOT NULL CHECK (json_valid(decoding)),
        preprocessing TEXT NOT NULL CHECK (json_valid(preprocessing)),
        dtype TEXT NOT NULL
    );

    CREATE TABLE runs (
        run_id INTEGER PRIMARY KEY,
        command TEXT NOT NULL,
        arguments TEXT NOT NULL CHECK (json_valid(arguments)),
        started_at TEXT NOT NULL,
        finished_at TEXT,
        counts TEXT CHECK (counts IS NULL OR json_valid(counts)),
        batch_size INTEGER,
        device TEXT,
        versions TEXT CHECK (versions IS NULL OR json_valid(versions))
    );

    CREATE TABLE captions (
        pin_id TEXT NOT NULL REFERENCES pins (pin_id),
        recipe_id TEXT NOT NULL REFERENCES recipes (recipe_id),
        status TEXT NOT NULL CHECK (status IN ('ok', 'rejected', 'failed')),
        text TEXT,
        reason TEXT,
        score REAL,
        image_sha256 TEXT,
        attempts INTEGER NOT NULL DEFAULT 1 CHECK (attempts > 0),
        run_id INTEGER REFERENCES runs (run_id),
        updated_at TEXT NOT NULL,
        PRIMARY KEY (pin_id, recipe_id),
        CHECK (status <> 'ok' OR (text <> '' AND text IS NOT NULL AND reason IS NULL AND image_sha256 IS NOT NULL)),
        CHECK (status = 'ok' OR reason IS NOT NULL),
        CHECK (status <> 'failed' OR text IS NULL)
    );
    CREATE INDEX captions_image ON captions (image_sha256, recipe_id);
    CREATE INDEX captions_run ON captions (run_id);

    -- An image that could not be read says nothing about the image that replaces it.
    CREATE TRIGGER pins_image_replaced AFTER UPDATE OF image, image_stamp ON pins
    WHEN OLD.image IS NOT NEW.image OR OLD.image_stamp IS NOT NEW.image_stamp
    BEGIN
        DELETE FROM captions WHERE pin_id = NEW.pin_id AND status = 'failed';
    END;

    CREATE TABLE claims (
        pin_id TEXT NOT NULL,
        recipe_id TEXT NOT NULL,
        host TEXT NOT NULL,
        process_id INTEGER NOT NULL,
        process_started REAL NOT NULL,  -- seconds since 1970: a process id alone may be another's by now
        leased_until TEXT NOT NULL,     -- counts between hosts only
        PRIMARY KEY (pin_id, recipe_id)
    ) WITHOUT ROWID;

    CREATE TABLE rejected_rows (
        id INTEGER PRIMARY KEY,
        source TEXT NOT NULL,
        line INTEGER,
        reason TEXT NOT NULL,
        content TEXT,          -- the start of the row, personal data redacted
        run_id INTEGER REFERENCES runs (run_id)
    );
    CREATE INDEX rejected_rows_source ON rejected_rows (source);

    -- SHA-256 of large files that are looked at in every run (weights): hashed anew only when size or time differ.
    CREATE TABLE file_digests (path TEXT PRIMARY KEY NOT NULL, stamp TEXT NOT NULL, sha256 TEXT NOT NULL);

    -- Evidence may arrive before its pin and survives it: no foreign keys here.
    CREATE TABLE board_titles (
        pin_id TEXT PRIMARY KEY NOT NULL,
        titles TEXT NOT NULL CHECK (json_valid(titles)),
        boards TEXT NOT NULL CHECK (json_valid(boards)),
        scores TEXT NOT NULL CHECK (json_valid(scores))
    );
    CREATE TABLE engaged_queries (
        pin_id TEXT PRIMARY KEY NOT NULL,
        queries TEXT NOT NULL CHECK (json_valid(queries)),
        engagements TEXT NOT NULL CHECK (json_valid(engagements)),
        scores TEXT NOT NULL CHECK (json_valid(scores)),
        first_dates TEXT NOT NULL CHECK (json_valid(first_dates)),
        last_dates TEXT NOT NULL CHECK (json_valid(last_dates))
    );

    CREATE VIEW board_title_ranks AS
    SELECT b.pin_id, t.key + 1 AS rank, t.value AS title,
        json_extract(b.boards, '$[' || t.key || ']') AS boards, json_extract(b.scores, '$[' || t.key || ']') AS score
    FROM board_titles b, json_each(b.titles) t;

    CREATE VIEW engaged_query_ranks AS
    SELECT e.pin_id, q.key + 1 AS rank, q.value AS query,
        json_extract(e.engagements, '$[' || q.key || ']') AS engagements, json_extract(e.scores, '$[' || q.key || ']') AS score,
        json_extract(e.first_dates, '$[' || q.key || ']') AS first_date, json_extract(e.last_dates, '$[' || q.key || ']') AS last_date
    FROM engaged_queries e, json_each(e.queries) q;

    -- A pin's current caption: its newest that is ok and was made from the image that the pin has now.
    CREATE VIEW enriched_features AS
    SELECT p.pin_id, p.kind,
        CASE WHEN p.has_title THEN p.title END AS title,
        CASE WHEN p.has_description THEN p.description END AS description,
        c.text AS caption, c.recipe_id AS caption_recipe,
        b.titles AS board_titles, b.boards AS board_title_counts, b.scores AS board_title_scores,
        q.queries AS engaged_queries, q.engagements AS engaged_query_counts, q.scores AS engaged_query_scores,
        p.image, p.image_sha256, p.category, p.locale, p.created_at
    FROM pins p
    LEFT JOIN captions c ON c.pin_id = p.pin_id AND c.recipe_id = (
        SELECT n.recipe_id FROM captions n
        WHERE n.pin_id = p.pin_id AND n.status = 'ok' AND n.image_sha256 = p.image_sha256
        ORDER BY n.updated_at DESC, n.recipe_id LIMIT 1)
    LEFT JOIN board_titles b ON b.pin_id = p.pin_id
    LEFT JOIN engaged_queries q ON q.pin_id = p.pin_id
    WHERE p.deleted_at IS NULL;
    """,
    "0002_evidence": """
    -- What `captioner aggregate` has read. The rows themselves stand as Parquet in STORE.partials/, see filters/evidence.py.
    CREATE TABLE evidence (
        evidence_id INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice: results say by it what they were made of
        kind TEXT NOT NULL CHECK (kind IN ('boards', 'saves', 'log')),
        digest TEXT NOT NULL,      -- SHA-256 of the file's bytes and of the columns read from it
        file TEXT NOT NULL,        -- in STORE.partials/
        rows_read INTEGER NOT NULL,
        counts TEXT NOT NULL CHECK (json_valid(counts)),
        UNIQUE (kind, digest)
    );
    CREATE TABLE evidence_sources (
        place INTEGER PRIMARY KEY, -- the order in which sources were first read; a source that is rewritten keeps its place
        kind TEXT NOT NULL,
        path TEXT NOT NULL,
        stamp TEXT,                -- size, modification time and columns: while they stay, the file is not read again
        evidence_id INTEGER NOT NULL REFERENCES evidence (evidence_id),
        UNIQUE (kind, path)
    );
    CREATE INDEX evidence_sources_evidence ON evidence_sources (evidence_id);
    -- The other files in STORE.partials/: texts by their number, and sums that spare adding up the log anew.
    CREATE TABLE partials (file TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, rows INTEGER NOT NULL, about TEXT NOT NULL CHECK (json_valid(about)));

    -- What board_titles and engaged_queries were made of and with which options: nothing is done again in vain.
    CREATE TABLE aggregates (
        name TEXT PRIMARY KEY NOT NULL CHECK (name IN ('boards', 'queries')),
        options TEXT NOT NULL CHECK (json_valid(options)),
        state TEXT NOT NULL CHECK (json_valid(state)),   -- the contents that counted, in reading order
        counts TEXT NOT NULL CHECK (json_valid(counts)),
        run_id INTEGER REFERENCES runs (run_id)
    );
    """,
    "0003_samples": """
    -- Captions drawn for people to judge. What was drawn stays as it was, whatever becomes of the pins.
    CREATE TABLE samples (
        sample_id TEXT PRIMARY KEY NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('captions', 'comparison')),
        options TEXT NOT NULL CHECK (json_valid(options)),  -- seed, raters, stratify, duplicates, recipes, ...
        strata TEXT NOT NULL CHECK (json_valid(strata)),    -- of each: its name, captions in the store, items drawn, weight
        beside TEXT NOT NULL CHECK (json_valid(beside)),    -- pins that were tried and are not in the frame: rejected, failed, ...
        created_at TEXT NOT NULL,
        run_id INTEGER REFERENCES runs (run_id)
    );
    CREATE TABLE sample_items (
        sample_id TEXT NOT NULL REFERENCES samples (sample_id),
        item INTEGER NOT NULL,
        pin_id TEXT NOT NULL,
        stratum TEXT,               -- null: the pin has none
        weight REAL,                -- captions in the stratum for each that was drawn; null: gold, which stands for nothing but itself
        recipe_id TEXT,             -- null: a caption that a file of gold items gave
        caption TEXT NOT NULL,
        other_recipe_id TEXT,       -- in a comparison
        other_caption TEXT,
        image TEXT,
        image_sha256 TEXT,
        gold_relevance TEXT,        -- the right answers to a gold item
        gold_quality TEXT,
        PRIMARY KEY (sample_id, item)
    );
    CREATE INDEX sample_items_pin ON sample_items (pin_id);
    CREATE TABLE sheet_rows (
        item_id TEXT PRIMARY KEY NOT NULL, -- how the sheet names it: another name for each rater and each time, so that nobody sees which are repeats
        sample_id TEXT NOT NULL,
        rater TEXT NOT NULL,
        position INTEGER NOT NULL,
        item INTEGER NOT NULL,
        is_repeat INTEGER NOT NULL CHECK (is_repeat IN (0, 1)),
        swapped INTEGER NOT NULL CHECK (swapped IN (0, 1)), -- in a comparison: the other caption is shown first
        FOREIGN KEY (sample_id, item) REFERENCES sample_items (sample_id, item)
    );
    CREATE INDEX sheet_rows_sample ON sheet_rows (sample_id, rater, position);
    CREATE TABLE ratings (
        item_id TEXT PRIMARY KEY NOT NULL REFERENCES sheet_rows (item_id),
        sample_id TEXT NOT NULL,
        rater TEXT NOT NULL,
        pin_id TEXT NOT NULL,
        relevance TEXT CHECK (relevance IN ('relevant', 'partly', 'not', 'cannot judge')),
        quality TEXT CHECK (quality IN ('good', 'acceptable', 'poor', 'cannot judge')),
        better TEXT CHECK (better IN ('first', 'second', 'no difference', 'cannot judge')), -- as shown, see sheet_rows.swapped
        comment TEXT,
        seconds REAL,               -- looked at before it was answered
        answered_at TEXT,
        read_at TEXT NOT NULL
    );
    CREATE INDEX ratings_sample ON ratings (sample_id);
    """,
    "0004_vectors_and_thumbnails": """
    -- Vectors that others made of pins. No foreign key: like titles and queries they may come before the pin.
    CREATE TABLE embeddings (
        pin_id TEXT NOT NULL,
        name TEXT NOT NULL,
        dim INTEGER NOT NULL CHECK (dim > 0),
        vector BLOB NOT NULL CHECK (length(vector) = 2 * dim), -- float16, little-endian
        PRIMARY KEY (pin_id, name)
    );
    -- Small pictures for pages that people look at, upright and without EXIF. Nothing but these is ever shown by `captioner browse`.
    CREATE TABLE thumbnails (
        image_sha256 TEXT PRIMARY KEY NOT NULL,
        jpeg BLOB NOT NULL,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL
    );
    """,
    "0005_truncated_images": """
    -- Images whose bytes end early and that `captioner run --truncated accept` captioned from what is there.
    CREATE TABLE truncated_images (image_sha256 TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID;
    """,
    "0006_captions_by_people": """
    -- Captions that people wrote themselves, with `captioner captions set`. They come before any model's caption.
    CREATE TABLE captions_by_people (
        pin_id TEXT PRIMARY KEY NOT NULL REFERENCES pins (pin_id),
        text TEXT NOT NULL CHECK (text <> ''),
        image_sha256 TEXT,          -- of the pin's image at that time; null if nobody had read it yet
        run_id INTEGER REFERENCES runs (run_id),
        updated_at TEXT NOT NULL
    );

    DROP VIEW enriched_features;

    -- A pin's current caption: the one that a person wrote, with `person` as its recipe. Otherwise the newest
    -- that is ok and was made from the image that the pin has now.
    CREATE VIEW enriched_features AS
    SELECT p.pin_id, p.kind,
        CASE WHEN p.has_title THEN p.title END AS title,
        CASE WHEN p.has_description THEN p.description END AS description,
        CASE WHEN h.pin_id IS NOT NULL THEN h.text ELSE c.text END AS caption,
        CASE WHEN h.pin_id IS NOT NULL THEN 'person' ELSE c.recipe_id END AS caption_recipe,
        b.titles AS board_titles, b.boards AS board_title_counts, b.scores AS board_title_scores,
        q.queries AS engaged_queries, q.engagements AS engaged_query_counts, q.scores AS engaged_query_scores,
        p.image, p.image_sha256, p.category, p.locale, p.created_at
    FROM pins p
    LEFT JOIN captions_by_people h ON h.pin_id = p.pin_id
    LEFT JOIN captions c ON h.pin_id IS NULL AND c.pin_id = p.pin_id AND c.recipe_id = (
        SELECT n.recipe_id FROM captions n
        WHERE n.pin_id = p.pin_id AND n.status = 'ok' AND n.image_sha256 = p.image_sha256
        ORDER BY n.updated_at DESC, n.recipe_id LIMIT 1)
    LEFT JOIN board_titles b ON b.pin_id = p.pin_id
    LEFT JOIN engaged_queries q ON q.pin_id = p.pin_id
    WHERE p.deleted_at IS NULL;
    """,
}

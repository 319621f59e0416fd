"""Shows that two checkouts of this repository do the same: every command's JSON, exit code and tables, and
the bytes of an export.

    git worktree add ../before HEAD~1
    python benchmarks/before.py ../before [--pins 100000] [--sentences]

Runs the same commands with the code of both checkouts: on the demo, with rows and options that are wrong, and
on made-up pins, boards, saves and a query log. Each checkout works in a folder of the same name, so that
paths agree. Times and speeds are left out. Prints every difference; the exit code is 1 if there is one.
`--sentences` also prints where the text for people differs, which may get plainer from one version to the
next.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from words import WORDS

ROOT = Path(__file__).parents[1]
# Keys of JSON and columns of tables that tell a time, a speed or a version.
TIMES = {
    "seconds", "images_per_second", "updated_at", "started_at", "finished_at", "made_at",
    "created_at", "at", "versions", "written_at", "sampled_at", "rated_at", "exported_at",
    "process_id", "process_started", "leased_until", "image_stamp", "deleted_at", "answered_at",
    "findings", "read_at", "pairs_per_second", "batch_size", "stamp", "mtime", "peak_memory",
    "pincaption",
}  # fmt: skip

# {w} is the folder that the commands work in. Some of these commands are wrong on purpose.
DEMO = """
demo demo --json
stats demo/demo.db --json
run demo/demo.db --json
run demo/demo.db --retry-failed --json
run demo/demo.db --select missing-text --prompt picture --limit 7 --batch-size 3 --json
run demo/demo.db --select all --device cpu --num-beams 2 --limit 5 --json
aggregate boards demo/demo.db --top 3 --min-boards 2 --json
aggregate queries demo/demo.db --window-days 30 --top 5 --weight click=1 --json
aggregate explain demo/demo.db pin-0002 --json
aggregate explain demo/demo.db pin-0002
aggregate boards demo/demo.db --json
aggregate queries demo/demo.db --json
stats demo/demo.db --json
stats demo/demo.db
eval sample demo/demo.db sheets --n 20 --raters 2 --stratify category --json
eval score demo/demo.db sheets/rater-1.csv --json
fill sheets
eval score demo/demo.db sheets/rater-1.csv sheets/rater-2.csv --report report.html --json
eval score demo/demo.db sheets/rater-1.csv sheets/rater-2.csv
eval score --ratings ratings.csv --json
eval compare demo/demo.db compare --recipe builtin --recipe none --json
export demo/demo.db out --json
export --check out --json
export demo/demo.db out-jsonl --format jsonl --shards 3 --seed 5 --json
export demo/demo.db out-pairs --as-of 2026-06-01 --pairs --test-from 2026-06-24 --json
export demo/demo.db out-pairs --as-of 2026-06-01 --pairs --test-from 2026-06-24
doctor --json
doctor --model {w}/nothing-here --json
ingest images photos.db demo/images --json
ingest images photos.db demo/images --json
run photos.db --model builtin --limit 12 --json
run photos.db --json --limit 3
run photos.db --model {w}/nothing-here
run photos.db --max-new-tokens 9999
run photos.db --batch-size 0
run nothing.db --model builtin
ingest pins wrong.db wrong.csv --json
ingest pins wrong.db wrong.jsonl --json
ingest pins wrong.db nothing.csv --json
ingest pins wrong.db no-id.csv
ingest pins wrong.db wrong.csv --map pin_id
ingest pins wrong.db right.csv --map title=name --kind product --sync --json
ingest embeddings wrong.db vectors.jsonl --name clip --json
ingest embeddings wrong.db vectors.jsonl --name pin_id
aggregate boards wrong.db --boards boards.csv --saves saves.csv --json
aggregate queries wrong.db --log log.csv --as-of 2026-06-01 --json
aggregate queries wrong.db --log log.csv --weight click=much
stats wrong.db --json
export wrong.db wrong-out --json
embed train out-pairs model --epochs 1 --batch 64 --seed 1 --json
embed recall model out-pairs --json
embed queries model queries.txt
""".strip().splitlines()
MADE = """
ingest pins made.db pins.parquet --json
aggregate boards made.db --boards boards.parquet --saves saves.parquet --json
aggregate queries made.db --log log.parquet --json
stats made.db --json
aggregate explain made.db pin-000000007 --json
eval sample made.db made-sheets --n 50 --json
export made.db made-out --json
export made.db made-pairs --as-of 2026-05-01 --pairs --test-from 2026-05-20 --undated include --json
""".strip().splitlines()


def inputs(folder: Path, n: int) -> None:
    rng = random.Random(0)
    text = lambda words: " ".join(rng.choices(WORDS, k=words))  # noqa: E731
    write = lambda name, lines: (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")  # noqa: E731
    write(
        "wrong.csv",
        ["pin_id,title,created_at", "1,mug,2026-01-01", ",lamp,2026-01-01", "3,vase,yesterday", "4,N/A,"],
    )
    write(
        "wrong.jsonl",
        ['{"pin_id": 5, "title": ["a"]}', "{", '{"title": "no id"}', '{"pin_id": "6", "kind": "boat"}'],
    )
    write("no-id.csv", ["name,title", "1,mug"])
    write("right.csv", ["pin_id;name", "1;Blue mug", "2;IMG_2041.JPG", "7;Lampe für die Küche"])
    write(
        "vectors.jsonl",
        [
            '{"pin_id": "1", "vector": [0.5, 1]}',
            '{"pin_id": "9", "vector": [0.5, 1]}',
            '{"pin_id": "2", "vector": [1]}',
        ],
    )
    write(
        "boards.csv",
        ["board_id,title", "a,Kitchen!!  IDEAS", "b,my stuff", "c,call 0123456789", "d,Tea Time"],
    )
    write("saves.csv", ["pin_id,board_id", "1,a", "1,d", "2,a", "2,z", "8,b"])
    write(
        "log.csv",
        [
            "pin_id,query,action,date,count",
            "1,Blue Mug,save,2026-05-01,2",
            "1,a@b.cc,click,2026-05-01,1",
            "2,mug,hover,2026-05-02,1",
            "2,mug,click,2026-05-02,0",
        ],
    )
    write(
        "ratings.csv",
        ["item,rater,value", "1,a,good", "1,b,good", "2,a,poor", "2,b,good", "3,a,poor", "3,b,poor"],
    )
    write("queries.txt", ["red lamp", "two boats", ""])
    ids = [f"pin-{i:09}" for i in range(n)]
    said_nothing = ("", None, "N/A", "IMG_2041.JPG")
    pins = {
        "pin_id": ids,
        "title": [text(6) if rng.random() < 0.6 else None for _ in ids],
        "description": [text(20) if rng.random() < 0.5 else rng.choice(said_nothing) for _ in ids],
        "image": [f"images/{i % 1000:03}/{i}.jpg" for i in range(n)],
        "category": [rng.choice(WORDS) for _ in ids],
    }  # fmt: skip
    pq.write_table(pa.table(pins), folder / "pins.parquet")
    boards = [f"b{i}" for i in range(n // 10)]
    pq.write_table(
        pa.table({"board_id": boards, "title": [text(rng.randint(1, 3)) for _ in boards]}),
        folder / "boards.parquet",
    )
    saves = [(rng.choice(ids), rng.choice(boards)) for _ in range(4 * n)]
    pq.write_table(
        pa.table({"pin_id": [p for p, _ in saves], "board_id": [b for _, b in saves]}),
        folder / "saves.parquet",
    )
    rows = range(4 * n)
    log = {
        "pin_id": [rng.choice(ids) for _ in rows],
        "query": [text(rng.randint(1, 3)) for _ in rows],
        "action": [rng.choice(("save", "click", "long_click", "hide")) for _ in rows],
        "date": [f"2026-0{rng.randint(1, 6)}-{rng.randint(1, 28):02}" for _ in rows],
        "user_id": [str(rng.randint(1, 1000)) for _ in rows],
    }
    pq.write_table(pa.table(log), folder / "log.parquet")


def fill(sheets: Path) -> None:
    """Made-up answers of the raters, the same every time."""
    rng = random.Random(1)
    for path in sorted(sheets.glob("*.csv")):
        lines = list(csv.DictReader(path.open(encoding="utf-8-sig", newline="")))
        for line in lines:
            line["relevance"] = rng.choice(("relevant", "relevant", "partly", "not", "cannot judge"))
            line["quality"] = rng.choice(("good", "good", "acceptable", "poor"))
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    if isinstance(value, list):
        return [without_times(v) for v in value]
    if isinstance(value, str) and value[:1] in "[{":
        try:
            return without_times(json.loads(value))
        except ValueError:
            return value
    return value


def tables(path: Path) -> dict[str, Any]:
    """The schema, and a digest of the rows of each table and view, without times."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as conn:
        entries = conn.execute(
            "SELECT name, type, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
        ).fetchall()
        contents: dict[str, Any] = {"schema": [sql for _, _, sql in entries]}
        for name, kind, _ in entries:
            if kind in ("table", "view") and name not in ("claims", "_sqlite_migrations", "thumbnails"):
                cursor = conn.execute(f"SELECT * FROM [{name}]")
                columns = [c[0] for c in cursor.description]
                rows = sorted(
                    json.dumps(
                        without_times(dict(zip(columns, map(shown, row), strict=True))), sort_keys=True
                    )
                    for row in cursor
                )
                contents[name] = (
                    len(rows),
                    hashlib.sha256("\n".join(rows).encode()).hexdigest()[:12],
                    rows if len(rows) < 3000 else [],
                )
    return contents


def shown(cell: Any) -> Any:
    return cell.hex() if isinstance(cell, bytes) else cell


def commands(checkout: Path, work: Path, n: int) -> dict[str, Any]:
    """Runs everything in `work` with the code of `checkout`; what each command did, and what the folder then
    holds.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    inputs(work, n)
    site = work.with_name("site")
    site.mkdir(exist_ok=True)
    (site / "pincaption").unlink(missing_ok=True)
    (site / "pincaption").symlink_to(checkout.resolve())
    done: dict[str, Any] = {}
    for line in [*DEMO, *MADE]:
        if line == "fill sheets":
            fill(work / "sheets")
            continue
        command = [sys.executable, "-m", "pincaption.cli", *line.format(w=work).split()]
        env = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "80", "HF_HUB_OFFLINE": "1"}
        result = subprocess.run(
            command,
            cwd=work,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
        out = result.stdout
        as_json = out.strip().startswith("{")
        number = sum(key.startswith(line) for key in done)
        done[f"{line} #{number}" if number else line] = {
            "exit": result.returncode,
            "json": without_times(json.loads(out)) if as_json else None,
            "sentences": re.sub(
                r"\b\d[\d.,]*( ?/s| s| ms| min)\b", "N", ("" if as_json else out) + result.stderr
            ),
        }
    for path in sorted(work.rglob("*")):
        name = path.relative_to(work).as_posix()
        if path.suffix == ".db":
            done[f"store {name}"] = tables(path)
        elif path.is_file() and re.search(r"^(out|made-out|made-pairs|wrong-out|model)", name):
            data = path.read_bytes()
            done[f"file {name}"] = (
                without_times(json.loads(data))
                if path.suffix == ".json"
                else hashlib.sha256(data).hexdigest()
            )
    return done


def differences(before: Any, after: Any, where: str) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = dict.fromkeys([*before, *after])
        return [
            text for key in keys for text in differences(before.get(key), after.get(key), f"{where} {key}")
        ]
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)) and len(before) == len(after):
        return [
            text
            for i, (b, a) in enumerate(zip(before, after, strict=True))
            for text in differences(b, a, f"{where}[{i}]")
        ]
    return (
        [] if before == after else [f"{where}\n    before {str(before)[:400]}\n    after  {str(after)[:400]}"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--pins", type=int, default=100_000)
    parser.add_argument("--sentences", action="store_true")
    parser.add_argument("--save", type=Path, help="file for the other checkout's results; used if it exists")
    choices = parser.parse_args()
    # The same folder every time, because its path stands in tables of the store.
    folder = Path(tempfile.gettempdir()) / "captioner-before"
    folder.mkdir(exist_ok=True)
    try:
        if choices.save and choices.save.exists():
            before = json.loads(choices.save.read_text())
        else:
            before = commands(choices.before, folder / "work", choices.pins)
            if choices.save:
                choices.save.write_text(json.dumps(before))
        after = commands(ROOT, folder / "work", choices.pins)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    before, after = json.loads(json.dumps(before)), json.loads(json.dumps(after))
    count = 0
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key, {}), after.get(key, {})
        if "sentences" in old and "sentences" in new:
            sentences = old.pop("sentences"), new.pop("sentences")
            if choices.sentences and sentences[0] != sentences[1]:
                print(f"$ captioner {key}\n--- before\n{sentences[0]}\n--- after\n{sentences[1]}")
        for difference in differences(old, new, key):
            print(difference)
            count += 1
    failed = sum(1 for result in before.values() if isinstance(result, dict) and result.get("exit"))
    lines = len(DEMO) + len(MADE)
    print(f"{lines} commands, {failed} of them wrong on purpose; {len(before)} results, {count} differences")
    sys.exit(count > 0)


if __name__ == "__main__":
    main()

"""Which pins are to be captioned, who works on them, and what is written."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pincaption.ingest.pins import ingest_pins
from pincaption.store import open_store
from pincaption.store.claims import Claims
from pincaption.store.recipes import Recipe
from pincaption.store.runs import start_run
from pincaption.store.work import Caption, Pin, Work, count_by_status

RECIPE = Recipe("some/model", "main", "abc", "", {"num_beams": 1}, {"width": 32}, "float32")
IN_ANOTHER_PROCESS = """
import sys
from pincaption.store import open_store
from pincaption.store.claims import Caption, Claims, Recipe
recipe = Recipe("some/model", "main", "abc", "", {"num_beams": 1}, {"width": 32}, "float32")
work = Claims(open_store(sys.argv[1]), recipe)
"""


def add_pins(store: sqlite3.Connection, *pins: tuple, n: int = 0) -> None:
    """(pin_id, title, description), or `n` pins without either."""
    rows = [*pins, *((f"{i:06}", None, None) for i in range(n))]
    store.executemany(
        """
        INSERT INTO pins (pin_id, title, description, image)
        VALUES (?1, ?2, ?3, '/images/' || ?1 || '.jpg')""",
        rows,
    )


def ok(pin: Pin, image: str = "", text: str = "a dog on a sofa") -> Caption:
    return Caption(pin.pin_id, pin.recipe_id, "ok", text, image_sha256=image or f"sha of {pin.pin_id}")


def failed(pin: Pin) -> Caption:
    return Caption(pin.pin_id, pin.recipe_id, "failed", reason="truncated image")


def ids(pins: list[Pin]) -> list[str]:
    return [pin.pin_id for pin in pins]


def all_of(work: Work, make: Callable[[Pin], Caption] = ok) -> list[str]:
    """Captions all pins that are left, with `make`, and returns their ids in order."""
    worked = []
    while pins := work.claim(3):
        worked += ids(pins)
        work.commit([make(pin) for pin in pins])
    return worked


@pytest.mark.parametrize(
    ("select", "wanted"),
    [
        ("missing-description", ["nothing", "title only", "says nothing", "title says nothing"]),
        ("missing-text", ["nothing", "title says nothing"]),
        ("all", None),
    ],
)
def test_which_pins_are_selected(
    store: sqlite3.Connection, tmp_path: Path, select, wanted: list[str] | None
) -> None:
    rows = [
        {"pin_id": "nothing"},
        {"pin_id": "title only", "title": "Oak table"},
        {"pin_id": "says nothing", "title": "Oak table", "description": "N/A"},
        {"pin_id": "title says nothing", "title": "IMG_2041.JPG", "description": "♡"},
        {"pin_id": "both", "title": "Oak table", "description": "made of oak"},
        {"pin_id": "description only", "description": "made of oak"},
        {"pin_id": "deleted"},
    ]
    (tmp_path / "pins.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest_pins(store, [str(tmp_path / "pins.jsonl")])
    store.execute("UPDATE pins SET deleted_at = '2026' WHERE pin_id = 'deleted'")
    work = Claims(store, RECIPE, select)
    wanted = wanted or [row["pin_id"] for row in rows[:-1]]
    assert work.count() == len(wanted)
    assert ids(work.claim(100)) == wanted


def test_a_pins_own_prompt_gives_a_recipe_of_its_own(store: sqlite3.Connection) -> None:
    add_pins(store, n=3)
    store.execute("UPDATE pins SET prompt = 'a drawing of' WHERE pin_id = '000001'")
    store.execute("UPDATE pins SET prompt = '' WHERE pin_id = '000002'")
    recipe = replace(RECIPE, prompt="a photo of")
    work = Claims(store, recipe)
    pins = work.claim(3)
    own = replace(RECIPE, prompt="a drawing of").recipe_id
    assert [(pin.prompt, pin.recipe_id) for pin in pins] == [
        ("a photo of", recipe.recipe_id),
        ("a drawing of", own),
        ("a photo of", recipe.recipe_id),
    ]
    work.commit([ok(pin) for pin in pins])
    assert {row["recipe_id"]: row["prompt"] for row in store.execute("SELECT * FROM recipes")} == {
        recipe.recipe_id: "a photo of",
        own: "a drawing of",
    }
    # the pin with its own prompt has its caption
    assert Claims(store, replace(RECIPE, prompt="something else")).count() == 2


def test_two_runs_on_one_connection_do_not_disturb_each_other(store: sqlite3.Connection) -> None:
    add_pins(store, n=2)
    store.execute("UPDATE pins SET prompt = 'own' WHERE pin_id = '000001'")
    first, second = Claims(store, RECIPE), Claims(store, replace(RECIPE, dtype="float16"))
    assert {pin.recipe_id for pin in first.claim(2)}.isdisjoint({pin.recipe_id for pin in second.claim(2)})


def test_a_pin_that_arrives_during_a_run_is_captioned_too(store: sqlite3.Connection) -> None:
    add_pins(store, n=1)
    work = Claims(store, RECIPE)
    work.commit([ok(pin) for pin in work.claim(5)])
    add_pins(store, ("new", None, None))
    store.execute("UPDATE pins SET prompt = 'a new prompt' WHERE pin_id = 'new'")
    assert [(pin.pin_id, pin.prompt) for pin in work.claim(5)] == [("new", "a new prompt")]


def test_captioned_pins_are_done_until_their_image_changes(store: sqlite3.Connection) -> None:
    add_pins(store, n=7)
    assert len(all_of(Claims(store, RECIPE))) == 7
    assert Claims(store, RECIPE).claim(10) == []
    assert Claims(store, replace(RECIPE, dtype="bfloat16")).count() == 7
    store.execute("UPDATE pins SET image_sha256 = 'another image' WHERE pin_id = '000003'")
    assert all_of(Claims(store, RECIPE)) == ["000003"]
    assert store.execute("SELECT attempts FROM captions WHERE pin_id = '000003'").fetchone()[0] == 2


def test_failures_are_done_until_they_are_retried_and_then_once_per_run(store: sqlite3.Connection) -> None:
    add_pins(store, n=4)
    work = Claims(store, RECIPE)
    assert all_of(work, failed) == ["000000", "000001", "000002", "000003"]
    assert Claims(store, RECIPE).count() == 0
    again = Claims(store, RECIPE, retry_failed=True)
    assert again.count() == 4
    assert len(all_of(again, failed)) == 4
    assert (again.count(), again.claim(5)) == (0, [])
    assert [row["attempts"] for row in store.execute("SELECT attempts FROM captions")] == [2] * 4
    assert len(all_of(Claims(store, RECIPE, retry_failed=True))) == 4
    assert Claims(store, RECIPE, retry_failed=True).count() == 0


def test_captions_are_known_by_image_and_recipe(store: sqlite3.Connection) -> None:
    add_pins(store, n=3)
    work = Claims(store, RECIPE)
    a, b, c = work.claim(3)
    work.commit(
        [
            ok(a, "one"),
            Caption(b.pin_id, b.recipe_id, "rejected", "dog dog dog", "repetition", "two"),
            replace(failed(c), image_sha256="three"),
        ]
    )
    keys = [(image, RECIPE.recipe_id) for image in ("one", "two", "three", "four")]
    known = work.known([*keys, ("one", "another recipe")])
    assert {key: (c.status, c.text, c.reason) for key, c in known.items()} == {
        keys[0]: ("ok", "a dog on a sofa", None),
        keys[1]: ("rejected", "dog dog dog", "repetition"),
    }


def test_a_commit_writes_caption_digest_recipe_and_run_and_ends_the_claim(store: sqlite3.Connection) -> None:
    add_pins(store, n=2)
    work = Claims(store, RECIPE)
    run_id = start_run(store, "run", {})
    work.commit([ok(work.claim(2)[0], "digest")], run_id)
    assert tuple(
        store.execute("SELECT caption, caption_recipe, image_sha256 FROM enriched_features").fetchone()
    ) == ("a dog on a sofa", RECIPE.recipe_id, "digest")
    assert store.execute("SELECT run_id FROM captions").fetchone()[0] == run_id
    assert [row["pin_id"] for row in store.execute("SELECT pin_id FROM claims")] == ["000001"]
    recipe = dict(store.execute("SELECT * FROM recipes").fetchone())
    assert (recipe["model"], json.loads(recipe["decoding"]), json.loads(recipe["preprocessing"])) == (
        "some/model",
        {"num_beams": 1},
        {"width": 32},
    )


def test_a_commit_is_all_or_nothing(store: sqlite3.Connection) -> None:
    add_pins(store, n=2)
    work = Claims(store, RECIPE)
    first, second = work.claim(2)
    with pytest.raises(sqlite3.IntegrityError):
        work.commit([ok(first), Caption(second.pin_id, second.recipe_id, "ok", "", image_sha256="x")])
    assert [
        store.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("captions", "recipes", "claims")
    ] == [0, 0, 2]
    assert store.execute("SELECT count(*) FROM pins WHERE image_sha256 IS NOT NULL").fetchone()[0] == 0
    work.commit([ok(first), ok(second)])
    assert work.count() == 0


def test_a_caption_of_an_image_that_was_replaced_meanwhile_is_dropped(store: sqlite3.Connection) -> None:
    add_pins(store, n=2)
    work = Claims(store, RECIPE)
    pins = work.claim(2)
    store.execute("UPDATE pins SET image = '/images/new.jpg' WHERE pin_id = '000000'")
    work.commit([ok(pin) for pin in pins])
    assert [row["pin_id"] for row in store.execute("SELECT pin_id FROM captions")] == ["000001"]
    assert [(pin.pin_id, pin.image, pin.image_sha256) for pin in work.claim(2)] == [
        ("000000", "/images/new.jpg", None)
    ]


def test_a_claimed_pin_is_nobody_elses_until_it_is_given_back(
    store: sqlite3.Connection, tmp_path: Path
) -> None:
    add_pins(store, n=5)
    work = Claims(store, RECIPE)
    assert len(work.claim(3)) == 3
    other = subprocess.run(
        [
            sys.executable,
            "-c",
            IN_ANOTHER_PROCESS + "print(len(work.claim(9)), work.count()); work.release()",
            str(tmp_path / "pins.db"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout == "2 5\n"
    work.release()
    assert len(all_of(work)) == 5


def test_claims_of_a_killed_process_are_void_at_once(store: sqlite3.Connection, tmp_path: Path) -> None:
    add_pins(store, n=4)
    command = [
        sys.executable,
        "-c",
        IN_ANOTHER_PROCESS + "print(len(work.claim(3)), flush=True); sys.stdin.read()",
        str(tmp_path / "pins.db"),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "3\n"
        work = Claims(store, RECIPE)
        assert ids(work.claim(9)) == ["000003"]
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert ids(work.claim(9)) == ["000000", "000001", "000002"]


def test_a_process_id_that_another_process_has_now_protects_no_claim(store: sqlite3.Connection) -> None:
    add_pins(store, n=1)
    work = Claims(store, RECIPE)
    work.claim(1)
    store.execute("UPDATE claims SET process_started = process_started - 1000")
    assert len(work.claim(1)) == 1


@pytest.mark.parametrize(
    ("until", "free"), [("2020-01-01T00:00:00.000000Z", 1), ("2999-01-01T00:00:00.000000Z", 0)]
)
def test_claims_of_another_host_hold_until_their_lease_ends(
    store: sqlite3.Connection, until: str, free: int
) -> None:
    add_pins(store, n=1)
    work = Claims(store, RECIPE)
    work.claim(1)
    store.execute("UPDATE claims SET host = 'elsewhere', process_id = 1, leased_until = ?", [until])
    assert len(work.claim(1)) == free


def test_every_commit_renews_the_leases_of_the_other_claims(store: sqlite3.Connection) -> None:
    add_pins(store, n=2)
    work = Claims(store, RECIPE)
    first, _ = work.claim(2)
    store.execute("UPDATE claims SET leased_until = '2020'")
    work.commit([ok(first)])
    assert store.execute("SELECT leased_until FROM claims").fetchone()[0] > "2026"


def test_many_processes_share_the_work_and_no_pin_is_done_twice(
    store: sqlite3.Connection, tmp_path: Path
) -> None:
    add_pins(store, n=2000)
    script = (
        IN_ANOTHER_PROCESS + "import hashlib; sys.stdin.readline()\n"
        "while pins := work.claim(50):\n"
        "    print(*(pin.pin_id for pin in pins))\n"
        "    hashlib.sha256(bytes(5_000_000))\n"  # takes time, as a model does
        "    work.commit([Caption(p.pin_id, p.recipe_id, 'ok', 'a dog', image_sha256='x') for p in pins])\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "pins.db")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    done = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert all(done)  # each got some
    assert Counter(pin_id for part in done for pin_id in part) == Counter(f"{i:06}" for i in range(2000))
    assert {row[0] for row in store.execute("SELECT attempts FROM captions")} == {1}


def test_counts_by_status_keep_shared_captions_apart() -> None:
    captions = [
        Caption("1", "r", "ok"),
        Caption("2", "r", "ok", shared=True),
        Caption("3", "r", "rejected"),
        Caption("4", "r", "rejected", shared=True),
        Caption("5", "r", "failed"),
    ]
    assert count_by_status(captions) == {"captioned": 1, "rejected": 1, "failed": 1, "shared": 2}


def test_two_connections_to_one_store_share_the_claims(tmp_path: Path) -> None:
    first = open_store(tmp_path / "a.db", create=True)
    add_pins(first, n=3)
    assert len(Claims(open_store(tmp_path / "a.db"), RECIPE).claim(2)) == 2
    assert ids(Claims(first, RECIPE).claim(9)) == ["000002"]

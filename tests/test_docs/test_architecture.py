"""docs/architecture.md, and the rules it states: which room may import which, where torch and sqlite3 may be,
and how long a file may get."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
MODULES = sorted(
    path for path in [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
)

# Which room may import which; "room/module" allows that one file of the room. Every room may import itself.
MAY_IMPORT: dict[str, set[str]] = {
    "common": set(),
    "sources": {"common"},
    "images": {"common"},
    "drawn": {"common"},
    "store": {"sources", "common"},
    "ingest": {"store", "sources", "images", "common"},
    "captioner": {"store", "images", "common", "drawn/draw"},
    "filters": {"store", "sources", "common"},
    "eval": {"store", "images", "sources", "common"},
    "browse": {"store", "images", "common", "embed/comparison", "embed/hits"},
    "export": {"store", "filters", "images", "common"},
    "embed": {"export/manifest", "store/columns", "filters/text", "common"},
}
# Imports that break the table today. This list only ever gets shorter.
NOT_YET: set[tuple[str, str]] = set()
# These may import every room; they do it inside the functions that need it, so that `--help` stays fast.
COMMAND_LINE = {"commands", "cli.py", "__init__.py", "api.py"}

# Only these import torch or transformers.
WITH_TORCH = {"captioner", "embed", "drawn/train_builtin.py", "store/torch_features.py"}
# Outside of store/, only these files speak SQL to the store. This list only ever gets shorter.
WITH_SQL: dict[str, str] = {
    "browse/index.py": "the searchable copy, a SQLite file of its own",
    "browse/stored.py": "pages and thumbnails, which only browse shows and makes",
    "eval/stored.py": "samples, sheet rows and ratings, which only eval reads and writes",
    "filters/catalog.py": "the tables that list what has been read",
}
MAX_LINES = 400
# Files that may be longer, each with its reason. This list only ever gets shorter.
LONGER: dict[str, str] = {"api.py": "the signatures of thirteen functions, one argument a line"}


def imports(path: Path) -> Iterator[str]:
    """What a module imports, anywhere in it: "torch.nn" of others, "/store/schema/MIGRATIONS" of ours."""
    yield from imported(path.read_text(encoding="utf-8"), path.relative_to(ROOT).parent.parts)


def imported(source: str, here: tuple[str, ...]) -> Iterator[str]:
    """What a module of the room `here` imports. `python -m pincaption.x` in a string counts too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (ours(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (ours(f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: len(here) - node.level + 1], *(node.module.split(".") if node.module else [])]
            yield from ("/" + "/".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [ours(node.value)] if re.fullmatch(r"pincaption(\.\w+)+", node.value) else []


def ours(name: str) -> str:
    """ "pincaption.store.schema" -> "/store/schema"; other names stay as they are."""
    return name.removeprefix("pincaption").replace(".", "/") if name.split(".")[0] == "pincaption" else name


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("from ..eval.score import score", "/eval/score/score"),
        ("from .. import eval", "/eval"),
        ("from .worker import Worker", "/captioner/worker/Worker"),
        ("from . import draw", "/captioner/draw"),
        ("import pincaption.eval.score", "/eval/score"),
        ("from pincaption.eval import score", "/eval/score"),
        ("if TYPE_CHECKING:\n    from ..eval.score import score", "/eval/score/score"),
        ("command = [sys.executable, '-m', 'pincaption.eval']", "/eval"),
        ("def f():\n    import torch.nn", "torch.nn"),
        ("from torch import nn", "torch.nn"),
    ],
)
def test_an_import_is_seen_however_it_is_written(line: str, seen: str) -> None:
    assert list(imported(line, ("captioner",))) == [seen]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(path: Path) -> str:
    """The folder of a module, or its name where it stands in the root."""
    return path.relative_to(ROOT).parts[0]


def forbidden(path: Path) -> set[tuple[str, str]]:
    """(file, module) for what a module imports of other rooms and may not."""
    room, imported_modules = room_of(path), set()
    for name in imports(path):
        parts = name.split("/")
        if name.startswith("/") and parts[1] != room:
            module = "/".join(parts[1:3])
            if not {parts[1], module} & MAY_IMPORT[room]:
                imported_modules.add((name_of(path), module))
    return imported_modules


def test_every_room_stands_in_the_table() -> None:
    assert set(MAY_IMPORT) | {"commands"} == set(ROOMS)


def test_a_room_imports_what_the_table_allows_and_nothing_else() -> None:
    pairs = {pair for path in MODULES if room_of(path) not in COMMAND_LINE for pair in forbidden(path)}
    assert pairs - NOT_YET == set(), "forbidden by the table of docs/architecture.md"
    assert NOT_YET - pairs == set(), "mended: take it out of NOT_YET"


def test_the_table_allows_nothing_that_nobody_imports() -> None:
    used = {
        (room_of(path), part)
        for path in MODULES
        for name in imports(path)
        if name.startswith("/")
        for part in (name.split("/")[1], "/".join(name.split("/")[1:3]))
    }
    unused = {(room, other) for room, others in MAY_IMPORT.items() for other in others} - used
    assert unused == set()


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    """Counting every import, those inside functions and under TYPE_CHECKING too."""
    known = {name_of(path).removesuffix(".py") for path in MODULES}
    arrows: dict[str, set[str]] = {}
    for path in MODULES:
        module = name_of(path).removesuffix(".py")
        if module == "commands/devices":  # starts `python -m pincaption.cli` in processes of its own
            continue
        targets = set()
        for name in imports(path):
            parts = name.strip("/").split("/") if name.startswith("/") else []
            longest = ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]
            targets |= {next((n for n in longest if n in known), module)}
        arrows[module] = targets - {module}
    while free := {module for module, targets in arrows.items() if not targets & arrows.keys()}:
        arrows = {module: targets for module, targets in arrows.items() if module not in free}
    assert sorted(arrows) == [], "each of these imports another of these"


def test_the_page_has_the_same_table() -> None:
    lines = (
        PAGE.read_text(encoding="utf-8").split("## Who may import whom")[1].split("\n\n")[2].splitlines()[2:]
    )
    page = {}
    for line in lines:
        rooms, others = (cell.strip() for cell in line.strip("|").split("|"))
        names = {name.strip("` ").removesuffix(".py") for name in others.split(",")}
        page |= {room.strip("` "): names for room in rooms.split(",")}
    expected = {room: others or {"nothing of ours"} for room, others in MAY_IMPORT.items()}
    assert {room: others for room, others in page.items() if room in expected} == expected


def test_filters_text_imports_nothing_of_ours() -> None:
    assert [name for name in imports(ROOT / "filters" / "text.py") if name.startswith("/")] == []


def outside(path: Path, allowed: set[str]) -> bool:
    return not {room_of(path), name_of(path)} & allowed


def test_torch_and_transformers_are_imported_where_a_model_is() -> None:
    with_torch = [
        path
        for path in MODULES
        if any(name.split(".")[0] in ("torch", "transformers") for name in imports(path))
    ]
    assert [name_of(path) for path in with_torch if outside(path, WITH_TORCH | {"commands"})] == []
    assert "captioner/blip2.py" in map(name_of, with_torch)  # the test sees what it looks for


def speaks_sql(path: Path) -> bool:
    """Whether a module imports sqlite3 or sends SQL over a connection to the store (`conn` by its name)."""
    if any(name.split(".")[0] == "sqlite3" for name in imports(path)):
        return True
    calls = (
        node.func
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    )
    methods = (call for call in calls if isinstance(call, ast.Attribute) and call.attr.startswith("execute"))
    return any(ast.unparse(method.value).split(".")[-1] == "conn" for method in methods)


def test_sql_is_spoken_in_the_store() -> None:
    files = {name_of(path) for path in MODULES if room_of(path) != "store" and speaks_sql(path)}
    assert files - set(WITH_SQL) == set(), "ask the store by a function of store/ instead"
    assert set(WITH_SQL) - files == set(), "take it out of WITH_SQL"


def test_every_error_that_a_caller_can_meet_is_a_pincaption_error() -> None:
    """Errors whose name begins with an underscore do not leave their module."""
    errors = {"PincaptionError"}
    for path in [ROOT / "common" / "errors.py", *MODULES]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error") and node.name not in errors:
                bases = {ast.unparse(base) for base in node.bases}
                assert bases & errors, f"{name_of(path)}: {node.name} does not derive from PincaptionError"
                errors.add(node.name)
    assert len(errors) > 5


def test_a_file_is_short_enough_to_be_read_at_once() -> None:
    long = {
        name_of(path) for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > MAX_LINES
    }
    assert long - set(LONGER) == set(), f"more than {MAX_LINES} lines: split it along its nouns"
    assert set(LONGER) - long == set(), "short enough now: take it out of LONGER"


def test_the_command_line_imports_no_package_before_a_command_runs() -> None:
    light = {"commands", "common"}
    for path in [ROOT / "cli.py", ROOT / "api.py", *(ROOT / "commands").glob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                source = ast.unparse(node)
                for name in imported(source, path.relative_to(ROOT).parent.parts):
                    room = name.split("/")[1] if name.startswith("/") else ""
                    assert room not in set(ROOMS) - light, f"{path.name} imports {name} at the top"


def test_the_page_fits_on_a_screen_and_names_every_room() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 90
    assert [name for name in ROOMS if f"`{name}/`" not in text] == []


@pytest.mark.parametrize("page", [PAGE, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """`commands/NAME.py` and `STORE.partials/` are no names of files: they hold a word in capitals."""
    named = [
        word
        for word in page.read_text(encoding="utf-8").split("`")[1::2]
        if word.endswith((".py", ".sql", "/")) and not re.search(r"[* ]|[A-Z]{4}", word)
    ]
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []

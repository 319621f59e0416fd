"""The examples of docs/inputs.md, docs/catalogues.md and docs/api.md print what the pages show."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pincaption
from pincaption.eval import gold, long_table
from pincaption.filters.table_kinds import TABLE_KINDS
from pincaption.ingest import embeddings
from pincaption.ingest import pins as ingest

from .examples import DOCS, Command, Section, agrees, python_blocks, run, run_python, sections

ROOT = DOCS.parent
PAGES = ("inputs.md", "catalogues.md")
SECTIONS = [(page, section) for page in PAGES for section in sections(page)]
INPUTS = (DOCS / "inputs.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "section"), SECTIONS, ids=[f"{page}: {section.name}" for page, section in SECTIONS]
)
def test_an_example_prints_what_the_page_shows(page: str, section: Section, tmp_path: Path) -> None:
    for command, printed in run(section, tmp_path):
        assert agrees(command.expected, printed), (
            f"docs/{page}, $ {command.line}\nprints\n{printed}\ninstead of\n{command.expected}\n"
            f"(python tests/test_docs/examples.py docs/{page})"
        )


@pytest.mark.parametrize("page", ["api.md", "../README.md"])
def test_the_python_examples_print_what_the_page_shows(page: str, tmp_path: Path) -> None:
    for block, printed in run_python(python_blocks(page), tmp_path):
        assert agrees(block.expected, printed), (
            f"docs/{page}\n{block.code}\nprints\n{printed}\ninstead of\n{block.expected}\n"
            f"(python tests/test_docs/examples.py docs/{page})"
        )


def test_every_public_name_has_an_example() -> None:
    code = "\n".join(block.code for block in python_blocks("api.md"))
    imported = set(
        re.findall(r"\w+", " ".join(re.findall(r"^from pincaption import (.*)$", code, re.MULTILINE)))
    )
    assert imported == set(pincaption.__all__) - {"__version__"}
    table = (DOCS / "api.md").read_text(encoding="utf-8").partition("\n\n-")[0]
    assert [name for name in pincaption.__all__ if f"`{name}`" not in table] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_command_is_shown_that_is_not_run(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    shown = re.findall(r"^\$ ", text, re.MULTILINE)
    assert len(shown) == sum(
        isinstance(step, Command) for section in sections(page) for step in section.steps
    )
    unmarked = re.sub(r"^```(?:console|\w+ \S+)\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^captioner .*", unmarked, re.MULTILINE) == []


def test_a_page_that_shows_something_else_is_noticed() -> None:
    assert agrees("1 pins\n...\nlast  \n", "1 pins\nwhatever\nlast\n")
    assert agrees("...\n", "")
    assert not agrees("1 pins\n", "2 pins\n")
    assert not agrees("1 pins\n", "1 pins\nand more\n")
    assert not agrees("", "an error\n")


@pytest.mark.parametrize(
    ("heading", "fields"),
    [
        ("pins", ingest.FIELDS),
        ("boards", TABLE_KINDS["boards"].names),
        ("saves", TABLE_KINDS["saves"].names),
        ("query log", TABLE_KINDS["log"].names),
        ("vectors", embeddings.FIELDS),
        ("gold items", gold.FIELDS),
        ("ratings", long_table.FIELDS),
    ],
)
def test_the_overview_names_the_columns_that_are_read(heading: str, fields: tuple[str, ...]) -> None:
    row = next(line for line in INPUTS.splitlines() if line.startswith(f"| [{heading}]"))
    assert set(re.findall(r"`(\w+)`", row.split("|")[3])) == set(fields)


def reasons() -> Iterator[str]:
    """Why rows are rejected, in the words of the code; of a text with a value in it, the longest part."""
    for path in (path for room in ("sources", "ingest", "filters") for path in (ROOT / room).glob("*.py")):
        source = path.read_text(encoding="utf-8")
        for function in re.findall(
            r"^def rejection_reason.*?(?=^\S)", source + "\n#", re.MULTILINE | re.DOTALL
        ):
            yield from re.findall(r"THEN '([a-z][^'{]+)'", function)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id in ("RowError", "Unreadable"):
                    yield from constants(node.args[0])
                elif node.func.id == "BadRow":
                    yield from constants(node.args[2])


def constants(text: ast.expr) -> Iterator[str]:
    """The texts that an expression stands for, as far as the code has them in quotes."""
    if isinstance(text, ast.IfExp):
        yield from [*constants(text.body), *constants(text.orelse)]
    elif isinstance(text, ast.Constant):
        yield str(text.value)
    elif isinstance(text, ast.JoinedStr):
        parts = (str(part.value) for part in text.values if isinstance(part, ast.Constant))
        yield max(parts, key=len).strip()


def test_every_reason_for_a_rejected_row_is_on_the_page() -> None:
    all_reasons = sorted(set(reasons()))
    assert len(all_reasons) > 20
    assert {"not valid UTF-8", "kind is neither pin nor product", "count is below 1"} <= set(all_reasons)
    assert [reason for reason in all_reasons if reason not in INPUTS] == []


def test_every_reason_for_a_failed_image_is_on_the_page() -> None:
    all_reasons = set()
    for name in ("images/fetch.py", "images/web.py", "images/decode.py"):
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "ImageError"
                and isinstance(node.args[0], ast.Constant)
            ):
                all_reasons.add(node.args[0].value)
    assert len(all_reasons) > 15
    assert [reason for reason in sorted(all_reasons) if reason not in INPUTS] == []


def test_links_between_pages_lead_somewhere() -> None:
    for page in DOCS.glob("*.md"):
        for target, anchor in re.findall(
            r"\]\((?!https?:)([^)#\s]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8")
        ):
            to = (page.parent / target).resolve() if target else page
            assert to.exists(), f"{page.name} links to {target}"
            if anchor and to.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", to.read_text(encoding="utf-8"), re.MULTILINE)
                assert anchor in {
                    re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
                }, f"{page.name} links to {target}#{anchor}"

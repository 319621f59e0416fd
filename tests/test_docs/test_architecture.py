"""docs/architecture.md, and the rules it states: who may import whom, and where torch may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
MODULES = sorted(path for path in [*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))])
SHARED = {"files", "pages", "terminal", "verbs"}  # modules of the root that know of no package
BETWEEN = {"store": {"filters.text"}, "embed": {"filters.text"}}  # package -> modules of other packages that it may import; every other one may import the store
WITH_TORCH = {"captioner", "embed"}
WITH_TORCH_TOO = {"store/torch_features.py"}


def imports(path: Path) -> Iterator[str]:
    """What a module imports, wherever in it."""
    yield from imported(path.read_text(encoding="utf-8"), path.relative_to(ROOT).parent.parts)


def imported(source: str, here: tuple[str, ...]) -> Iterator[str]:
    """What the source of a module in the package `here` imports: "torch.nn" of others, ".store.schema" of ours (the root is ".")."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (ours(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (ours(f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: len(here) - node.level + 1], *(node.module.split(".") if node.module else [])]
            yield from ("." + ".".join([*base, alias.name]) for alias in node.names)


def ours(name: str) -> str:
    return name.removeprefix("pincaption") if name.split(".")[0] == "pincaption" else name


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("from ..eval.score import score", ".eval.score.score"),
        ("from .. import eval", ".eval"),
        ("from .worker import Worker", ".captioner.worker.Worker"),
        ("from . import draw", ".captioner.draw"),
        ("import pincaption.eval.score", ".eval.score"),
        ("from pincaption.eval import score", ".eval.score"),
        ("def f():\n    import torch.nn", "torch.nn"),
        ("from torch import nn", "torch.nn"),
    ],
)
def test_an_import_is_seen_however_it_is_written(line: str, seen: str) -> None:
    assert list(imported(line, ("captioner",))) == [seen]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0] if path.parent != ROOT else ""


@pytest.mark.parametrize("path", [path for path in MODULES if package_of(path)], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_imports_itself_the_store_and_what_all_share(path: Path) -> None:
    package = package_of(path)
    allowed = {package} if package == "store" else {package, "store", *SHARED}
    for name in imports(path):
        if name.startswith("."):
            inside = any(name[1:].startswith(f"{module}.") for module in BETWEEN.get(package, ()))
            assert name[1:].split(".")[0] in allowed or inside, f"{path.relative_to(ROOT)} imports {name[1:]}"


def test_what_all_share_knows_of_no_package() -> None:
    for name in SHARED:
        for other in imports(ROOT / f"{name}.py"):
            assert not other.startswith(".") or other[1:].split(".")[0] in SHARED, f"{name}.py imports {other[1:]}"


def test_filters_text_imports_nothing_of_ours() -> None:
    assert [name for name in imports(ROOT / "filters" / "text.py") if name.startswith(".")] == []


def test_torch_and_transformers_are_imported_where_a_model_is() -> None:
    with_torch = [path for path in MODULES if any(name.split(".")[0] in ("torch", "transformers") for name in imports(path))]
    elsewhere = [name for path, name in zip(with_torch, names(with_torch), strict=True) if package_of(path) not in WITH_TORCH and name not in WITH_TORCH_TOO]
    assert elsewhere == []
    assert "captioner/blip2.py" in names(with_torch)  # the test sees what it looks for


def test_the_command_line_imports_no_package_before_a_command_runs() -> None:
    for path in ROOT.glob("cli*.py"):
        top = ast.Module([node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, (ast.Import, ast.ImportFrom))], [])
        for node in top.body:
            module = getattr(node, "module", "") or ""
            assert module.split(".")[0] not in PACKAGES, f"{path.name} imports {module} at the top: --help would load it"


def test_the_page_fits_on_a_screen_and_names_every_package_and_command_file() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 50
    assert [name for name in PACKAGES if f"`{name}/`" not in text] == []
    assert [name for name in SHARED if f"`{name}.py`" not in text] == []
    for path in (word for word in text.split("`")[1::2] if word.endswith((".py", ".sql", "/")) and "*" not in word and "STORE" not in word):
        assert (ROOT / path).exists(), f"{path} is named and not there"

"""The names that a program imports from pincaption: which there are, how they load, what they do."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest

import pincaption
from pincaption import PincaptionError, api
from pincaption.captioner.plan import Options as RunOptions
from pincaption.cli import cli
from pincaption.common.version import __version__
from pincaption.embed.options import TrainOptions
from pincaption.eval.items import SampleOptions
from pincaption.export.write import ExportOptions
from pincaption.filters.boards import BoardOptions
from pincaption.filters.queries import QueryOptions

NAMES = [
    "EnrichedFeatures",
    "PincaptionError",
    "__version__",
    "aggregate_boards",
    "aggregate_queries",
    "caption",
    "coverage",
    "export_features",
    "ingest_embeddings",
    "ingest_images",
    "ingest_pins",
    "load_model",
    "open_store",
    "run",
    "sample",
    "score",
    "train",
]


def test_these_names_are_public_and_no_others() -> None:
    """Add a name here, in `__init__.py` and in docs/api.md. Do not take one away: programs use it."""
    assert NAMES == pincaption.__all__ == dir(pincaption)
    assert [name for name in NAMES if getattr(pincaption, name, None) is None] == []
    assert pincaption.__version__ == __version__
    with pytest.raises(AttributeError, match="has no attribute 'caption_everything'"):
        _ = pincaption.caption_everything


def test_everything_in_api_py_is_public() -> None:
    public = [
        name
        for name, value in vars(api).items()
        if inspect.isfunction(value) and value.__module__ == api.__name__ and not name.startswith("_")
    ]
    assert set(public) <= set(NAMES)


def test_the_package_is_imported_fast_and_loads_no_library() -> None:
    script = """
import sys, time
before, began = set(sys.modules), time.process_time()
import pincaption
print(time.process_time() - began)
print(*(set(sys.modules) - before))
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, modules = printed.stdout.splitlines()
    assert float(seconds) < 0.05
    top_level = {name.split(".")[0] for name in modules.split()}
    assert top_level - sys.stdlib_module_names == {"pincaption"}


@pytest.mark.parametrize(
    ("names", "not_loaded"),
    [
        (
            ["open_store", "PincaptionError", "coverage"],
            ["torch", "transformers", "pyarrow", "duckdb", "numpy"],
        ),
        ([name for name in NAMES if name != "load_model"], ["torch", "transformers"]),
    ],
)
def test_a_name_loads_no_more_than_it_needs(names: list[str], not_loaded: list[str]) -> None:
    script = f"import sys; from pincaption import {', '.join(names)}; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(printed.stdout.split()) & set(not_loaded) == set()


# A function, its command, and its options class with the fields that the function does not have.
PARALLELS: list[tuple[Callable[..., Any], str, Any, set[str]]] = [
    (api.ingest_pins, "ingest pins", None, set()),
    (api.ingest_images, "ingest images", None, set()),
    (api.ingest_embeddings, "ingest embeddings", None, set()),
    (api.run, "run", RunOptions, set()),
    (api.caption, "run", None, set()),
    (api.aggregate_boards, "aggregate boards", BoardOptions, set()),
    (api.aggregate_queries, "aggregate queries", QueryOptions, set()),
    (api.coverage, "stats", None, set()),
    (api.sample, "eval sample", SampleOptions, set()),
    (api.score, "eval score", None, set()),
    (api.export_features, "export", ExportOptions, set()),
    (
        api.train,
        "embed train",
        TrainOptions,
        # `width` and `dims` make `sizes`; the others are for ablations and experiments.
        {"sizes", "controls", "weight_decay", "warmup", "sketch_width", "random_negatives"}
        | {"keep_own_query", "validation"},
    ),
]
# Options that only the command line has.
ONLY_THERE = {
    # It takes pictures and no store, in which it could mark what was truncated.
    "caption": {"store", "select", "limit", "retry_failed", "truncated"},
    "export_features": {"check"},  # compares an earlier export with its manifest
    "score": {"ratings"},  # scores a table in place of a store
}
# What the command line calls otherwise.
OTHER_NAMES = {"arguments": "folder"}
NO_VALUE = (None, (), "", "auto", False)  # nothing was chosen


def options_of(name: str) -> dict[str, click.Parameter]:
    command: click.Command = cli
    for word in name.split():
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return {param.name: param for param in command.params if param.name}


@pytest.mark.parametrize("case", PARALLELS, ids=lambda case: case[0].__name__)
def test_a_function_has_the_options_of_its_command_with_the_same_defaults(case: Any) -> None:
    function, command, options_class, not_here = case
    arguments = inspect.signature(function).parameters
    options = {OTHER_NAMES.get(name, name): option for name, option in options_of(command).items()}
    only_there = ONLY_THERE.get(function.__name__, set()) | {"as_json", "debug"}
    assert set(options) - only_there - set(arguments) == set()
    for name, argument in arguments.items():
        option = options.get(name)
        if isinstance(option, click.Option) and argument.default is not argument.empty:
            assert default_of(option) == (argument.default if argument.default not in NO_VALUE else None), (
                name
            )
    if options_class:
        for field in fields(options_class):
            if field.name in not_here:
                assert field.name not in arguments
            elif arguments[field.name].default not in NO_VALUE:
                assert arguments[field.name].default == field.default, field.name


def default_of(option: click.Option) -> Any:
    """The default that help shows, or None if nothing is chosen without the option."""
    if option.name == "n":
        return 200  # --margin replaces it, so that click must not fill it in
    if option.name == "dims":
        return (64, 128, 256)  # its callback makes these of the text
    if option.name == "fields":
        return None  # all
    return None if option.default in NO_VALUE or repr(option.default) == "Sentinel.UNSET" else option.default


def test_a_store_is_a_path_or_a_connection(tmp_path: Path) -> None:
    table = tmp_path / "pins.csv"
    table.write_text("pin_id,title\n1,Oak table\n2,Mug\n")
    assert pincaption.ingest_pins(tmp_path / "my.db", table)["new"] == 2
    assert pincaption.ingest_pins(str(tmp_path / "my.db"), [table, str(table)])["new"] == 0
    conn = pincaption.open_store(tmp_path / "my.db")
    assert pincaption.coverage(conn) == pincaption.coverage(tmp_path / "my.db")
    assert pincaption.coverage(conn)["title"] == 2  # the connection is still open
    conn.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.db", "pins.csv"]  # all were closed


@pytest.mark.parametrize(
    "call",
    [
        lambda folder: pincaption.coverage(folder / "my.db"),
        lambda folder: pincaption.run(folder / "my.db", model="builtin"),
        lambda folder: pincaption.ingest_pins(folder / "my.db", "none.csv"),
        lambda folder: pincaption.ingest_pins(folder / "my.db", [], image_root=folder / "none"),
        lambda folder: pincaption.ingest_images(folder / "my.db", folder / "none"),
        lambda folder: pincaption.ingest_embeddings(folder / "my.db", "none.csv", name="clip"),
        lambda folder: pincaption.aggregate_boards(folder / "my.db"),
        lambda folder: pincaption.aggregate_queries(folder / "my.db"),
        lambda folder: pincaption.sample(folder / "my.db", folder / "sheets"),
        lambda folder: pincaption.score(folder / "my.db"),
        lambda folder: pincaption.export_features(folder / "my.db", folder / "out"),
        lambda folder: pincaption.export_features(folder / "my.db", folder / "out", pairs=True),
        lambda folder: pincaption.train(folder / "out", folder / "model"),
        lambda folder: pincaption.load_model(folder / "model"),
        lambda folder: pincaption.caption([], model=str(folder / "model")),
    ],
)
def test_what_goes_wrong_is_a_pincaption_error_and_leaves_no_store(
    call: Callable[[Path], object], tmp_path: Path
) -> None:
    with pytest.raises(PincaptionError):
        call(tmp_path)
    assert not (tmp_path / "my.db").exists()

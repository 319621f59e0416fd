"""The package as it is installed: a wheel in an environment of its own, used outside of the checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = sorted(path.parent for path in ROOT.glob("*/__init__.py"))
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]

# What a program that uses the package may look like. mypy checks it strictly against the installed package.
TYPED_PROGRAM = """
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pincaption
from pincaption import EnrichedFeatures, PincaptionError, caption, coverage, export_features, open_store


def texts(folder: Path) -> Iterator[str]:
    for result in caption(sorted(folder.glob("*.jpg")), model="builtin"):
        if result.status == "ok" and result.text is not None:
            yield result.text


def enrich(store: Path, table: str) -> int:
    conn = open_store(store, create=True)
    try:
        new: int = pincaption.ingest_pins(conn, table, columns={"pin_id": "sku"})["new"]
        captioned: int = pincaption.run(conn, model="builtin", limit=10).captioned
        titles: int = pincaption.aggregate_boards(conn, boards="boards.csv", saves=["saves.csv"])["titles"]
        counts = pincaption.aggregate_queries(conn, log=[Path("log.csv")], weights={"save": 2})
        queries: int = counts["queries"]
        return new + captioned + titles + queries
    except PincaptionError as error:
        print(error)
        return 0
    finally:
        conn.close()


def learn(store: Path) -> float:
    files: list[str] = pincaption.sample(store, "sheets", n=20, allocation="proportional")["files"]
    rows: int = export_features(store, "out", as_of=date(2026, 6, 1), pairs=True)["rows"]
    seconds: float = pincaption.train("out", "model", epochs=1)["seconds"]
    vectors = pincaption.load_model("model").embed_queries(["red mug"])
    return len(files) + rows + seconds + float(vectors.sum()) + len(EnrichedFeatures(store))


pincaption.ingest_pins("my.db", 7)  # expect: arg-type
pincaption.run("my.db", select="everything")  # expect: arg-type
pincaption.export_everything("my.db")  # expect: attr-defined
coverage()  # expect: call-arg
"""


def test_every_room_is_a_package_of_the_wheel() -> None:
    assert SETTINGS["setuptools"]["packages"] == [
        "pincaption",
        *(f"pincaption.{room.name}" for room in ROOMS),
    ]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout: building writes files beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(
        ".*", "__pycache__", "build", "demo", "tests", "benchmarks", "*.egg-info"
    )
    shutil.copytree(ROOT, folder / "source", ignore=left_out)
    run_pip("wheel", "--no-deps", "--no-build-isolation", "-w", folder, folder / "source")
    return next(folder.glob("pincaption-*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel. It borrows torch and so on from this environment."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    run_pip("--python", folder / "bin" / "python", "install", "--no-deps", "--no-index", wheel)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    # As a path in a .pth file: .pth files of editable installs over there are not read then.
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def run_pip(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def outside() -> dict[str, str]:
    """The environment variables without those that lead back to the checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_rooms(wheel: Path) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in room.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    files |= {path.name for path in ROOT.glob("*.py")} | {"py.typed"}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {f"pincaption/{name}" for name in files}


@pytest.mark.slow
def test_the_demo_runs_where_only_the_wheel_is_installed(environment: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [environment / "captioner", "demo", "--pins", "12", "--json"],
        cwd=tmp_path,
        env=outside(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["coverage"]["pins"] == 12
    assert result["run"]["captioned"] > 0
    assert (tmp_path / result["gallery"]).exists()


@pytest.mark.slow
def test_a_typed_program_passes_mypy_against_the_installed_package(environment: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(TYPED_PROGRAM)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--python-executable",
            environment / "python",
            program.name,
        ],
        cwd=tmp_path,
        env=outside(),
        capture_output=True,
        text=True,
    )
    errors = {
        int(line.split(":")[1]): line.rpartition("[")[2].rstrip("]")
        for line in done.stdout.splitlines()
        if ": error:" in line
    }
    expected = {
        number: line.partition("# expect: ")[2]
        for number, line in enumerate(TYPED_PROGRAM.splitlines(), 1)
        if "# expect: " in line
    }
    assert errors == expected, done.stdout + done.stderr

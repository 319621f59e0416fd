"""The version is written down in one place."""

import tomllib
from pathlib import Path

import pincaption
from pincaption.common import version
from pincaption.images.web import USER_AGENT

ROOT = Path(__file__).parents[2]


def test_the_package_the_build_and_the_user_agent_read_one_version() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert build["dynamic"]["version"] == {"attr": "pincaption.common.version.__version__"}
    assert pincaption.__version__ == version.__version__
    assert f"pincaption/{version.__version__} (image captioning)" == USER_AGENT


def test_no_other_file_of_the_package_repeats_it() -> None:
    files = [
        *ROOT.glob("*.py"),
        *(path for room in ROOT.glob("*/__init__.py") for path in room.parent.glob("*.py")),
    ]
    with_version = [path for path in files if version.__version__ in path.read_text(encoding="utf-8")]
    assert with_version == [ROOT / "common" / "version.py"]

"""The demo does each step once, and a call after an interruption does the rest."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from pincaption.cli import cli
from pincaption.commands.demo import make_demo
from pincaption.commands.demo_search import make_demo_search
from pincaption.embed.errors import EmbedError
from pincaption.store import open_store, transaction


def test_the_demo_does_everything_once_and_nothing_twice(tmp_path: Path) -> None:
    first = make_demo(tmp_path / "demo", pins=24)
    assert first["drew"]
    assert first["ingested"] == 24
    assert first["coverage"]["pins"] == 24
    assert first["run"]["selected"] == 12
    assert first["run"]["failed"] == 2
    assert first["run"]["shared"] >= 1
    assert first["run"]["remaining"] == 0
    assert Path(first["gallery"]).read_text().startswith("<!doctype html>")
    before = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "demo").rglob("*")
        if path.is_file() and not path.name.startswith("demo.db")
    }

    code = f"""if True:
        import sys
        from pathlib import Path
        from pincaption.commands.demo import make_demo
        again = make_demo(Path({str(tmp_path / "demo")!r}), print, pins=24)
        assert not again["drew"] and again["ingested"] == 0 and again["run"]["selected"] == 0, again
        assert "torch" not in sys.modules"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_demo_continues_where_it_was_killed(tmp_path: Path) -> None:
    part = make_demo(tmp_path / "demo", pins=24, limit=5)
    assert part["run"]["selected"] == 5
    assert part["run"]["remaining"] == 7
    (tmp_path / "demo/gallery.html").unlink()
    rest = make_demo(tmp_path / "demo", pins=24)
    assert not rest["drew"]
    assert rest["ingested"] == 0
    assert rest["run"]["selected"] == 7
    assert rest["run"]["remaining"] == 0
    assert (tmp_path / "demo/gallery.html").exists()


@pytest.mark.slow
def test_the_search_of_the_demo_is_trained_once(tmp_path: Path) -> None:
    demo, said = make_demo(tmp_path / "demo", pins=48), list[str]()
    store, folder = Path(demo["store"]), tmp_path / "demo" / "search"
    first = make_demo_search(store, folder, said.append, epochs=0.3)
    assert first["trained"]
    assert first["pairs"] > 100
    assert first["silent"]["with captions"] > 0.3 > first["silent"]["without captions"]
    assert first["recall"]["search"] > 0.5
    assert said == [
        f"learning from {first['pairs']} pairs of drawn queries and pins; this takes up to a minute"
    ]
    weights = (folder / "model" / "towers.safetensors").stat().st_mtime_ns

    again = make_demo_search(store, folder, said.append, epochs=0.3)
    assert not again["trained"]
    assert (folder / "model" / "towers.safetensors").stat().st_mtime_ns == weights
    assert len(said) == 1
    assert again["recall"] == first["recall"]

    with open_store(store) as conn, transaction(conn):
        conn.execute("UPDATE pins SET title = 'another title', has_title = 1 WHERE pin_id = 'pin-0001'")
    assert make_demo_search(store, folder, said.append, epochs=0.3)["trained"]  # of another export

    (folder / "model" / "config.json").unlink()
    (folder / "model" / "mine.txt").write_text("mine")
    with pytest.raises(EmbedError, match="holds something else"):
        make_demo_search(store, folder, said.append, epochs=0.3)
    assert (folder / "model" / "mine.txt").exists()


def test_a_file_where_the_search_is_to_be_made(tmp_path: Path) -> None:
    (tmp_path / "search").write_text("mine")
    with pytest.raises(EmbedError, match="is a file, where the search is to be made: move it away"):
        make_demo_search(tmp_path / "demo.db", tmp_path / "search", print)
    assert (tmp_path / "search").read_text() == "mine"


def test_what_would_fail_after_the_training_is_said_before(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = ["demo", str(tmp_path / "demo"), "--pins", "24", "--search", "--port", str(port)]
        done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 1
    assert f"cannot serve at port {port}" in done.stderr
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_the_default_demo_opens_its_search_within_minutes(tmp_path: Path) -> None:
    code = "from pincaption.cli import cli; cli()"
    command = [
        sys.executable,
        "-c",
        code,
        "demo",
        str(tmp_path / "demo"),
        "--search",
        "--port",
        "0",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            page = urllib.request.urlopen(f"{said['shown']['url']}search?q=lamp").read().decode()
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, rest) == (0, "")
    assert said["run"]["remaining"] == 0
    assert said["search"]["trained"]
    assert said["search"]["silent"]["with captions"] > 0.8
    assert said["search"]["silent"]["without captions"] < 0.1
    assert said["search"]["recall"]["search"] >= said["search"]["recall"]["BM25"]
    assert page.count("By its caption alone") >= 4

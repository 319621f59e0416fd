"""The demo does each step once, and a call after an interruption does the rest."""

import subprocess
import sys
from pathlib import Path

from pincaption.commands.demo import make_demo


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

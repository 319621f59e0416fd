"""Files in folders and behind globs that are not read are said: other names, and those of systems."""

from pathlib import Path

import pytest

from .table_commands import counts, said

LOG = "pin_id,query,action,date\n1,mug,save,2026-05-31\n"
OTHERS = ["part-1.txt", "part-2.csv.xz", "a.orc", "b.feather", "c.arrow", "README"]
OF_SYSTEMS = ["~$p.xlsx", "@eaDir/x.csv", "#recycle/x.csv", "$RECYCLE.BIN/x.csv", "lost+found/x.csv"]
OF_SYSTEMS += ["__MACOSX/x.csv", "._p.csv", ".old/x.csv"]
SILENT = ["_SUCCESS", ".part-0.csv.crc", "_delta_log/0.json", "s.db.partials/x.parquet", "Thumbs.db"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ["part-0.csv", *OTHERS, *OF_SYSTEMS, *SILENT]:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LOG if name == "part-0.csv" else "x")
    return tmp_path / "in"


BY_NAME = "6 files skipped, which are no tables by their names (1 "
BY_SYSTEM = f"{len(OF_SYSTEMS)} files skipped, hidden or of systems ("


def test_files_that_are_no_tables_are_said(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    for arguments in (["ingest", "pins", store, folder], ["aggregate", "queries", store, "--log", folder]):
        printed = said(*arguments)
        assert BY_NAME in printed
        assert "1 no extension" in printed
        assert "1 .xz" in printed
        assert BY_SYSTEM in printed
    found = counts("ingest", "pins", store, folder)
    endings = {"": 1, ".txt": 1, ".xz": 1, ".orc": 1, ".feather": 1, ".arrow": 1}
    assert found["columns"]["skipped_by_ending"] == endings
    assert found["rows_read"] == 1


@pytest.mark.parametrize("pattern", ["*", "**/*"])
def test_a_glob_says_what_it_leaves_out(folder: Path, tmp_path: Path, pattern: str) -> None:
    found = counts("ingest", "pins", tmp_path / "s.db", f"{folder}/{pattern}")
    assert found["rows_read"] == 1
    assert sum(found["columns"]["skipped_by_ending"].values()) >= 6  # also _SUCCESS, Thumbs.db
    assert any("hidden or of systems" in remark for remark in found["columns"]["remarks"])

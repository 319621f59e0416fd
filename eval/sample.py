"""Draws a sample, records it, and writes the sheets on which people judge it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from ..common.terminal import OnStep, no_step
from ..store import Connection
from . import stored
from .draw import draw, draw_pairs
from .gold import read_gold
from .items import Allocation, Format, Sample, SampleOptions
from .results import SampleResult
from .sheet import WrittenSheets, check_folder, write_sheets


def sample(
    conn: Connection,
    folder: str | Path,
    *,
    n: int = 200,
    margin: float | None = None,
    raters: int = 3,
    stratify: str | None = None,
    allocation: Allocation = "equal",
    duplicates: float = 0.05,
    gold: str | Path | None = None,
    seed: int = 0,
    format: Format = "sheets",
    dry_run: bool = False,
    on_step: OnStep = no_step,
) -> SampleResult:
    """Draws current captions at random, records the sample in the store and writes a sheet for each rater.

    `margin` (a share: 0.02 is 2 points) replaces `n`. `stratify` is one of kind, category, locale,
    native_text and caption_recipe. `gold` names a table of items whose answers are known. See `SampleOptions`
    for the rest. The sheets are HTML files and CSV tables in `folder`; with the format "label-studio", there
    are tasks and a labelling configuration for that program. The same seed on the same store gives the same
    sheets. With `dry_run`, nothing is recorded or written: the result says what would be drawn.
    Raises SampleError, SheetError (`folder` holds something that would be lost) or
    SourceError (`gold` cannot be read); OSError if the folder cannot be written.
    """
    options = SampleOptions(n, margin, raters, stratify, allocation, duplicates, seed)
    drawn = draw(conn, options, gold=read_gold(conn, gold) if gold is not None else ())
    if dry_run:
        nothing = WrittenSheets(files=[], without_picture={})
        return _result(drawn, Path(folder), nothing, stored.seconds_per_item(conn))
    return _write(conn, drawn, Path(folder), format, on_step)


def compare(
    conn: Connection,
    folder: str | Path,
    recipes: Sequence[str],
    *,
    n: int = 200,
    margin: float | None = None,
    raters: int = 3,
    stratify: str | None = None,
    allocation: Allocation = "equal",
    duplicates: float = 0.05,
    seed: int = 0,
    format: Format = "sheets",
    on_step: OnStep = no_step,
) -> SampleResult:
    """Like `sample`, but the sheets ask which of two captions of the same picture is better.

    `recipes` are two recipes of the store: ids, beginnings of ids, or models. Raises ValueError if they are
    not two, and StoreError if the store does not have them.
    """
    if len(recipes) != 2:
        raise ValueError(f"a comparison needs two recipes, not {len(recipes)}")
    options = SampleOptions(n, margin, raters, stratify, allocation, duplicates, seed)
    return _write(conn, draw_pairs(conn, options, *recipes), Path(folder), format, on_step)


def _write(conn: Connection, drawn: Sample, folder: Path, format: Format, on_step: OnStep) -> SampleResult:
    check_folder(drawn, folder, format)
    # The sample comes before the sheets: if the process ends in between, no sheet is without its sample.
    stored.record(conn, drawn)
    written = write_sheets(drawn, folder, format, on_step=on_step)
    return _result(drawn, folder, written, stored.seconds_per_item(conn))


def _result(drawn: Sample, folder: Path, written: WrittenSheets, seconds: float) -> SampleResult:
    items = [item for item in drawn.items if not item.is_gold]
    result = {
        "sample_id": drawn.sample_id,
        "kind": drawn.kind,
        "items": len(items),
        "gold": len(drawn.items) - len(items),
        "repeats": sum(row.is_repeat for row in drawn.rows) // len(drawn.raters),
        "raters": len(drawn.raters),
        "hours": round(len(drawn.rows) * seconds / 3600, 2),
        "margin": round(drawn.margin, 4),
        "captions": sum(stratum.captions for stratum in drawn.strata),
        **drawn.excluded,
        "strata": [
            {"stratum": s.name, "captions": s.captions, "items": s.items, "weight": s.weight}
            for s in drawn.strata
        ],
        "without_picture": written.without_picture,
        "folder": str(folder),
        "files": written.files,
    }
    return cast(SampleResult, result)

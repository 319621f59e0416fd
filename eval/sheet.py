"""The rating sheets: for each rater an HTML file and the same as a CSV table, and a page of guidance for all.

Or the tasks of a project in Label Studio, which all raters share.

An HTML sheet is one file that needs neither a network nor a server. Nothing in a sheet tells which model or
recipe wrote a caption, which rows are repeats or gold, or where a picture comes from.
"""

from __future__ import annotations

import base64
import csv
import io
import itertools
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..common.files import write_whole
from ..common.terminal import OnStep, no_step
from ..images.thumbnails import Picture, pictures
from .answers import SheetError, inspect_sheet
from .items import Format, Sample, SheetRow
from .label_studio import CONFIGURATION, caption_columns, configuration, tasks
from .questions import COLUMNS, defused
from .sheet_page import MARK, guidance_page, sheet_page

SIDE, MAX_BYTES = 800, 60_000  # of an embedded picture: pixels of the longer side, bytes
ROWS_PER_FILE = 600  # about 40 MB; a longer sheet is split into parts


@dataclass(frozen=True)
class WrittenSheets:
    """The names of the files that were written, and how many items have no picture, by reason."""

    files: list[str]
    without_picture: dict[str, int]


def write_sheets(
    sample: Sample, folder: Path, format: Format = "sheets", *, on_step: OnStep = no_step
) -> WrittenSheets:
    """Writes the sheets of every rater and the guidance into `folder`, each file whole or not at all.

    The same sample gives the same files. Raises SheetError like `check_folder`, and OSError if the folder
    cannot be written.
    """
    check_folder(sample, folder, format)
    sheets = _sheets(sample, format)
    # Pictures wait in a file, not in memory: ten thousand of them are half a gigabyte.
    with tempfile.TemporaryFile(dir=folder) as kept:
        place_of, missing = dict[int, tuple[int, int]](), dict[int, str]()
        shown = pictures(
            ((item.image, item.image_sha256) for item in sample.items), side=SIDE, max_bytes=MAX_BYTES
        )
        for done, (item, picture) in enumerate(zip(sample.items, shown, strict=True), 1):
            if isinstance(picture, Picture):
                place_of[item.item] = kept.tell(), kept.write(base64.b64encode(picture.jpeg))
            else:
                missing[item.item] = picture
            on_step("pictures", done, len(sample.items))

        def picture_of(item: int) -> str | None:
            if item not in place_of:
                return None
            start, length = place_of[item]
            kept.seek(start)
            return kept.read(length).decode()

        write_whole(folder / "guidance.html", guidance_page(sample, with_keys=format == "sheets"))
        files = ["guidance.html"]
        if format == "label-studio":
            write_whole(folder / CONFIGURATION, configuration(sample))
            files.append(CONFIGURATION)
        for done, (name, rows) in enumerate(sheets.items(), 1):
            if format == "label-studio":
                write_whole(folder / f"{name}.json", tasks(sample, rows, picture_of))
                files.append(f"{name}.json")
                on_step("sheets", done, len(sheets))
                continue
            files += [f"{name}.html", f"{name}.csv"]
            parts = [other for other, some in sheets.items() if some[0].rater == rows[0].rater]
            write_whole(folder / f"{name}.html", sheet_page(sample, name, parts, rows, missing, picture_of))
            write_whole(folder / f"{name}.csv", _table(sample, rows), encoding="utf-8-sig")
            on_step("sheets", done, len(sheets))
    reasons = list(missing.values())
    return WrittenSheets(files, {reason: reasons.count(reason) for reason in sorted(set(reasons))})


def check_folder(sample: Sample, folder: Path, format: Format = "sheets") -> None:
    """Makes `folder` if it is missing.

    Raises SheetError if writing the sheets there would lose answers, mix them with the sheets of another
    sample, or replace a file that is not ours.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise SheetError(f"{folder} is a file: name a folder for the sheets") from None
    except OSError as error:
        raise SheetError(f"the folder {folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise SheetError(f"{folder} cannot be written: name another folder")
    names = _sheets(sample, format)
    if format == "label-studio":
        for path in [folder / CONFIGURATION, *sorted(folder.glob("tasks*.json"))]:
            if path.exists() and sample.sample_id not in _beginning(path):
                raise _not_ours(path, "file of this sample")
        names = {}
    for path in sorted(folder.glob("*.csv")):
        content = inspect_sheet(path)
        if content.sample_id and content.sample_id != sample.sample_id:
            raise SheetError(
                f"{path} is a sheet of another sample ({content.sample_id}): "
                "name an empty folder, so that the two do not get mixed"
            )
        if path.stem in names and content.has_answers and content.sample_id:
            raise SheetError(
                f"{path} holds answers already: they would be lost; name another folder, or move the file"
            )
        if path.stem in names and not content.sample_id:
            raise _not_ours(path, "sheet")
    for path in [folder / f"{name}.html" for name in ("guidance", *names)]:
        if path.exists() and MARK not in _beginning(path):
            raise _not_ours(path, "page")


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(4096).decode(errors="replace")


def _not_ours(path: Path, what: str) -> SheetError:
    return SheetError(
        f"{path} is no {what} of ours, and would be lost; name another folder, or move the file"
    )


def _sheets(sample: Sample, format: Format) -> dict[str, list[SheetRow]]:
    """The rows of each sheet, by its name. A rater with many rows gets several parts.

    Label Studio gives the same tasks to all raters: those of the first sheet.
    """
    sheets: dict[str, list[SheetRow]] = {}
    for rater, group in itertools.groupby(sample.rows, key=lambda row: row.rater):
        if format == "label-studio":
            if sheets:
                break
            rater = "tasks"
        rows = list(group)
        parts = math.ceil(len(rows) / ROWS_PER_FILE)
        size = math.ceil(len(rows) / parts)
        digits = len(str(parts))
        for i in range(parts):
            name = rater if parts == 1 else f"{rater}-part-{i + 1:0{digits}}"
            sheets[name] = rows[i * size : (i + 1) * size]
    return sheets


def _table(sample: Sample, rows: list[SheetRow]) -> Iterator[str]:
    columns, captions = COLUMNS[sample.kind], caption_columns(sample)
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    for row in rows:
        cells = dict(zip(captions, sample.captions_of(row), strict=True)) | {
            "sample": sample.sample_id,
            "rater": row.rater,
            "number": str(row.position),
            "item_id": row.item_id,
        }
        writer.writerow([defused(cells.get(column, "")) for column in columns])
    yield file.getvalue()

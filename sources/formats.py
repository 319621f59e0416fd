"""Which format a file has: by its name, or by its first bytes where they leave no doubt."""

from __future__ import annotations

import zipfile
from pathlib import Path

from .read_as import ReadAs
from .rows import SourceError

ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".xlsx", ".xlsm", ".xls")
PACKED = (".gz", ".bz2", ".zst")
READABLE = (
    "captioner reads .parquet, .csv, .tsv, .jsonl, .ndjson, .json, .xlsx, text also as .gz, .bz2 or .zst;"
    " `ingest` and `aggregate` read files of other names with --format"
)
TEXT = ("csv", "tsv", "jsonl", "ndjson", "json")
_ZIP, _OLE, _PARQUET = b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"PAR1"
EXCEL_ADVICE = "save it as .xlsx or as CSV UTF-8"


def table_format(name: str) -> str:
    """The format of a table by its file name, for instance "csv" for "a.CSV.gz"; "" for all other files."""
    name = name.lower()
    if name.endswith((".parquet", ".xlsx", ".xlsm", ".xls")):
        return name.rpartition(".")[2]
    for ending in PACKED:
        name = name.removesuffix(ending)
    return next((e for e in TEXT if name.endswith(f".{e}")), "")


def format_of(source: str, read_as: ReadAs) -> str:
    """The format that a source is read in. Raises SourceError for a file that is certainly no table.

    Excel and Parquet are told by their first bytes, whatever the file is called: read as text they would
    give columns that nobody has.
    """
    if source == "-":
        return read_as.format or "jsonl"
    with open(source, "rb") as file:
        head = file.read(4)
    if head == _ZIP:
        return _format_of_zip(source)
    if head == _OLE:
        raise SourceError(
            f"{source} is an Excel file of the old kind (.xls) or one with a password: {EXCEL_ADVICE}"
        )
    if head == _PARQUET:
        return "parquet"
    wanted = read_as.format or table_format(Path(source).name)
    if wanted in ("xlsx", "xlsm", "xls"):
        raise SourceError(
            f"{source} is no Excel file, whatever its name says: if it is text, say so with --format csv"
        )
    return wanted


def _format_of_zip(source: str) -> str:
    """Raises SourceError for every archive that is no Excel file."""
    try:
        with zipfile.ZipFile(source) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        raise SourceError(
            f"{source} begins like an Excel file or a zip archive and is damaged: copy it once more"
        ) from None
    if "xl/workbook.xml" in names:
        return "xlsx"
    if "xl/workbook.bin" in names:
        raise SourceError(f"{source} is a binary Excel file (.xlsb): {EXCEL_ADVICE}")
    if "content.xml" in names:
        raise SourceError(f"{source} is a spreadsheet of OpenDocument (.ods): {EXCEL_ADVICE}")
    raise SourceError(f"{source} is a zip archive: unpack it and name the table that is in it")

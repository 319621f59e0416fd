"""What people see: progress on a terminal or as log lines, tables of counts, numbers.

Everything of passage goes to standard error; standard output is for results alone.
"""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

LOG_EVERY = 10.0  # seconds between log lines where there is no terminal


def say(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """A bar on a terminal (done, rate, time left); a log line every ten seconds elsewhere.

    `total` None: not known.
    """

    def __init__(self, what: str, unit: str, total: int | None = None):
        self.what, self.unit, self.total, self.done = what, unit, total, 0
        self._began = self._said = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Sets how much is done so far; nothing done yet starts the clock anew (a model may have been loaded
        meanwhile).
        """
        if not done:
            self._began = time.monotonic()
        self.done, self.total = done, total if total is not None else self.total
        if sys.stderr.isatty():
            self._draw(note)
        elif time.monotonic() - self._said > LOG_EVERY:
            self._said = time.monotonic()
            say(f"{self.what}: {self._numbers()}{', ' + note if note else ''}")

    def advance(self, n: int) -> None:
        """Adds to how much is done so far."""
        self.update(self.done + n)

    def _numbers(self) -> str:
        seconds = time.monotonic() - self._began
        if not self.unit:  # nothing to be counted
            return duration(seconds)
        rate = self.done / max(seconds, 1e-9)
        if not self.total:
            return f"{self.done:,} {self.unit}, {rate:,.1f}/s"
        left = (
            f", {duration((self.total - self.done) / rate)} left"
            if self.done and self.done < self.total
            else ""
        )
        return f"{self.done:,} of {self.total:,} {self.unit}, {rate:,.1f}/s{left}"

    def _draw(self, note: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = [TextColumn(self.what), BarColumn(bar_width=20), TextColumn("{task.fields[numbers]}")]
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=self.total, numbers="")
        self._bar.update(
            self._task,
            completed=self.done,
            total=self.total,
            numbers=self._numbers() + (f", {note}" if note else ""),
        )

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress(what: str, unit: str, total: int | None = None) -> Iterator[Progress]:
    """A Progress that is taken away at the end, also after an error."""
    shown = Progress(what, unit, total)
    try:
        yield shown
    finally:
        shown.close()


@contextmanager
def steps(units: dict[str, str]) -> Iterator[Callable[[str, int, int | None], None]]:
    """A progress display for steps one after the other: call it with what is being done, how much of it is
    done, and of how much.
    """
    shown: list[Progress] = []

    def on_step(what: str, done: int, total: int | None) -> None:
        if not shown or shown[-1].what != what:
            if shown:
                shown[-1].close()
            shown.append(Progress(what, units.get(what, ""), total))
        shown[-1].update(done, total)

    try:
        yield on_step
    finally:
        if shown:
            shown[-1].close()


def printable(text: str) -> str:
    """Text of strangers without what would command the terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def plural(n: int, noun: str) -> str:
    """'1 rater', '3 raters', '2,401 items'."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def names(text: str | None, width: int = 40) -> str:
    """What strangers called something, in one short line; None is what has no name."""
    if text is None:
        return "(none)"
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "…"


def wrapped(text: str) -> str:
    """A sentence in lines of 80 columns, those after the first indented."""
    return textwrap.fill(printable(text), 80, subsequent_indent="  ")


def table(rows: Iterable[tuple[str, int, bool]], whole: int) -> str:
    """Lines of label and number and, where wanted, its share of `whole` with a bar; fits into 80 columns as
    labels of up to 36 characters do.
    """
    rows, lines = list(rows), []
    width = (
        36 if any(row[2] for row in rows) else max([36, *(len(row[0]) for row in rows if len(row[0]) < 69)])
    )
    for label, number, with_share in rows:
        share = number / whole if whole else 0.0
        lines.append(
            f"{label:<{width}}{number:>11,}" + (f"  {share:>6.1%}  {bar(share)}" if with_share else "")
        )
    return "\n".join(line.rstrip() for line in lines)


def bar(share: float, width: int = 20) -> str:
    """A bar of blocks for a share between 0 and 1; more than nothing is never drawn as nothing."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    if share > 0:
        eighths = max(1, eighths)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def duration(seconds: float) -> str:
    """'12 s', '3 min 20 s', '2 h 05 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


OnStep = Callable[[str, int, int | None], None]  # what is being done, how much of it is done, of how much


def no_step(what: str, done: int, total: int | None) -> None:
    """The OnStep of a caller that shows no progress."""

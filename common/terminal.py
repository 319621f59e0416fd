"""What people see: progress as a bar or as log lines, tables of counts, numbers.

Progress and remarks go to standard error. Standard output is only for results.
"""

from __future__ import annotations

import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

TIED = "\x1f"  # a blank at which `wrapped` does not break a line
LOG_EVERY = 10.0  # seconds between log lines when there is no terminal

# Reports progress: (what is being done, how much of it is done, of how much or None if that is not known).
OnStep = Callable[[str, int, int | None], None]


def say(text: str) -> None:
    """Prints a line for people to standard error."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """A bar with rate and time left on a terminal, otherwise a log line every ten seconds.

    `what` is being done, in `unit`s; an empty unit shows only the time. `total` is None if it is not known.
    """

    def __init__(self, what: str, unit: str, total: int | None = None):
        self.what, self.unit, self.total, self.done = what, unit, total, 0
        self._began = self._said = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Sets how much is done so far. Zero restarts the clock, so that loading a model does not count."""
        if not done:
            self._began = time.monotonic()
        self.done, self.total = done, total if total is not None else self.total
        if sys.stderr.isatty():
            self._draw(note)
        elif time.monotonic() - self._said > LOG_EVERY:
            self._said = time.monotonic()
            say(f"{self.what}: {self._numbers()}{', ' + note if note else ''}")

    def advance(self, n: int) -> None:
        """Adds to what is done so far."""
        self.update(self.done + n)

    def _numbers(self) -> str:
        seconds = time.monotonic() - self._began
        if not self.unit:
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
        """Removes the bar."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress(what: str, unit: str, total: int | None = None) -> Iterator[Progress]:
    """A Progress whose bar is removed at the end of the block, also after an error."""
    display = Progress(what, unit, total)
    try:
        yield display
    finally:
        display.close()


@contextmanager
def steps(units: dict[str, str]) -> Iterator[OnStep]:
    """A Progress for each of several steps, one after the other.

    Yields the function to call with what is being done, how much of it is done, and of how much. `units` has
    the unit of each step.
    """
    current: Progress | None = None

    def on_step(what: str, done: int, total: int | None) -> None:
        nonlocal current
        if current is None or current.what != what:
            if current:
                current.close()
            current = Progress(what, units.get(what, ""), total)
        current.update(done, total)

    try:
        yield on_step
    finally:
        if current:
            current.close()


def printable(text: str) -> str:
    """Replaces every character that could control the terminal. For text that strangers wrote."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def plural(n: int, noun: str, many: str | None = None) -> str:
    """'1 rater', '3 raters', '2,401 queries'. `many` is the plural, where it is not made with s or ies."""
    return f"{n:,} {nouns(n, noun, many)}"


def nouns(n: int, noun: str, many: str | None = None) -> str:
    """The noun of `plural` alone, for numbers that stand in a column."""
    if n == 1:
        return noun
    if many:
        return many
    return f"{noun[:-1]}ies" if re.search("[^aeiou]y$", noun) else f"{noun}s"


def data_size(n: float) -> str:
    """A number of bytes for people: '15.0 GB', '679 MB', '12 kB'."""
    if n >= 1e9:
        return f"{n / 1e9:,.1f} GB"
    return f"{n / 1e6:.0f} MB" if n >= 1e6 else f"{n / 1e3:.0f} kB"


def short_name(text: str | None, width: int = 40) -> str:
    """A name that strangers chose, as one short line; "(none)" for None."""
    if text is None:
        return "(none)"
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "…"


def wrapped(text: str, indent: str = "  ") -> str:
    """Breaks a sentence into lines of 80 columns; all but the first are indented.

    It breaks at blanks alone, so that paths and commands can be copied, and not at TIED.
    """
    shown = TIED.join(map(printable, text.split(TIED)))
    lines = textwrap.fill(shown, 80, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
    return lines.replace(TIED, " ")


def table(rows: Iterable[tuple[str, int, bool]], whole: int) -> str:
    """One line for each (label, number, with_share); `with_share` adds the share of `whole` and a bar.

    The lines fit into 80 columns if the labels have at most 36 characters, or 68 if no row has a share.
    """
    rows, lines = list(rows), []
    width = 36
    if not any(with_share for _, _, with_share in rows):
        width = max([width, *(len(label) for label, _, _ in rows if len(label) < 69)])
    for label, number, with_share in rows:
        share = number / whole if whole else 0.0
        lines.append(
            f"{label:<{width}}{number:>11,}" + (f"  {share:>6.1%}  {bar(share)}" if with_share else "")
        )
    return "\n".join(line.rstrip() for line in lines)


def bar(share: float, width: int = 20) -> str:
    """A bar of block characters for a share between 0 and 1. It is empty only for a share of 0."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    if share > 0:
        eighths = max(1, eighths)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def duration(seconds: float) -> str:
    """'0.4 s', '12 s', '3 min 20 s', '2 h 05 min'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def no_step(what: str, done: int, total: int | None) -> None:
    """The OnStep of a caller that shows no progress."""

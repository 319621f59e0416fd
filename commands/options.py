"""Types and options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..captioner.download import OnBytes

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DAY_FIRST = re.compile(r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{4})")  # with dots the day is first


class BatchSizeType(click.ParamType[int | None]):
    """`auto` (None for the program) or a number of pictures."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "auto":
            return None
        try:
            size = int(value)
        except ValueError:
            size = 0
        if not 1 <= size <= 4096:
            self.fail(f"{value!r} is neither auto nor a number from 1 to 4096", param, ctx)
        return size


class DayType(click.ParamType[date]):
    """A day as 2026-05-31; one that is written in another way is named as it is to be written."""

    name = "DATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        text = str(value)
        reason = "is no day: write it as in 2026-05-31"
        if _DAY.fullmatch(text):
            with suppress(ValueError):
                return date.fromisoformat(text)
            reason = "is no day of the calendar"
        elif meant := _meant(text):
            reason = f"is not written as a day: write it as {meant}"
        return self.fail(f"{text!r} {reason}", param, ctx)


def _meant(text: str) -> date | None:
    """The day that a text in another form means; None if that is not known."""
    from ..sources.cells import RowError
    from ..sources.dates import moment

    if match := _DAY_FIRST.fullmatch(text):
        text = f"{match[3]}-{int(match[2]):02}-{int(match[1]):02}"
    with suppress(RowError, ValueError):
        return date.fromisoformat((moment(text) or "")[:10])
    return None


DAY = DayType()


class DeviceType(click.ParamType[str]):
    """A device by torch's name, several of them with commas, `auto` or `all`."""

    name = "auto|all|cpu|cuda:N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        devices = str(value).split(",")
        if value not in ("auto", "all") and not all(
            device in ("cpu", "cuda") or (device.startswith("cuda:") and device[5:].isdigit())
            for device in devices
        ):
            self.fail(
                f"{value!r} is none of auto, all, cpu, cuda, cuda:0, or several as in cuda:0,cuda:1",
                param,
                ctx,
            )
        return str(value)


DTYPE = click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Number format to compute in. auto: the one that this store used last with this model, or else the "
    "one that suits the device best.",
)

PORT = click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8001,
    show_default=True,
    help="Port to serve at; 0 takes any free port.",
)
OPENS = click.option(
    "--open/--no-open", "opens", default=None, help="Open the page in a browser.  [default: on a terminal]"
)


@contextmanager
def download_progress(as_json: bool) -> Iterator[OnBytes]:
    """What shows the download of a model: a bar on a terminal, else a line now and then; none with --json."""
    from ..common.terminal import progress

    with progress("downloading", "MB") as shown:

        def on_bytes(done: int, total: int) -> None:
            if done >= total:
                shown.close()  # another bar may follow
            elif not as_json:
                shown.update(done // 1_000_000, total // 1_000_000)

        yield on_bytes

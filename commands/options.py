"""Types and options that several commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..captioner.download import OnBytes


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

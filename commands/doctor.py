"""`captioner doctor`: whether this machine and a checkpoint can write captions."""

from __future__ import annotations

from typing import Any

import click

from .options import DTYPE, DeviceType
from .verbs import command, finish


@command("doctor")
@click.option(
    "--model",
    default="builtin",
    show_default=True,
    metavar="builtin|NAME|PATH",
    help="The checkpoint to examine.",
)
@click.option("--revision", help="Commit, tag or branch of the model on the hub.")
@click.option(
    "--device",
    type=DeviceType(),
    metavar="auto|cpu|cuda:N",
    default="auto",
    show_default=True,
    help="Where the model runs. auto: a GPU if there is one.",
)
@DTYPE
@click.option("--bench", is_flag=True, help="Also measure pictures per second at several batch sizes.")
def doctor(
    model: str, revision: str | None, device: str, dtype: str, bench: bool, as_json: bool
) -> dict[str, Any]:
    """Check that machine, libraries and checkpoint work together.

    Captions drawn pictures, one by one and in a batch, and compares.

    \b
    captioner doctor --model Salesforce/blip2-flan-t5-xl
    """
    from ..captioner.doctor import examine

    findings: dict[str, str] = {}
    ok = True
    for finding in examine(model, revision=revision, device=device, dtype=dtype, bench=bench):
        ok = ok and finding.ok
        findings[finding.name] = finding.text
        if not as_json:
            click.echo(finding.shown())
    result = {"ok": ok, "findings": findings}
    if not ok:
        finish(result, as_json, 1)
    return result

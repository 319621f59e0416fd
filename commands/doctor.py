"""`captioner doctor`: whether this machine and a checkpoint can write captions."""

from __future__ import annotations

from typing import Any

import click

from .options import DTYPE, DeviceType, download_progress
from .verbs import command, finish


@command("doctor")
@click.option(
    "--model",
    metavar="builtin|NAME|PATH",
    help="The checkpoint to examine. [default: builtin]",
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
@click.option(
    "--golden",
    metavar="[PICTURE]",
    is_flag=False,
    flag_value="",
    help="Also compare with a known caption: that of scikit-image's astronaut.png by "
    "Salesforce/blip2-opt-2.7b (15 GB, unless --model names a copy of it), in float16 (float32 on a CPU). "
    "PICTURE is that file; without it the installed scikit-image's is taken.",
)
def doctor(
    model: str | None,
    revision: str | None,
    device: str,
    dtype: str,
    bench: bool,
    golden: str | None,
    as_json: bool,
) -> dict[str, Any]:
    """Check that machine, libraries and checkpoint work together.

    Captions drawn pictures, one by one and in a batch, and compares. Says what the files of an older
    checkpoint lack, and what is taken instead.

    \b
    captioner doctor --model Salesforce/blip2-flan-t5-xl
    captioner doctor --golden astronaut.png
    """
    from ..captioner.doctor import examine
    from ..captioner.golden import ASTRONAUT, find_picture
    from ..common.terminal import say

    known = (ASTRONAUT, find_picture(golden or None)) if golden is not None else None
    if known and model is None:
        model, revision = ASTRONAUT.model, revision or ASTRONAUT.revision
    findings: dict[str, str] = {}
    ok = True
    with download_progress(as_json) as on_bytes:
        for finding in examine(
            model or "builtin",
            revision=revision,
            device=device,
            dtype=dtype,
            bench=bench,
            golden=known,
            say=say,
            on_bytes=on_bytes,
        ):
            ok = ok and finding.ok
            findings[finding.name] = finding.text
            if not as_json:
                click.echo(finding.shown())
    result = {"ok": ok, "findings": findings}
    if not ok:
        finish(result, as_json, 1)
    return result

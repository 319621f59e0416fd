"""Finds a checkpoint: the built-in one, a folder, or a name on the Hugging Face hub. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ..store.recipes import BUILTIN
from .blip2_layout import check_layout
from .checkpoint import FILES, Checkpoint, CheckpointError
from .download import OnBytes, download, reason

KNOWN_MODELS = {
    BUILTIN: "knows drawn pictures only",
    "Salesforce/blip2-opt-2.7b": "photos; OPT's licence allows research only",
    "Salesforce/blip2-flan-t5-xl": "photos; Flan-T5's licence is Apache-2.0",
}
HUB_SECONDS = 10  # how long the hub may take to answer before the files on the disk are used
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def known_models() -> str:
    """The models that can be named, as a clause of an error sentence."""
    models = ", ".join(f"{name} ({what})" for name, what in KNOWN_MODELS.items())
    return f"the model may be {models}, or the folder of a BLIP-2 checkpoint"


def find_checkpoint(
    model: str,
    revision: str | None = None,
    *,
    say: Callable[[str], None] = lambda text: None,
    on_bytes: OnBytes = lambda done, total: None,
) -> Checkpoint:
    """Finds and checks the checkpoint `model`: "builtin", a folder, or a name on the hub at `revision`.

    A checkpoint of the hub is downloaded if it is not on the disk yet: first its small files, which are
    checked, then the weights. `say` gets lines for people, such as what will be downloaded, and `on_bytes`
    how much of the weights has come. If `revision` is a full commit that is on the disk, the hub is not asked
    at all. If the hub does not answer, the files on the disk are used.

    Raises CheckpointError, with one sentence, if there is no such checkpoint or if it cannot be used.
    """
    path = Path(model).expanduser()
    if model == BUILTIN:
        checkpoint = Checkpoint(BUILTIN, Path(__file__).parent / "builtin")
    elif path.is_dir():
        checkpoint = Checkpoint(path.resolve().name, path.resolve())
    elif path.exists():
        raise CheckpointError(f"{model} is a file: give the folder that it lies in, a checkpoint is a folder")
    elif _HUB_NAME.fullmatch(model):
        return _find_on_hub(model, revision, say, on_bytes)
    else:
        raise CheckpointError(
            f"no checkpoint {model!r}: it is neither a folder nor a name owner/name of the hub; "
            f"{known_models()}"
        )
    if revision:
        place = "part of this package" if model == BUILTIN else "a folder"
        raise CheckpointError(
            f"only a model of the hub has a revision, and {model} is {place}: leave out the revision "
            f"{revision!r}"
        )
    check_layout(checkpoint)
    return checkpoint


def _find_on_hub(
    model: str, revision: str | None, say: Callable[[str], None], on_bytes: OnBytes
) -> Checkpoint:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    checkpoint = _find_in_cache(model, revision) if revision and _COMMIT.fullmatch(revision) else None
    if checkpoint is None or _flaw(checkpoint):
        try:
            # The commit is asked for separately, because a download without a network tries again and again
            # for half a minute.
            info = HfApi().model_info(
                model, revision=revision or "main", timeout=HUB_SECONDS, files_metadata=True
            )
            checkpoint = _find_in_cache(model, info.sha)
            if checkpoint is None or _flaw(checkpoint):
                checkpoint = download(model, revision, info, say, on_bytes)
        except RevisionNotFoundError:
            raise CheckpointError(
                f"{model} has no revision {revision or 'main'!r} on the hub: "
                "look at its commits, branches and tags there"
            ) from None
        except RepositoryNotFoundError:
            raise CheckpointError(
                f"the hub has no model {model!r}, or it is private (then log in with `hf auth login`); "
                f"{known_models()}"
            ) from None
        except CheckpointError:
            raise
        except Exception as error:
            # No network, the error page of a proxy and so on come as exceptions of many kinds: httpx,
            # OSError, HfHubHTTPError, ValueError.
            checkpoint = checkpoint or _find_in_cache(model, revision)
            what = f"{model} at revision {revision!r}" if revision else model
            if checkpoint is None:
                raise CheckpointError(
                    f"{what} is not on this machine and the hub does not give it ({reason(error)}): check "
                    "the name and the network, or name a folder as the model"
                ) from None
            if flaw := _flaw(checkpoint):
                raise CheckpointError(
                    f"{what} is on this machine in part, and the hub does not give the rest "
                    f"({reason(error)}): check the network and run it again; {flaw}"
                ) from None
            say(f"the hub does not answer ({reason(error)}): {checkpoint.title} is taken from this disk")
    assert checkpoint
    check_layout(checkpoint)
    return checkpoint


def _find_in_cache(model: str, revision: str | None) -> Checkpoint | None:
    """The checkpoint in the hub's cache on this disk, complete or not, or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    folder: str | None
    try:
        folder = snapshot_download(
            model, revision=revision, allow_patterns=list(FILES), local_files_only=True
        )
    except LocalEntryNotFoundError as error:
        # Newer versions of the library raise an error for an incomplete folder, and name it. Whether it is
        # complete for us is judged by check_layout.
        folder = getattr(error, "snapshot_path", None)
    if folder is None:
        return None
    return Checkpoint(model, Path(folder), Path(folder).name)


def _flaw(checkpoint: Checkpoint) -> str | None:
    """Why the checkpoint cannot be used as it is on this disk, or None."""
    try:
        check_layout(checkpoint)
    except CheckpointError as error:
        return str(error)
    return None

"""Trains both towers on the pairs of an export.

accelerate spreads a training over one or more processes, on CPUs or GPUs; GPUs compute in bfloat16. What a
step learns depends on nothing but the seed and the step. So a training that was stopped goes on from its
checkpoint exactly as if it had not been stopped, and two processes with half of each batch learn what one
process learns.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from ..common.terminal import OnStep, no_step
from .batches import Batches, TaskBatch, batch_shares, pairs_per_step, steps_of
from .checkpoint import (
    CHECKPOINT,
    CURVE,
    TrainResult,
    check_writable,
    finished_result,
    load_checkpoint,
    save_checkpoint,
    training_digest,
)
from .curve import draw_curve
from .encoded_texts import EncodedTexts
from .errors import EmbedError
from .hard_negatives import mine
from .history import CurvePoint, History
from .inputs import texts_to_encode
from .model import EmbeddingModel
from .objective import Objective, parameter_groups
from .options import TrainOptions
from .pairs import Pairs
from .reader import Export
from .start import initial_model
from .validation import CANDIDATES_WITH_ENCODER, VALIDATION_CANDIDATES, Validation, hold_out


def train(
    export: str | Path,
    model_dir: str | Path,
    options: TrainOptions | None = None,
    *,
    workers: int = 1,
    device: str | None = None,
    on_step: OnStep = no_step,
    on_point: Callable[[CurvePoint], None] = lambda point: None,
    stop_after: int | None = None,
) -> TrainResult:
    """Trains a model on the export in a folder, and writes it to `model_dir`. `EmbeddingModel.load` reads it.

    An unfinished training in `model_dir` goes on from its last checkpoint. A finished one is left alone. From
    time to time held-out queries are ranked; the model gets the weights of the step that ranked them best.

    `workers`: processes that make batches. `device`: "cpu", or None for GPUs where there are any. `on_point`
    gets each point of the learning curve. `stop_after`: stop after so many steps of this call, with a
    checkpoint.

    Raises EmbedError for an export without pairs, an encoder that cannot be used, options that do not fit the
    export, and a `model_dir` that holds something else or cannot be written.
    """
    options = options or TrainOptions()
    folder, digest = Path(model_dir), training_digest(export, options)
    if (result := finished_result(folder, digest)) is not None:
        return result

    # The data: what is learned from, and the queries that are held out.
    data = Export(export, options.fields, controls=dict(options.controls), seed=options.seed)
    accelerator = _accelerator(device)
    process, processes = accelerator.process_index, accelerator.num_processes
    pairs, held_out, data.hidden_queries = hold_out(Pairs.load(data, "train"), options.validation)
    shares = batch_shares(pairs, options.batch, processes, options.weights)
    total = steps_of(options.epochs, pairs, shares)
    if accelerator.is_main_process:
        check_writable(folder)

    # The model, and what changes it.
    on_step("building the vocabulary", 0, None)
    model = initial_model(data, pairs, options)
    _check_compatible(data, options, model.dims)
    if model.towers.encoder and not options.trains_encoder:
        model.inputs.encoded = _encode_texts(model.to(accelerator.device), data, pairs, held_out, on_step)
    objective: nn.Module = Objective(model, options, pairs, len(data))
    optimizer = torch.optim.AdamW(parameter_groups(objective, options), betas=(0.9, 0.98), eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _learning_rate_factor(step, total, options.warmup)
    )
    validation = None
    if accelerator.is_main_process:
        most = CANDIDATES_WITH_ENCODER if options.trains_encoder else VALIDATION_CANDIDATES
        validation = Validation(data, held_out, options.seed, most)

    # Where an earlier call stopped.
    history = History()
    if state := load_checkpoint(folder, digest):
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        history = History.from_state_dict(state)
    del state  # it is as large as all the rest

    batches = Batches(
        data,
        pairs,
        model.inputs,
        shares=shares,
        steps=total,
        seed=options.seed,
        process=process,
        processes=processes,
        keep_own_query=options.keep_own_query,
        random_negatives=options.negatives,
        hard_negatives=(options.hard_negatives, mine(data, pairs) if options.hard_negatives else {}),
    )
    objective, optimizer = accelerator.prepare(objective, optimizer)
    every = options.every or min(200, -(-total // 20))
    first, last = history.step, total if stop_after is None else min(total, history.step + stop_after)
    began = time.perf_counter() - history.seconds

    if validation is not None and history.step == 0:
        # What the encoder and the words know before anything is learned: a training may make it worse.
        model.to(accelerator.device)
        objective.eval()
        point = history.add_point(0, accelerator)
        point["validation"] = validation(model)
        history.keep_if_best(point, accelerator.unwrap_model(objective))
        on_point(point)
    objective.train()
    for batch in _load(batches, first, last, workers):
        history.step += 1
        # Dropout is the same however often the training was stopped.
        torch.manual_seed(hash((options.seed, history.step, process)))
        with accelerator.autocast():
            losses = objective({task: part.to(accelerator.device) for task, part in batch.items()})
        accelerator.backward(sum(losses.values()) / len(losses))
        accelerator.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        history.add_losses(losses)
        on_step("training", history.step - first, last - first)

        # The step at which a call stops early is not a point of the curve: it must not compete for the best
        # step.
        if history.step % every == 0 or history.step == total:
            point = history.add_point(history.step * pairs_per_step(shares), accelerator)
            if validation is not None:
                objective.eval()
                point["validation"] = validation(model)
                objective.train()
                history.keep_if_best(point, accelerator.unwrap_model(objective))
                on_point(point)
        if history.step % every == 0 or history.step == last:
            history.seconds = time.perf_counter() - began
            if accelerator.is_main_process:
                state = {
                    "digest": digest,
                    "objective": accelerator.unwrap_model(objective).state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                }
                save_checkpoint(folder, state | history.state_dict())
            accelerator.wait_for_everyone()

    history.seconds = time.perf_counter() - began
    result = _result(folder, history, total, pairs_per_step(shares))
    if accelerator.is_main_process and result["done"]:
        about = {name: value for name, value in asdict(options).items() if name != "sizes"}
        model.about |= {"training": about, "export": str(Path(export).absolute()), "digest": digest}
        _write_model(folder, model, accelerator.unwrap_model(objective), history, result, validation)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return result


def _encode_texts(
    model: EmbeddingModel, export: Export, pairs: Pairs, held_out: Pairs, on_step: OnStep
) -> EncodedTexts:
    """The vectors of all texts of a training whose encoder is not trained."""
    assert model.towers.encoder
    encoded = EncodedTexts(model.towers.encoder)
    queries = pa.concat_arrays([pairs.used_queries, held_out.used_queries])
    encoded.add(texts_to_encode(export, queries), on_step)
    return encoded


def _accelerator(device: str | None) -> Any:
    from accelerate import Accelerator, DistributedDataParallelKwargs

    on_cpu = device == "cpu" or not torch.cuda.is_available()
    parallel = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    return Accelerator(mixed_precision="no" if on_cpu else "bf16", cpu=on_cpu, kwargs_handlers=[parallel])


def _check_compatible(export: Export, options: TrainOptions, dims: Sequence[int]) -> None:
    """Raises EmbedError unless the export has vectors of each name in `compatible`, of a length in `dims`."""
    for name in options.compatible:
        if name not in export.dense:
            known_names = ", ".join(export.dense) or "it has none at all"
            raise EmbedError(f"--compatible {name}: the export has no vectors of that name ({known_names})")
        if export.dense[name] not in dims:
            raise EmbedError(
                f"--compatible {name}: its vectors have {export.dense[name]} numbers, which is none of the "
                f"dimensions {', '.join(map(str, dims))}: give --dims one of that size"
            )


def _learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Rises to 1 during the first steps, then falls to 0.01 along a cosine."""
    first = max(1, round(total * warmup))
    if step < first:
        return (step + 1) / first
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, total - first)))


def _load(batches: Batches, first: int, last: int, workers: int) -> Iterator[dict[str, TaskBatch]]:
    """The batches of steps `first` to `last`, made by other processes ahead of time."""
    loader = torch.utils.data.DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # A fork shares the memory-mapped rows and the vocabulary, and starts at once. Python 3.14 would
        # pickle them by default.
        multiprocessing_context="fork" if workers else None,
    )
    return iter(loader)


def _result(folder: Path, history: History, total: int, per_step: int) -> TrainResult:
    pairs, kept = history.step * per_step, history.best_point
    return {
        "model": str(folder),
        "steps": history.step,
        "of": total,
        "kept_step": history.best.step if history.best else None,
        "pairs": pairs,
        "seconds": round(history.seconds, 1),
        "pairs_per_second": round(pairs / max(history.seconds, 1e-9), 1),
        "loss": kept["loss"] if kept else {},
        "validation": kept.get("validation", {}) if kept else {},
        "done": history.step >= total,
    }


def _write_model(
    folder: Path,
    model: EmbeddingModel,
    objective: Objective,
    history: History,
    result: TrainResult,
    validation: Validation | None,
) -> None:
    """Writes the model with the weights of the best step, and the learning curve. Removes the checkpoint."""
    assert history.best is not None
    objective.load_state_dict(history.best.weights, strict=False)
    model.about |= {
        "temperatures": {
            name: round(float(loss.temperature.detach()), 4)  # type: ignore[operator,union-attr]
            for name, loss in objective.losses.items()
        },
        "result": result,
        "history": history.points,
    }
    model.towers.eval()
    if validation is not None and (fusion := validation.tune(model)) is not None:
        model.about["fusion"] = fusion.as_dict()
    model.to("cpu")
    draw_curve(history.points, history.best.step, folder / CURVE)
    model.save(folder)
    (folder / CHECKPOINT).unlink(missing_ok=True)

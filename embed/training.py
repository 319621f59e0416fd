"""Trains the towers on the pairs of an export. By accelerate: one process or several, CPU or GPUs, bfloat16
on GPUs.

What a step learns depends on seed and step alone, so that a training that was stopped goes on from its
checkpoint exactly as if it had not been, and two processes with half of each batch learn what one does with
the whole.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .batches import Batches, TaskBatch, batch_shares
from .checkpoint import CHECKPOINT, CURVE, _checkpoint, _finished, _save_checkpoint, check_writable, digest_of
from .curve import draw_curve
from .errors import EmbedError
from .objective import Objective, _groups
from .options import TrainOptions
from .pairs import OWN_WORDS, Pairs
from .reader import Export
from .sizes import sizes_of
from .start import make_model
from .validation import Validation, split_validation

OnStep = Callable[[str, int, int], None]  # what is done, how much of it by this call, of how much


def train(folder: str | Path, out: str | Path, options: TrainOptions, *, workers: int = 1, device: str | None = None, on_step: OnStep = lambda what, done, total: None,
          on_point: Callable[[dict[str, Any]], None] = lambda point: None, stop_after: int | None = None) -> dict[str, Any]:  # fmt: skip
    """Trains on an export and writes the model to `out`: goes on from a checkpoint there, and does nothing
    where the training was done.

    Of the steps at which held-out queries were ranked, the one that ranked them best is kept. `on_point` gets
    each point of the curve: {"step", "pairs", "loss": {task: mean since the last}, "validation": {task:
    {"recall@10", "bm25 recall@10"}}}. Returns {"model", "steps", "of", "kept_step", "pairs",
    "pairs_per_second", "seconds", "loss", "validation", "done"}; `stop_after` ends after so many steps of
    this call, with a checkpoint. Raises EmbedError.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    out = Path(out)
    digest = digest_of(folder, options)
    if (found := _finished(out, digest)) is not None:
        return found
    export = Export(folder, options.fields, controls=dict(options.controls), seed=options.seed)
    accelerator = Accelerator(mixed_precision="bf16" if device != "cpu" and torch.cuda.is_available() else "no", cpu=device == "cpu" or not torch.cuda.is_available(),
                              kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)])  # fmt: skip
    rank, world = accelerator.process_index, accelerator.num_processes
    pairs, held_out, export.hidden = split_validation(Pairs.load(export, "train"), options.validation)
    if not len(export.with_text):
        options = replace(options, mix=(*options.mix, (OWN_WORDS, 0.0)))
    shares = batch_shares(pairs, options.batch, world, options.weights)
    per_step = sum(size for name, size in shares.items() if name != OWN_WORDS)
    total = max(
        1,
        math.ceil(
            options.epochs * sum(len(pairs.tasks[name]) for name in shares if name != OWN_WORDS) / per_step
        ),
    )
    _check_compatible(export, options)
    if accelerator.is_main_process:
        check_writable(out)
    on_step("building the vocabulary", 0, 0)
    model = make_model(export, pairs, options)
    objective: nn.Module = Objective(model, options, pairs, len(export))
    optimizer = torch.optim.AdamW(_groups(objective, options), betas=(0.9, 0.98), eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total, options.warmup))
    validation = Validation(export, held_out, options.seed) if accelerator.is_main_process else None
    state = _checkpoint(out, digest)
    step, history, recent, seconds, best = (
        0,
        list[dict[str, Any]](),
        dict[str, list[float]](),
        0.0,
        dict[str, Any](),
    )
    if state:
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        (history, recent), step, seconds, best = (
            json.loads(state["history"]),
            state["step"],
            state["seconds"],
            state["best"],
        )
        state = None  # it is as large as all the rest
    batches = Batches(
        export,
        pairs,
        model.vocabulary,
        model.tokenise,
        shares=shares,
        steps=total,
        seed=options.seed,
        rank=rank,
        ranks=world,
        keep_own_query=options.keep_own_query,
    )
    objective, optimizer = accelerator.prepare(objective, optimizer)
    every = options.every or min(200, -(-total // 20))
    first, last = step, min(total, step + stop_after) if stop_after is not None else total
    began = time.perf_counter()
    objective.train()
    for batch in _loaded(batches, step, last, workers):
        step += 1
        # dropout: the same however often the training was stopped
        torch.manual_seed(hash((options.seed, step, rank)))
        with accelerator.autocast():
            losses = objective({name: _on(part, accelerator.device) for name, part in batch.items()})
        loss = sum(losses.values()) / len(losses)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        for name, value in losses.items():
            recent.setdefault(name, []).append(float(value.detach()))
        on_step("training", step - first, last - first)
        if step % every == 0 or step == total:
            history.append(
                {
                    "step": step,
                    "pairs": step * per_step,
                    "loss": {name: round(_mean(values, accelerator), 5) for name, values in recent.items()},
                }
            )
            recent = {}
            if validation is not None:
                objective.eval()
                history[-1]["validation"] = validation(model, accelerator.device)
                objective.train()
                score = _mean_recall(history[-1])
                if not best or score >= best["score"]:
                    # of equals the later one, which has seen more; without held-out queries the last
                    weights = accelerator.unwrap_model(objective).state_dict()
                    best = {
                        "step": step,
                        "score": score,
                        "towers": {
                            name: value.detach().to("cpu", copy=True)
                            for name, value in weights.items()
                            if _is_kept(name)
                        },
                    }
                on_point(history[-1])
        if step % every == 0 or step == last:
            # where a training is stopped is no point of its curve: it would choose the step that is kept
            if accelerator.is_main_process:
                _save_checkpoint(out, {"digest": digest, "step": step, "history": json.dumps([history, recent]), "seconds": seconds + time.perf_counter() - began, "best": best,
                                       "objective": accelerator.unwrap_model(objective).state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()})  # fmt: skip
            accelerator.wait_for_everyone()
    spent = seconds + time.perf_counter() - began
    kept = next((point for point in history if point["step"] == best.get("step")), {})
    found = {"model": str(out), "steps": step, "of": total, "kept_step": best.get("step"), "pairs": step * per_step, "seconds": round(spent, 1),
             "pairs_per_second": round(step * per_step / max(spent, 1e-9), 1), "loss": kept.get("loss", {}), "validation": kept.get("validation", {}), "done": step >= total}  # fmt: skip
    if accelerator.is_main_process and step >= total:
        unwrapped = accelerator.unwrap_model(objective)
        unwrapped.load_state_dict(best["towers"], strict=False)
        temperatures = {
            name: round(float(loss.temperature.detach()), 4) for name, loss in unwrapped.losses.items()
        }
        model.about |= {"training": {name: value for name, value in asdict(options).items() if name != "sizes"}, "export": str(Path(folder).absolute()), "digest": digest,
                        "temperatures": temperatures, "result": found, "history": history}  # fmt: skip
        model.queries.cpu().eval()
        model.items.cpu().eval()
        draw_curve(history, best["step"], out / CURVE)
        model.save(out)
        (out / CHECKPOINT).unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return found


def _is_kept(name: str) -> bool:
    """Of the objective's state what the model is made of, without the sketches of the losses, which are
    large.
    """
    return name.startswith(("queries.", "items.")) or name.endswith("log_temperature")


def _mean_recall(point: dict[str, Any]) -> float:
    values = [told["recall@10"] for told in point["validation"].values()]
    return float(np.mean(values)) if values else 0.0


def _check_compatible(export: Export, options: TrainOptions) -> None:
    dims = (options.sizes or sizes_of(options.encoder)).dims
    for name in options.compatible:
        if name not in export.dense:
            raise EmbedError(
                f"--compatible {name}: the export has no vectors of that name ({', '.join(export.dense) or 'it has none at all'})"
            )
        if export.dense[name] not in dims:
            raise EmbedError(
                f"--compatible {name}: vectors of {export.dense[name]} numbers fit none of the dimensions {', '.join(map(str, dims))}: give --dims one of that size"
            )


def _rate(step: int, total: int, warmup: float) -> float:
    """Rises over the first steps, then falls as a cosine to a hundredth."""
    first = max(1, round(total * warmup))
    if step < first:
        return (step + 1) / first
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, total - first)))


def _loaded(batches: Batches, first: int, last: int, workers: int) -> Iterator[dict[str, TaskBatch]]:
    # 'fork' shares the memory-mapped rows and the vocabulary, and starts in no time; later Pythons would
    # pickle them by default.
    loader = torch.utils.data.DataLoader(batches, batch_size=None, sampler=range(first, last), num_workers=workers, prefetch_factor=4 if workers else None,
                                         multiprocessing_context="fork" if workers else None)  # fmt: skip
    return iter(loader)


def _on(batch: TaskBatch, device: torch.device) -> TaskBatch:
    def moved(value: Any) -> Any:
        return tuple(part.to(device) for part in value) if isinstance(value, tuple) else value.to(device)

    return TaskBatch(**{name: moved(value) for name, value in vars(batch).items()})


def _mean(values: list[float], accelerator: Any) -> float:
    return float(accelerator.reduce(torch.tensor(np.mean(values), device=accelerator.device), "mean"))

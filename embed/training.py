"""Trains the towers on the pairs of an export. By accelerate: one process or several, CPU or GPUs, bfloat16 on GPUs.

What a step learns depends on seed and step alone, so that a training that was stopped goes on from its checkpoint exactly as if it had
not been, and two processes with half of each batch learn what one does with the whole.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
import torch
from torch import nn

from .data import FIELDS, MIX, QUERY_QUERY, Batches, Export, ExportError, Pairs, TaskBatch, batch_shares
from .loss import WIDTH, Loss, LossOptions
from .ngrams import SIZES, Vocabulary
from .recall import bm25_scores, encode_items, encode_queries, index_of, known_positives, measures, ranks
from .towers import DISTILBERT, SMALL, SMALL_SIZES, Model, Sizes, new_model

CHECKPOINT, CURVE = "checkpoint.pt", "learning_curve.png"
VALIDATION_PAIRS = 1_000  # of each task; of the training pairs, by their queries
VALIDATION_INDEX = 5_000

OnStep = Callable[[str, int, int, str], None]  # what is done, how much of it, of how much, a note


@dataclass(frozen=True)
class TrainOptions:
    """`epochs`: how often as many pairs are seen as there are. `compatible`: names of fixed vectors that queries are to be comparable with by a dot product."""

    encoder: str = DISTILBERT
    revision: str | None = None
    sizes: Sizes | None = None  # None: small ones with the small encoder, the published ones else
    fields: tuple[str, ...] = FIELDS
    shuffled: tuple[str, ...] = ()
    hashed: bool = False  # n-grams get their ids by hashing, in place of a vocabulary of the frequent ones
    epochs: float = 10.0
    batch: int = 256
    learning_rate: float = 1e-3
    encoder_learning_rate: float | None = None  # None: that of the towers for the small encoder, 5e-5 for one that was trained before
    weight_decay: float = 0.01
    warmup: float = 0.05
    mix: tuple[tuple[str, float], ...] = tuple(MIX.items())
    correction: Literal["popularity", "conditional", "none"] = "popularity"
    mask_known: bool = False
    sketch_width: int | None = None  # None: sixteen cells for each item, at most the published 2^26
    compatible: tuple[str, ...] = ()
    keep_own_query: bool = False
    validation: float = 0.02  # share of the training queries that are held out for the curve
    every: int | None = None  # steps between checkpoints, and between points of the curve; None: a twentieth of the training, at most 200
    seed: int = 0


class Objective(nn.Module):
    """Towers and losses as one module: a batch in, a loss for each task out. It is what DistributedDataParallel wraps."""

    def __init__(self, model: Model, options: TrainOptions, pairs: Pairs):
        super().__init__()
        self.queries, self.items = model.queries, model.items
        dims = dict.fromkeys(model.sizes.dims, 1.0)
        loss_options = LossOptions(dims, options.correction, options.mask_known, options.sketch_width or sketch_width(max(len(task.pool) for task in pairs.tasks.values())))
        self.losses = nn.ModuleDict()
        for name, task in pairs.tasks.items():
            known = torch.from_numpy(known_positives([pairs.tasks], name) if name == QUERY_QUERY else task.known)
            for what in (name, *(f"{name} {vectors}" for vectors in (options.compatible if name != QUERY_QUERY else ()))):
                self.losses[what] = Loss(loss_options, known)
        for name in options.compatible:
            if name not in model.items.dense:
                raise ExportError(f"--compatible {name}: the export has no vectors of that name ({', '.join(model.items.dense) or 'it has none at all'})")
            if model.items.dense[name] not in dims:
                raise ExportError(
                    f"--compatible {name}: vectors of {model.items.dense[name]} numbers fit none of the dimensions {', '.join(map(str, dims))}: give --dims one of that size"
                )

    def forward(self, batch: dict[str, TaskBatch]) -> dict[str, torch.Tensor]:
        """{task: loss}, and {"task vectors": loss} for fixed vectors as candidates."""
        found = {}
        for name, part in batch.items():
            queries = self.queries(*part.queries)
            of_queries = name == QUERY_QUERY
            positives = self.queries(*part.positives) if of_queries else self.items(part.positives)
            negatives = self.queries(*part.negatives) if of_queries else self.items(part.negatives)
            for what, loss in self.losses.items():
                if what.split(" ")[0] == name:
                    assert isinstance(loss, Loss)
                    loss.count(part.query_keys, part.positive_keys)
                    if what == name:
                        found[what] = loss(queries, part.query_keys, positives, part.positive_keys, negatives, part.negative_keys)
                    else:
                        (own, has), (others, have) = part.positives.dense[what.split(" ", 1)[1]], part.negatives.dense[what.split(" ", 1)[1]]
                        found[what] = loss(queries, part.query_keys, own, part.positive_keys, others, part.negative_keys, has=(has, have), dims=[own.shape[1]])
        return found


def train(folder: str | Path, out: str | Path, options: TrainOptions, *, workers: int = 1, device: str | None = None, on_step: OnStep = lambda what, done, total, note: None,
          stop_after: int | None = None) -> dict[str, Any]:  # fmt: skip
    """Trains on an export and writes the model to `out`: goes on from a checkpoint there, and does nothing where the training was done.

    Returns {"model", "steps", "pairs", "pairs_per_second", "seconds", "loss": {task: mean of the last steps}, "validation": {task: {...}}, "done": bool}.
    `stop_after` ends after so many steps of this call, with a checkpoint. Raises ExportError.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    out = Path(out)
    export = Export(folder, options.fields, shuffled=options.shuffled, seed=options.seed)
    digest = hashlib.sha256((Path(folder) / "manifest.json").read_bytes() + json.dumps(asdict(options), sort_keys=True).encode()).hexdigest()
    if (found := _finished(out, digest)) is not None:
        return found
    accelerator = Accelerator(mixed_precision="bf16" if device != "cpu" and torch.cuda.is_available() else "no", cpu=device == "cpu" or not torch.cuda.is_available(),
                              kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])  # fmt: skip
    rank, world = accelerator.process_index, accelerator.num_processes
    pairs, validation = split_validation(Pairs.load(export, "train"), options.validation)
    shares = batch_shares(pairs, options.batch, world, dict(options.mix))
    total = max(1, math.ceil(options.epochs * sum(len(pairs.tasks[name]) for name in shares) / sum(shares.values())))
    on_step("building the vocabulary", 0, 0, "")
    model = make_model(export, pairs, options)
    objective: nn.Module = Objective(model, options, pairs)
    optimizer = torch.optim.AdamW(_groups(objective, options), betas=(0.9, 0.98), eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total, options.warmup))
    state = _checkpoint(out, digest)
    step, history, seconds = 0, list[dict[str, Any]](), 0.0
    if state:
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        step, history, seconds = state["step"], json.loads(state["history"]), state["seconds"]
    batches = Batches(export, pairs, model.vocabulary, model.tokenise, batch=options.batch, steps=total, seed=options.seed, mix=dict(options.mix), rank=rank, ranks=world,
                      keep_own_query=options.keep_own_query)  # fmt: skip
    objective, optimizer = accelerator.prepare(objective, optimizer)
    every = options.every or min(200, -(-total // 20))
    last = min(total, step + stop_after) if stop_after is not None else total
    began, recent = time.perf_counter(), dict[str, list[float]]()
    objective.train()
    for batch in _loaded(batches, step, last, workers):
        step += 1
        torch.manual_seed(hash((options.seed, step, rank)))  # dropout: the same however often the training was stopped
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
        if step % 10 == 0 or step == last:
            note = ", ".join(f"{name} {np.mean(values[-10:]):.3f}" for name, values in recent.items())
            found_so_far = history[-1].get("validation", {}) if history else {}
            recalls = ", ".join(f"{name} {told['recall@10']:.2f}" for name, told in found_so_far.items())
            on_step("training", step, total, f"loss {note}" + (f"; recall@10 {recalls}" if recalls else ""))
        if step % every == 0 or step == last:
            spent = seconds + time.perf_counter() - began
            history.append({"step": step, "pairs": step * sum(shares.values()), "loss": {name: round(_mean(values, accelerator), 5) for name, values in recent.items()}})
            recent = {}
            objective.eval()
            if accelerator.is_main_process:
                history[-1]["validation"] = validate(model, export, validation, accelerator.device, options.seed)
                _save_checkpoint(out, {"digest": digest, "step": step, "history": json.dumps(history), "seconds": spent, "objective": accelerator.unwrap_model(objective).state_dict(),
                                       "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()})  # fmt: skip
            accelerator.wait_for_everyone()
            objective.train()
    spent = seconds + time.perf_counter() - began
    found = {"model": str(out), "steps": step, "of": total, "pairs": step * sum(shares.values()), "seconds": round(spent, 1), "pairs_per_second": round(step * sum(shares.values()) / max(spent, 1e-9), 1),
             "loss": history[-1]["loss"] if history else {}, "validation": history[-1].get("validation", {}) if history else {}, "done": step >= total}  # fmt: skip
    if accelerator.is_main_process and step >= total:
        temperatures = {name: round(float(loss.temperature.detach()), 4) for name, loss in accelerator.unwrap_model(objective).losses.items()}
        model.about |= {"training": {name: value for name, value in asdict(options).items() if name != "sizes"}, "export": str(Path(folder).absolute()), "digest": digest,
                        "temperatures": temperatures, "result": found, "history": history}  # fmt: skip
        model.queries.cpu().eval()
        model.items.cpu().eval()
        draw_curve(history, out / CURVE)
        model.save(out)
        (out / CHECKPOINT).unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return found


def sketch_width(items: int) -> int:
    """A power of two of some sixteen cells for each item, so that its error stays far below the share of any; at most that of the published code."""
    return min(WIDTH, 1 << max(10, (16 * items - 1).bit_length()))


def make_model(export: Export, pairs: Pairs, options: TrainOptions) -> Model:
    """The model that a training begins with: its vocabularies are made of the export's texts and the training queries."""
    sizes = options.sizes or (SMALL_SIZES if options.encoder == SMALL else Sizes())
    vocabulary = Vocabulary({}, dict(SIZES)) if options.hashed else Vocabulary.build(export.grams(pairs.queries))
    return new_model(options.fields, export.dense, vocabulary, sizes, encoder=options.encoder, revision=options.revision, texts=_all_texts(export, pairs), seed=options.seed)


def split_validation(pairs: Pairs, share: float) -> tuple[Pairs, Pairs]:
    """Training pairs without, and with, the queries that a hash picks: about `share` of them."""
    hashed = np.array([int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32 for text in pairs.queries.to_pylist()])
    held = hashed < share
    kept = pairs.only(lambda queries: ~held[queries])
    if not kept.tasks:
        raise ExportError("there are too few training pairs to hold any out for validation: --validation 0")
    return kept, pairs.only(lambda queries: held[queries])


def validate(model: Model, export: Export, pairs: Pairs, device: torch.device | str, seed: int) -> dict[str, dict[str, float]]:
    """{task: {"recall@10", "bm25 recall@10"}} of held-out queries among some thousand items: for the curve, not for a report."""
    if not pairs.tasks:
        return {}
    queries = encode_queries(model, (pairs.queries[i : i + 1024].to_pylist() for i in range(0, len(pairs.queries), 1024)), device)
    found = {}
    for name, task in pairs.tasks.items():
        if len(task) > VALIDATION_PAIRS:
            some = np.random.default_rng(seed).permutation(len(task))[:VALIDATION_PAIRS]
            task = type(task)(name, task.queries[some], task.items[some], task.weights[some], task.pool)
        index = index_of(task, VALIDATION_INDEX, seed)
        candidates = queries[torch.from_numpy(index.rows).to(queries.device)] if name == QUERY_QUERY else encode_items(model, export, index.rows, device=device)
        known = known_positives([pairs.tasks], name)
        ours = ranks(lambda some: queries[torch.from_numpy(some).to(queries.device)] @ candidates.T, task, index, known)  # noqa: B023
        theirs = ranks(bm25_scores(export, pairs, task, index), task, index, known)
        found[name] = {"recall@10": round(float(measures(ours)["recall@10"].mean()), 4), "bm25 recall@10": round(float(measures(theirs)["recall@10"].mean()), 4)}
    return found


def draw_curve(history: list[dict[str, Any]], path: Path) -> bool:
    """The learning curve as a picture: loss and recall of each task over pairs seen. False where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    pairs = [entry["pairs"] for entry in history]
    for name in history[-1]["loss"] if history else ():
        left.plot(pairs, [entry["loss"].get(name, math.nan) for entry in history], label=name, marker=".")
    tasks = sorted({name for entry in history for name in entry.get("validation", {})})
    for i, name in enumerate(tasks):
        told = [entry.get("validation", {}).get(name, {}) for entry in history]
        right.plot(pairs, [entry.get("recall@10", math.nan) for entry in told], color=f"C{i}", label=name, marker=".")
        right.plot(pairs, [entry.get("bm25 recall@10", math.nan) for entry in told], color=f"C{i}", linestyle=":", label=f"{name}, BM25")
    left.set(title="Loss", xlabel="pairs seen")
    right.set(title="Recall@10, held-out training queries", xlabel="pairs seen", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    return True


def _groups(objective: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """Parameters with their learning rates: a pretrained encoder is changed less; what is one number per feature does not decay."""
    slow = options.encoder_learning_rate or (options.learning_rate if options.encoder == SMALL else 5e-5)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        decay = options.weight_decay if parameter.ndim > 1 and "ngrams" not in name else 0.0
        groups.setdefault((slow if ".encoder." in name else options.learning_rate, decay), []).append(parameter)
    return [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()]


def _rate(step: int, total: int, warmup: float) -> float:
    """Rises over the first steps, then falls as a cosine to a hundredth."""
    first = max(1, round(total * warmup))
    if step < first:
        return (step + 1) / first
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, total - first)))


def _all_texts(export: Export, pairs: Pairs) -> Iterator[str]:
    yield from (text for text in pairs.queries.to_pylist())
    for rows in export.batches():
        for column, _ in export.texts(rows, export.fields).values():
            yield from (text for text in pc.drop_null(column).to_pylist())


def _loaded(batches: Batches, first: int, last: int, workers: int) -> Iterator[dict[str, TaskBatch]]:
    # 'fork' shares the memory-mapped rows and the vocabulary, and starts in no time.
    loader = torch.utils.data.DataLoader(batches, batch_size=None, sampler=range(first, last), num_workers=workers, prefetch_factor=4 if workers else None)
    return iter(loader)


def _on(batch: TaskBatch, device: torch.device) -> TaskBatch:
    def moved(value: Any) -> Any:
        return tuple(part.to(device) for part in value) if isinstance(value, tuple) else value.to(device)

    return TaskBatch(**{name: moved(value) for name, value in vars(batch).items()})


def _mean(values: list[float], accelerator: Any) -> float:
    return float(accelerator.reduce(torch.tensor(np.mean(values), device=accelerator.device), "mean"))


def _save_checkpoint(out: Path, state: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    unfinished = out / f".{CHECKPOINT}.unfinished"
    torch.save(state, unfinished)
    os.replace(unfinished, out / CHECKPOINT)


def _checkpoint(out: Path, digest: str) -> dict[str, Any] | None:
    if not (out / CHECKPOINT).exists():
        return None
    state: dict[str, Any] = torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)
    if state["digest"] != digest:
        raise ExportError(f"{out} holds an unfinished training on another export or with other options: repeat those, name another folder, or delete it")
    return state


def _finished(out: Path, digest: str) -> dict[str, Any] | None:
    if not out.exists():
        return None
    try:
        config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        if any(path.name not in (CHECKPOINT, f".{CHECKPOINT}.unfinished", CURVE, "encoder", "vocabulary.safetensors", "towers.safetensors") for path in out.iterdir()):
            raise ExportError(f"{out} is there already and holds something else than a training: name another folder") from None
        return None
    if config.get("digest") != digest:
        raise ExportError(f"{out} holds a model that was trained on another export or with other options: name another folder, or delete it")
    return dict(config["result"])

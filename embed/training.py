"""Trains the towers on the pairs of an export. By accelerate: one process or several, CPU or GPUs, bfloat16
on GPUs.

What a step learns depends on seed and step alone, so that a training that was stopped goes on from its
checkpoint exactly as if it had not been, and two processes with half of each batch learn what one does with
the whole.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from ..common.files import whole
from .data import (
    FIELDS,
    MIX,
    OWN_WORDS,
    OWN_WORDS_SHARE,
    QUERY_QUERY,
    Batches,
    Control,
    Export,
    ExportError,
    Pairs,
    Task,
    TaskBatch,
    batch_shares,
)
from .loss import WIDTH, Loss, LossOptions
from .ngrams import MAX_CHARACTERS, SIZES, Vocabulary
from .recall import (
    Index,
    bm25_scores,
    encode_items,
    encode_queries,
    index_of,
    known_positives,
    measures,
    ranks,
)
from .towers import DISTILBERT, FORMAT, SMALL, Model, Sizes, new_model, sizes_of

CHECKPOINT, CURVE = "checkpoint.pt", "learning_curve.png"
VALIDATION_PAIRS = 1_000  # of each task; of the training pairs, by their queries
VALIDATION_INDEX = 5_000
VOCABULARY_ITEMS = 200_000  # from whose texts the small encoder's vocabulary is made, at most

OnStep = Callable[[str, int, int], None]  # what is done, how much of it by this call, of how much


@dataclass(frozen=True)
class TrainOptions:
    """`epochs`: how often as many pairs are seen as there are.

    `compatible`: names of fixed vectors that queries are to be comparable with by a dot product.
    """

    encoder: str = DISTILBERT
    revision: str | None = None
    sizes: Sizes | None = None  # None: small ones with the small encoder, the published ones else
    fields: tuple[str, ...] = FIELDS
    # fields with another text in place of their own, as of Export
    controls: tuple[tuple[str, Control], ...] = ()
    hashed: bool = False  # n-grams get their ids by hashing, in place of a vocabulary of the frequent ones
    epochs: float = 10.0
    batch: int = 256
    learning_rate: float = 1e-3
    # None: that of the towers for the small encoder, 5e-5 for one that was trained before
    encoder_learning_rate: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.05
    mix: tuple[tuple[str, float], ...] = ()  # weights of tasks in place of those of MIX
    correction: Literal["popularity", "conditional", "none"] = "popularity"
    mask_known: bool = False
    sketch_width: int | None = None  # None: sixteen cells for each item, at most the published 2^26
    compatible: tuple[str, ...] = ()
    keep_own_query: bool = False
    validation: float = 0.02  # share of the training queries that are held out for the curve
    # steps between checkpoints, and between points of the curve; None: a twentieth of the training, at most
    # 200
    every: int | None = None
    seed: int = 0

    @property
    def weights(self) -> dict[str, float]:
        """Of the tasks in a batch; an encoder that was trained before knows words, and needs no items' own
        words.
        """
        return MIX | {OWN_WORDS: OWN_WORDS_SHARE if self.encoder == SMALL else 0.0} | dict(self.mix)


class Objective(nn.Module):
    """Towers and losses as one module: a batch in, a loss for each task out.

    It is what DistributedDataParallel wraps.
    """

    def __init__(self, model: Model, options: TrainOptions, pairs: Pairs, items: int):
        super().__init__()
        self.queries, self.items = model.queries, model.items
        dims = dict.fromkeys(model.sizes.dims, 1.0)
        keys = max(items, *(len(task.pool) for task in pairs.tasks.values()))
        loss_options = LossOptions(
            dims, options.correction, options.mask_known, options.sketch_width or sketch_width(keys)
        )
        self.losses = nn.ModuleDict()
        for name, task in pairs.tasks.items():
            if options.weights[name]:
                known = torch.from_numpy(
                    known_positives([pairs.tasks], name) if name == QUERY_QUERY else task.known
                )
                self.losses[name] = own = Loss(loss_options, known)
                for vectors in options.compatible if name != QUERY_QUERY else ():
                    # the same items, counted once
                    self.losses[f"{name} {vectors}"] = Loss(loss_options, known, own.counts)
        if options.weights[OWN_WORDS]:  # of items that are drawn evenly: nothing to correct
            self.losses[OWN_WORDS] = Loss(replace(loss_options, correction="none", mask_known=False))

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
                    if what == name:
                        loss.counts.add(part.query_keys, part.positive_keys)
                    with torch.autocast(queries.device.type, enabled=False):
                        # towers may count in 16 bits; a softmax over a large batch may not
                        if what == name:
                            found[what] = loss(
                                queries,
                                part.query_keys,
                                positives,
                                part.positive_keys,
                                negatives,
                                part.negative_keys,
                            )
                        else:
                            (own, has), (others, have) = (
                                part.positives.dense[what.split(" ", 1)[1]],
                                part.negatives.dense[what.split(" ", 1)[1]],
                            )
                            found[what] = loss(
                                queries,
                                part.query_keys,
                                own,
                                part.positive_keys,
                                others,
                                part.negative_keys,
                                has=(has, have),
                                dims=[own.shape[1]],
                            )
        return found


def train(folder: str | Path, out: str | Path, options: TrainOptions, *, workers: int = 1, device: str | None = None, on_step: OnStep = lambda what, done, total: None,
          on_point: Callable[[dict[str, Any]], None] = lambda point: None, stop_after: int | None = None) -> dict[str, Any]:  # fmt: skip
    """Trains on an export and writes the model to `out`: goes on from a checkpoint there, and does nothing
    where the training was done.

    Of the steps at which held-out queries were ranked, the one that ranked them best is kept. `on_point` gets
    each point of the curve: {"step", "pairs", "loss": {task: mean since the last}, "validation": {task:
    {"recall@10", "bm25 recall@10"}}}. Returns {"model", "steps", "of", "kept_step", "pairs",
    "pairs_per_second", "seconds", "loss", "validation", "done"}; `stop_after` ends after so many steps of
    this call, with a checkpoint. Raises ExportError.
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


def digest_of(folder: str | Path, options: TrainOptions) -> str:
    """What a training depends on: the export and the options."""
    try:
        manifest = (Path(folder) / "manifest.json").read_bytes()
    except OSError:
        manifest = b""
    return hashlib.sha256(manifest + json.dumps(asdict(options), sort_keys=True).encode()).hexdigest()


def _is_kept(name: str) -> bool:
    """Of the objective's state what the model is made of, without the sketches of the losses, which are
    large.
    """
    return name.startswith(("queries.", "items.")) or name.endswith("log_temperature")


def _mean_recall(point: dict[str, Any]) -> float:
    values = [told["recall@10"] for told in point["validation"].values()]
    return float(np.mean(values)) if values else 0.0


def sketch_width(items: int) -> int:
    """A power of two of some sixteen cells for each item, so that its error stays far below the share of any;
    at most that of the published code.
    """
    return min(WIDTH, 1 << max(10, (16 * items - 1).bit_length()))


def make_model(export: Export, pairs: Pairs, options: TrainOptions) -> Model:
    """The model that a training begins with: its vocabularies are made of the export's texts and the training
    queries.
    """
    sizes = options.sizes or sizes_of(options.encoder)
    vocabulary = (
        Vocabulary({}, dict(SIZES)) if options.hashed else Vocabulary.build(export.grams(pairs.asked))
    )
    return new_model(
        options.fields,
        export.dense,
        vocabulary,
        sizes,
        encoder=options.encoder,
        revision=options.revision,
        texts=_all_texts(export, pairs),
        seed=options.seed,
    )


def split_validation(pairs: Pairs, share: float) -> tuple[Pairs, Pairs, pa.Array]:
    """Training pairs without, and with, the queries that a hash picks, and these: about `share` of all, none
    where nothing would be left to learn from.

    On an item (`Export.hidden`) they would be found by words alone, and their rank would say nothing.
    """
    hashed = np.array(
        [
            int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32
            for text in pairs.queries.to_pylist()
        ]
    )
    held = hashed < share
    kept = pairs.only(~held, both=True)
    if not kept.tasks:
        kept, held = pairs, np.zeros_like(held)
    return kept, pairs.only(held), pairs.queries.filter(pa.array(held))


def _check_compatible(export: Export, options: TrainOptions) -> None:
    dims = (options.sizes or sizes_of(options.encoder)).dims
    for name in options.compatible:
        if name not in export.dense:
            raise ExportError(
                f"--compatible {name}: the export has no vectors of that name ({', '.join(export.dense) or 'it has none at all'})"
            )
        if export.dense[name] not in dims:
            raise ExportError(
                f"--compatible {name}: vectors of {export.dense[name]} numbers fit none of the dimensions {', '.join(map(str, dims))}: give --dims one of that size"
            )


def check_writable(folder: Path) -> None:
    """Raises ExportError unless files can be written to a folder: before anything that takes long.

    A folder that was not there is not there after it either.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if new:
            folder.rmdir()
    except OSError as error:
        raise ExportError(f"{folder} cannot be written ({error.strerror}): name another folder") from error


class Validation:
    """Held-out queries among some thousand items, ranked again and again: for the curve and the choice of a
    step, not for a report.
    """

    def __init__(self, export: Export, pairs: Pairs, seed: int):
        self.export, self.pairs = export, pairs
        # of each task its pairs, what they are ranked among, what is known, BM25's recall
        self.ranked: dict[str, tuple[Task, Index, np.ndarray, float]] = {}
        for name, task in pairs.tasks.items():
            if len(task) > VALIDATION_PAIRS:
                some = np.random.default_rng(seed).permutation(len(task))[:VALIDATION_PAIRS]
                task = Task(name, task.queries[some], task.items[some], task.weights[some], task.pool)
            index, known = index_of(task, VALIDATION_INDEX, seed), known_positives([pairs.tasks], name)
            self.ranked[name] = (
                task,
                index,
                known,
                _recall_at_10(ranks(bm25_scores(export, pairs, task, index), task, index, known)),
            )

    def __call__(self, model: Model, device: torch.device | str) -> dict[str, dict[str, float]]:
        """{task: {"recall@10", "bm25 recall@10"}}."""
        if not self.ranked:
            return {}
        found = {}
        for name, (task, index, known, bm25) in self.ranked.items():
            asked = np.unique(task.queries)
            queries = self._encoded(model, asked, device)
            candidates = (
                self._encoded(model, index.rows, device)
                if name == QUERY_QUERY
                else encode_items(model, self.export, index.rows, device=device)
            )

            def scores(
                some: np.ndarray, queries: Any = queries, asked: Any = asked, candidates: Any = candidates
            ) -> Any:
                return (
                    queries[torch.from_numpy(np.searchsorted(asked, some)).to(queries.device)] @ candidates.T
                )

            ours = ranks(scores, task, index, known)
            found[name] = {"recall@10": _recall_at_10(ours), "bm25 recall@10": bm25}
        return found

    def _encoded(self, model: Model, places: np.ndarray, device: torch.device | str) -> torch.Tensor:
        texts = self.pairs.queries.take(pa.array(places))
        return encode_queries(
            model, (texts[i : i + 1024].to_pylist() for i in range(0, len(texts), 1024)), device
        )


def _recall_at_10(rank: np.ndarray) -> float:
    return round(float(measures(rank)["recall@10"].mean()), 4)


def draw_curve(history: list[dict[str, Any]], kept: int, path: Path) -> bool:
    """The learning curve as a picture: loss and recall of each task over pairs seen, and which step is kept.

    False where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    pairs = [point["pairs"] for point in history]
    for name in history[-1]["loss"]:
        left.plot(pairs, [point["loss"].get(name, math.nan) for point in history], label=name, marker=".")
    for i, name in enumerate(sorted({name for point in history for name in point["validation"]})):
        told = [point["validation"].get(name, {}) for point in history]
        right.plot(
            pairs, [one.get("recall@10", math.nan) for one in told], color=f"C{i}", label=name, marker="."
        )
        right.plot(
            pairs,
            [one.get("bm25 recall@10", math.nan) for one in told],
            color=f"C{i}",
            linestyle=":",
            label=f"{name}, BM25",
        )
    left.set(title="Loss", xlabel="pairs seen")
    right.set(title="Recall@10, held-out training queries", xlabel="pairs seen", ylim=(0, 1))
    for axes in (left, right):
        axes.axvline(
            next(point["pairs"] for point in history if point["step"] == kept),
            color="black",
            linewidth=0.8,
            label="the step that is kept",
        )
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    figure.savefig(path, dpi=110)
    return True


def _groups(objective: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """Parameters with their learning rates: a pretrained encoder is changed less; what is one number per
    feature does not decay.
    """
    slow = options.encoder_learning_rate or (options.learning_rate if options.encoder == SMALL else 5e-5)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        decay = options.weight_decay if parameter.ndim > 1 and "ngrams" not in name else 0.0
        groups.setdefault((slow if ".encoder." in name else options.learning_rate, decay), []).append(
            parameter
        )
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _rate(step: int, total: int, warmup: float) -> float:
    """Rises over the first steps, then falls as a cosine to a hundredth."""
    first = max(1, round(total * warmup))
    if step < first:
        return (step + 1) / first
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, total - first)))


def _all_texts(export: Export, pairs: Pairs) -> Iterator[str]:
    yield from pairs.asked.to_pylist()
    some = np.arange(len(export))
    if len(some) > VOCABULARY_ITEMS:
        some = np.sort(np.random.default_rng(0).choice(len(export), VOCABULARY_ITEMS, replace=False))
    for rows in export.batches(some):
        for column, _ in export.texts(rows, export.fields).values():
            yield from pc.utf8_slice_codeunits(pc.drop_null(column), 0, MAX_CHARACTERS).to_pylist()


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


def _save_checkpoint(out: Path, state: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with whole(out / CHECKPOINT) as unfinished:
        torch.save(state, unfinished)


def _checkpoint(out: Path, digest: str) -> dict[str, Any] | None:
    if not (out / CHECKPOINT).exists():
        return None
    state: dict[str, Any] = torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)
    if state["digest"] != digest:
        raise ExportError(
            f"{out} holds an unfinished training on another export or with other options: repeat those, name another folder, or delete it"
        )
    return state


def _finished(out: Path, digest: str) -> dict[str, Any] | None:
    if not out.exists():
        return None
    try:
        config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        if any(
            path.name not in (CHECKPOINT, CURVE, "encoder", "vocabulary.safetensors", "towers.safetensors")
            and path.suffix != ".unfinished"
            for path in out.iterdir()
        ):
            raise ExportError(
                f"{out} is there already and holds something else than a training: name another folder"
            ) from None
        return None
    if not isinstance(config, dict) or "digest" not in config:
        raise ExportError(
            f"{out} is there already and holds something else than a training: name another folder"
        )
    if config["digest"] != digest or config.get("format") != FORMAT:
        raise ExportError(
            f"{out} holds a model that was trained on another export, with other options or by another version: name another folder, or delete it"
        )
    return dict(config["result"])

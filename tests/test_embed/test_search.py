"""`captioner embed search` and `related`: what is found, why, and what is said if nothing is."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

from pincaption.cli import cli
from pincaption.embed import item_ranking
from pincaption.embed.errors import EmbedError
from pincaption.embed.index_writer import build_index
from pincaption.embed.item_vectors import export_for
from pincaption.embed.item_writer import write_item_vectors
from pincaption.embed.model import EmbeddingModel
from pincaption.embed.options import TrainOptions
from pincaption.embed.related import related_items, related_queries
from pincaption.embed.scores import fused
from pincaption.embed.search import NATIVE, Search
from pincaption.embed.training import train

WITHOUT_QUERIES = ("title", "description", "caption")


def captioner(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["embed", *(str(argument) for argument in arguments)])


def sentences(done: Any) -> str:
    return " ".join(done.stderr.replace("│", " ").split())


@pytest.fixture(scope="module")
def model(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "m"
    train(export, folder, TrainOptions(epochs=3, batch=64), workers=0)
    return folder


@pytest.fixture(scope="module")
def loaded(model: Path) -> EmbeddingModel:
    return EmbeddingModel.load(model)


@pytest.fixture(scope="module")
def data(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export, with categories: the first three items are of "mugs", the others of "else" or of none."""
    # `datasets` knows an export by the folder's name and the version in its card
    copy = tmp_path_factory.mktemp("data") / f"out-{uuid.uuid4().hex}"
    shutil.copytree(export, copy)
    (path,) = (copy / "features").glob("*.parquet")
    table = pq.read_table(path)
    categories = ["mugs"] * 3 + ["else", None] * ((len(table) - 3) // 2) + ["else"] * ((len(table) - 3) % 2)
    place = table.column_names.index("category")
    pq.write_table(table.set_column(place, "category", pa.array(categories, pa.string())), path)
    return copy


@pytest.fixture(scope="module")
def items(loaded: EmbeddingModel, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "items.parquet"
    write_item_vectors(loaded, export_for(loaded, data), path)
    return path


@pytest.fixture(scope="module")
def search(loaded: EmbeddingModel, data: Path, items: Path) -> Search:
    return Search.open(loaded, data, items)


def test_the_score_is_that_of_a_recall_by_both(loaded: EmbeddingModel, search: Search) -> None:
    answer = search.find("red mug", k=200, related=0)
    meaning = (loaded.embed_queries(["red mug"]) @ search.index.vectors.T).float()
    words = search.words.scores(pa.array(["red mug"]))
    for kind, hits in answer.hits.items():
        rows = torch.from_numpy(np.flatnonzero(search.export.products == (kind == "product")))
        wanted = fused(lambda _, r=rows: meaning[:, r], lambda _, r=rows: words[:, r], search.fusion.weight)
        scores = wanted(np.zeros(1, np.int64))[0]
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-4)
        ids = search.export.pin_ids.take(pa.array(rows.numpy())).to_pylist()
        score_of = dict(zip(ids, scores.tolist(), strict=True))
        assert [score_of[hit.pin_id] for hit in hits] == pytest.approx([hit.score for hit in hits], abs=1e-4)
    best = answer.hits["pin"][0]
    assert best.text is not None
    assert "red mug" in best.text
    assert best.share_of_words + best.share_of_meaning == pytest.approx(1)


def test_a_hit_says_which_words_matched_and_where(search: Search) -> None:
    hits = search.find("red mugs", k=5).hits["pin"]
    for hit in hits:
        texts = search.reasons.texts(np.array([search.export.pin_ids.index(hit.pin_id).as_py()]))[0]
        for word, stem in (("red", "red"), ("mugs", "mug")):
            fields = [name for name in search.fields if any(stem in text for text in texts.get(name, []))]
            assert hit.matches.get(word, []) == fields
    assert any("caption" in fields for hit in hits for fields in hit.matches.values())
    assert not search.find("qwertyuiop", k=1).hits["pin"][0].matches


def test_a_pin_that_only_its_caption_makes_findable_is_marked(
    loaded: EmbeddingModel, model: Path, data: Path
) -> None:
    narrow = Search.open(loaded, data, fields=WITHOUT_QUERIES)
    assert narrow.seconds_embedding is not None
    by_words = narrow.find("red mug", by="words", k=120).hits
    found = [hit for hits in by_words.values() for hit in hits]
    alone = {hit.pin_id for hit in found if hit.by_caption_alone}
    assert alone
    for hit in found:
        assert hit.by_caption_alone == (hit.text_from == "caption")
    # over native text alone these pins are not found, and have nothing that could be shown
    native = Search.open(loaded, data, fields=NATIVE)
    without = [hit for hits in native.find("red mug", by="words", k=120).hits.values() for hit in hits]
    assert not alone & {hit.pin_id for hit in without}
    everything = {hit.pin_id: hit for hits in native.find("red mug", k=120).hits.values() for hit in hits}
    assert {everything[pin_id].text for pin_id in alone} == {None}
    names = ",".join(WITHOUT_QUERIES)
    shown = captioner("search", model, data, "red mug", "--fields", names, "--related", 0, "--k", 120)
    assert shown.exit_code == 0, shown.output
    assert "found by its caption alone" in shown.stdout
    assert "[caption] a drawing of a red mug" in shown.stdout


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf"])
@pytest.mark.parametrize("by", ["both", "meaning", "words"])
def test_every_kind_of_index_gives_the_same_answer(
    loaded: EmbeddingModel,
    data: Path,
    items: Path,
    search: Search,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    by: Any,
) -> None:
    monkeypatch.setattr(item_ranking, "DEPTH", 30)
    build_index(loaded, items, tmp_path / "index", kind=kind)
    opened = Search.open(loaded, data, index=tmp_path / "index")
    for query, category in (("green boat", None), ("blue lamp drawing", "else")):
        answers = [one.find(query, by=by, category=category, k=5) for one in (search, opened)]
        for name in ("pin", "product"):
            first, second = ([hit.score for hit in answer.hits[name]] for answer in answers)
            assert second == pytest.approx(first, abs=5e-3)
            assert len(second) == 5


def test_kinds_and_categories_are_filters(search: Search) -> None:
    answer = search.find("red mug", kind="product", category="else", k=100)
    assert list(answer.hits) == ["product"]
    assert {(hit.kind, hit.category) for hit in answer.hits["product"]} == {("product", "else")}
    wanted = np.flatnonzero(search.export.products & (search.category_mask("else")))
    assert len(answer.hits["product"]) == len(wanted)
    few = search.find("red mug", category="mugs")
    assert sum(len(hits) for hits in few.hits.values()) == 3
    assert any("of the category mugs" in note for note in few.notes)


@pytest.mark.parametrize(
    ("query", "options", "sentence"),
    [
        (" !? ", {}, "the query has no word and no number: give it one"),
        ("mug", {"category": "cars"}, "no item is of the category cars: the most frequent are else, mugs"),
    ],
)
def test_a_search_that_cannot_be_is_refused_with_a_sentence(
    search: Search, query: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(EmbedError, match=sentence):
        search.find(query, **options)


def test_what_is_not_found_is_said(search: Search) -> None:
    none = search.find("qwertyuiop zxcvb", by="words")
    assert none.hits == {"pin": [], "product": []}
    assert "no item has a word of the query: --by meaning finds what is near to it" in none.notes
    parts = search.find("mugsy", by="words")
    assert parts.notes == ["no item has a word of the query: all of this is found by parts of words"]
    meant = search.find("qwertyuiop zxcvb")
    assert meant.notes[0].startswith("no item shown has a word of the query: all of this is found by meaning")
    assert len(meant.hits["pin"]) == 10
    many = search.find("mug", k=1_000)
    assert [len(many.hits[kind]) for kind in ("pin", "product")] == [80, 40]
    assert many.notes == ["there are 80 pins", "there are 40 products"]


def test_an_item_without_a_vector_is_found_by_words_alone(
    loaded: EmbeddingModel, data: Path, items: Path, tmp_path: Path
) -> None:
    old = pq.read_table(items)
    pq.write_table(old.slice(20), tmp_path / "old.parquet")
    opened = Search.open(loaded, data, tmp_path / "old.parquet")
    missing = set(old["pin_id"].to_pylist()[:20])
    near = {hit.pin_id for hits in opened.find("red mug", by="meaning", k=120).hits.values() for hit in hits}
    assert not near & missing
    hits = {hit.pin_id: hit for found in opened.find("red mug", k=120).hits.values() for hit in found}
    assert {hits[pin_id].meaning for pin_id in missing} == {None}
    assert "20 items of the export have no vector yet" in opened.find("red mug").notes[0]


def test_vectors_of_another_model_or_of_other_fields_are_refused(
    loaded: EmbeddingModel, export: Path, data: Path, items: Path, tmp_path: Path
) -> None:
    with pytest.raises(EmbedError, match=r"this search reads title, description: make it with .* --fields"):
        Search.open(loaded, data, items, fields=NATIVE)
    with pytest.raises(EmbedError, match="give --items or --index, not both"):
        Search.open(loaded, data, items, tmp_path)
    train(export, tmp_path / "other", TrainOptions(epochs=0.2, batch=32, seed=1), workers=0)
    with pytest.raises(EmbedError, match="was made by another model"):
        Search.open(tmp_path / "other", data, items)


def test_the_command_shows_an_answer_in_80_columns_and_all_of_it_as_json(
    model: Path, data: Path, items: Path
) -> None:
    shown = captioner("search", model, data, "Red Mug drawing!", "--items", items)
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for part in ("pins", "products", "related queries", "words ", "meaning ", "red, mug"):
        assert part in shown.stdout
    assert "embedding 120 items took" not in shown.stderr
    answer = json.loads(captioner("search", model, data, "red mug", "--items", items, "--json").stdout)
    assert set(answer["hits"]) == {"pin", "product"}
    hit = answer["hits"]["pin"][0]
    assert hit["rank"] == 1
    assert hit["matches"]
    assert {"pin_id", "kind", "category", "text", "text_from", "score", "meaning", "words"} <= set(hit)
    assert len(answer["queries"]) == 5
    embedded = captioner("search", model, data, "red mug", "--by", "words", "--related", 0)
    assert "keeps the vectors for --items" in sentences(embedded)
    refused = captioner("search", model, data, "?!", "--items", items)
    assert (refused.exit_code, "the query has no word and no number" in sentences(refused)) == (1, True)


def test_queries_and_items_are_related_in_all_four_ways(search: Search) -> None:
    queries = related_queries(search, query="red mug", k=3)
    assert "red mug" not in [one.query for one in queries]
    assert [one.score for one in queries] == sorted((one.score for one in queries), reverse=True)
    vectors = search.model.embed_queries([one.query for one in queries])
    wanted = (vectors @ search.model.embed_queries(["red mug"])[0]).tolist()
    assert [one.score for one in queries] == pytest.approx(wanted, abs=1e-4)
    assert queries[0].frequency >= 1
    items = related_items(search, query="red mug", k=3)
    best = search.find("red mug", by="meaning", k=3).hits
    top = sorted((hit.meaning for hits in best.values() for hit in hits), reverse=True)[:3]
    assert [one.score for one in items] == pytest.approx(top, abs=1e-4)
    others = related_items(search, item="p3", k=120)
    assert len(others) == 119
    assert "p3" not in [one.pin_id for one in others]
    of_item = related_queries(search, item="p3", k=1)[0]
    everything = search.model.embed_queries(search.frequent.texts) @ search.vector_of("p3")
    assert of_item.score == pytest.approx(float(everything.max()), abs=1e-4)


def test_an_item_asks_without_the_number_that_makes_up_for_its_length(search: Search) -> None:
    place = search.place_of("p3")
    own = search.index.vectors[place].float()
    assert own[-1] > 0.1  # it would favour short items among those that are found
    asked = search.vector_of("p3")
    assert float(asked[-1]) == 0
    assert float(asked.norm()) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(asked[:-1], own[:-1] / own[:-1].norm(), atol=1e-4, rtol=0)


def test_the_command_related(model: Path, data: Path, items: Path) -> None:
    done = captioner("related", model, data, "--item", "p3", "--items", items)
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 10
    assert max(map(len, done.stdout.splitlines())) <= 80
    found = json.loads(captioner("related", model, data, "--query", "mug", "--items", items, "--json").stdout)
    assert (found["to"], len(found["queries"])) == ("queries", 10)
    for arguments, code, sentence in (
        (("--item", "nobody"), 1, "has the pin_id nobody"),
        (("--query", "?"), 1, "the query has no word and no number"),
        ((), 2, "give one of --query and --item"),
    ):
        failed = captioner("related", model, data, "--items", items, *arguments)
        assert failed.exit_code == code
        assert sentence in sentences(failed)


def test_the_most_frequent_queries_come_first(search: Search) -> None:
    texts, frequencies = search.frequent.texts, search.frequent.frequencies
    assert len(texts) == len(set(texts)) == len(frequencies)
    assert (np.diff(frequencies) <= 0).all()
    engaged = search.export.rows.data.column("engaged_queries").to_pylist()
    pairs = [pair for name in ("pairs", "query_pairs") for pair in _queries(search, name)]
    counted = sum(texts[0] in queries for queries in engaged) + pairs.count(texts[0])
    assert frequencies[0] == counted


def _queries(search: Search, name: str) -> list[str]:
    table = search.export.pair_table(name, "train")
    columns = [column for column in ("query", "other_query") if column in table.column_names]
    return [text for column in columns for text in table[column].to_pylist()]

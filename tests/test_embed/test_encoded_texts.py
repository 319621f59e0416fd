"""The vectors of texts on disk: what is kept, what is encoded again, and a training that reads them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

import pincaption.embed.encoded_texts as module
from pincaption.embed.encoded_texts import EncodedTexts
from pincaption.embed.errors import EmbedError
from pincaption.embed.inputs import encoder_texts, texts_to_encode
from pincaption.embed.options import TrainOptions
from pincaption.embed.pairs import Pairs
from pincaption.embed.reader import Export
from pincaption.embed.sizes import Sizes
from pincaption.embed.text_encoder import TextEncoder
from pincaption.embed.training import train

TEXTS = ["red mug", "blue boat", "a drawing of a tree", "tea", "large purple fish"]


@pytest.fixture(scope="module")
def encoder(encoders: Path) -> TextEncoder:
    return TextEncoder.load(str(encoders / "mean"))


def files_of(encoded: EncodedTexts, kind: str) -> list[Path]:
    return sorted(encoded.folder.glob(f"*.{kind}.npy"))


def test_a_text_is_encoded_once_and_has_the_encoders_vector(encoder: TextEncoder, tmp_path: Path) -> None:
    encoded = EncodedTexts(encoder, tmp_path)
    assert encoded.add([TEXTS[:2], TEXTS[1:4], []]) == 4
    assert encoded.add([TEXTS[:4]]) == 0
    asked = [TEXTS[3], TEXTS[4], TEXTS[0], TEXTS[3]]  # one was never added, one comes twice
    assert encoded.has(asked).tolist() == [True, False, True, True]
    with torch.no_grad():
        expected = torch.cat([encoder(*encoder.tokenise([text])) for text in asked])
    for reader in (encoded, EncodedTexts(encoder, tmp_path)):
        torch.testing.assert_close(reader.vectors(asked), expected, atol=1e-3, rtol=0)
    assert len(encoded) == 4
    assert encoded.vectors([]).shape == (0, 32)


def test_another_encoder_has_files_of_its_own(encoder: TextEncoder, encoders: Path, tmp_path: Path) -> None:
    first, other = (
        EncodedTexts(some, tmp_path) for some in (encoder, TextEncoder.load(str(encoders / "bert")))
    )
    first.add([TEXTS])
    assert not other.has(TEXTS).any()
    assert other.add([TEXTS]) == len(TEXTS)
    # What an encoder did before does not make it another one.
    fresh = TextEncoder.load(str(encoders / "mean"))
    before = fresh.digest()
    fresh.tokenise(TEXTS)
    assert fresh.digest() == before == encoder.digest()
    # The pooling alone makes another encoder, too.
    pooled = TextEncoder(encoder.network, encoder.tokeniser, "first")
    assert pooled.digest() != encoder.digest()


@pytest.mark.parametrize(
    "damage", ["no digests", "cut vectors", "cut digests", "half written", "a table", "text", "a claim"]
)
def test_only_what_a_killed_process_or_a_full_disk_spoiled_is_encoded_again(
    encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(module, "PART_TEXTS", 2)
    encoded = EncodedTexts(encoder, tmp_path)
    assert encoded.add([TEXTS]) == 5
    expected, part = encoded.vectors(TEXTS), files_of(encoded, "keys")[0]
    assert len(files_of(encoded, "keys")) == 3
    lost = len(np.load(part))
    vectors = part.with_name(part.name.replace("keys", "vectors"))
    if damage == "no digests":
        part.unlink()
    elif damage == "half written":
        part.rename(part.with_name(f".{part.name}.unfinished"))
    elif damage in ("a table", "text"):
        np.save(part, np.load(part)[:, None].astype(np.uint64 if damage == "a table" else "U8"))
    elif damage == "a claim":  # a header of more digests than fit into memory
        header = {"descr": "<u8", "fortran_order": False, "shape": (10**15,)}
        with part.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
    else:
        cut = vectors if damage == "cut vectors" else part
        cut.write_bytes(cut.read_bytes()[:-1])
    again = EncodedTexts(encoder, tmp_path)
    assert len(again) == 5 - lost
    assert again.add([TEXTS]) == lost
    assert torch.equal(again.vectors(TEXTS), expected)
    assert not list(again.folder.glob(".*.unfinished"))


def test_trainings_that_begin_together_write_the_same_files(encoder: TextEncoder, tmp_path: Path) -> None:
    def add(folder: Path) -> int:
        return EncodedTexts(encoder, folder).add([TEXTS])

    with ThreadPoolExecutor(8) as threads:
        for number in range(12):
            folder = tmp_path / str(number)
            assert set(threads.map(add, [folder] * 8)) <= {0, len(TEXTS)}
            assert len(files_of(EncodedTexts(encoder, folder), "vectors")) == 1


def test_every_text_that_a_training_reads_is_encoded_before_it(
    export: Path, encoder: TextEncoder, tmp_path: Path
) -> None:
    data = Export(export)
    pairs = Pairs.load(data, "train")
    data.hidden_queries = pairs.queries.slice(0, 3)
    encoded = EncodedTexts(encoder, tmp_path)
    encoded.add(texts_to_encode(data, pairs.used_queries))
    rows = np.arange(len(data))
    for query in pairs.queries.to_pylist():  # any query may be the one that is left out
        texts, _ = encoder_texts(data.texts(rows, data.fields, pa.array([query] * len(rows))), len(rows))
        assert encoded.has(texts).all()


def test_a_training_of_a_frozen_encoder_reads_its_vectors_and_encodes_nothing_again(
    export: Path, encoders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TrainOptions(
        encoder=str(encoders / "mean"),
        encoder_learning_rate=0,
        sizes=Sizes(rows=500, width=16, hidden=8, prefixes=(8,)),
        epochs=0.5,
        batch=32,
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    learned, said = [], list[set[str]]()
    for number in range(2):
        said.append(set())
        folder = tmp_path / f"model{number}"
        train(export, folder, options, workers=number, on_step=lambda what, *_: said[-1].add(what))
        learned.append(load_file(folder / "towers.safetensors"))
        assert load_file(folder / "encoder" / "model.safetensors").keys()
    assert "encoding texts" in said[0]
    assert "encoding texts" not in said[1]
    assert all(torch.equal(value, learned[1][name]) for name, value in learned[0].items())
    # A trained encoder needs no such files.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "unused"))
    train(export, tmp_path / "model2", replace(options, encoder_learning_rate=1e-5, epochs=0.1), workers=0)
    assert not (tmp_path / "unused").exists()


def test_a_cache_that_cannot_be_written_is_one_sentence(encoder: TextEncoder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(EmbedError, match=r"cannot be kept in .*Not a directory.* by XDG_CACHE_HOME"):
        EncodedTexts(encoder, tmp_path / "file").add([TEXTS])

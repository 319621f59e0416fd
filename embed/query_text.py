"""Turns raw queries into the inputs of an exported encoder. `embed export-encoder` writes it beside one.

In that file `normalise` and folding.py stand above this code, so that it needs nothing of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load_file

from ..filters.text import normalise
from .folding import HAN, PAIRED, folded, within

MOST_CHARACTERS, MOST_TOKENS = 2_000, 64  # of a query that are read
BEGINNING = 4  # characters of a word that count as its beginning
BITS = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


class QueryText:
    """Reads queries as the model does: n-grams by its vocabulary, word pieces by its tokeniser."""

    def __init__(self, vocabulary: str, tokeniser: str | None = None, most_tokens: int = MOST_TOKENS):
        """The paths of the files that were written beside the encoder."""
        self.kinds: list[tuple[str, int, dict[int, int] | None]] = []
        stored = load_file(vocabulary)
        for kind in ("trigram", "unigram", "beginning"):
            if f"hashed {kind}" in stored:
                self.kinds.append((kind, int(stored[f"hashed {kind}"][0]), None))
            else:
                codes = stored.get(kind, torch.zeros(0, dtype=torch.int64)).view(torch.int64).tolist()
                self.kinds.append((kind, len(codes), {code & BITS: i for i, code in enumerate(codes)}))
        self.tokeniser: Any = None
        if tokeniser:
            from tokenizers import Tokenizer

            self.tokeniser = Tokenizer.from_file(tokeniser)
            self.tokeniser.enable_truncation(most_tokens)
            self.tokeniser.enable_padding(pad_id=self._padding(), pad_token="[PAD]")

    def __call__(self, texts: Sequence[str]) -> tuple[torch.Tensor, ...]:
        """The arguments of the encoder: ids of n-grams [queries, most of them], -1 where there are fewer.

        An encoder with a tokeniser also gets its ids and mask [queries, tokens].
        """
        normalised = [normalise(text) for text in texts]
        ids = [self._ids(text[:MOST_CHARACTERS].replace("'", "").split()) for text in normalised]
        most = max(2, *map(len, ids), 2)
        grams = torch.tensor([row + [-1] * (most - len(row)) for row in ids])
        if self.tokeniser is None:
            return (grams,)
        read = self.tokeniser.encode_batch(normalised)
        return (
            grams,
            torch.tensor([one.ids for one in read]),
            torch.tensor([one.attention_mask for one in read]),
        )

    def _padding(self) -> int:
        for name in ("[PAD]", "<pad>"):
            if (number := self.tokeniser.token_to_id(name)) is not None:
                return int(number)
        return 0

    def _ids(self, words: list[str]) -> list[int]:
        """The ids of all known n-grams of the words, each once."""
        codes = {
            "trigram": trigrams(words),
            "unigram": map(word_code, words),
            "beginning": [word_code(word[:BEGINNING]) for word in words],
        }
        found, base = list[int](), 0
        for kind, size, known in self.kinds:
            for code in codes[kind]:
                number = mixed(code) % size if known is None else known.get(code)
                if number is not None:
                    found.append(base + number)
            base += size
        return sorted(set(found))


def trigrams(words: list[str]) -> list[int]:
    """The codes of the three characters around each character; a word is between the characters 1 and 2.

    Accents are left out. Of Han, kana and Hangul also the codes of two neighbours, and of Han of each one.
    """
    codes = []
    for word in words:
        letters = [ord(letter) for letter in "".join(map(folded, word))]
        around = zip([1, *letters[:-1]], letters, [*letters[1:], 2], strict=True) if letters else ()
        codes += [before << 42 | letter << 21 | after for before, letter, after in around]
        paired = [within(letter, PAIRED) for letter in letters]
        codes += [
            letters[i] << 21 | letters[i + 1] for i in range(len(letters) - 1) if paired[i] and paired[i + 1]
        ]
        codes += [letter for letter in letters if within(letter, HAN)]
    return codes


def word_code(word: str) -> int:
    """The code of a word: a hash."""
    total, power = 0, 1
    for character in word:
        power = power * GOLDEN & BITS
        total += mixed(ord(character)) * (power | 1)
    return mixed(total & BITS)


def mixed(number: int) -> int:
    """A hash of a number of 64 bits (the finalizer of SplitMix64)."""
    number = number + GOLDEN & BITS
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & BITS
    number = (number ^ number >> 27) * 0x94D049BB133111EB & BITS
    return number ^ number >> 31

"""How large a model is."""

from __future__ import annotations

from dataclasses import dataclass

WIDTH = 512  # numbers of the n-grams
PREFIXES = (64, 128, 256)  # lengths of embeddings beside the full one


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model, without those of its encoder."""

    rows: int = 100_000  # of the table of n-grams, at most; the number of the published OmniSearchSage code
    width: int = WIDTH
    hidden: int = 256  # numbers of the hidden layer of each tower's correction
    prefixes: tuple[int, ...] = PREFIXES  # each prefix of an embedding of such a length is an embedding

    def dims(self, encoder_width: int = 0) -> tuple[int, ...]:
        """The lengths of embeddings, ascending: prefixes, the encoder's part alone, and the full length."""
        full = encoder_width + self.width
        lengths = {*self.prefixes, *([encoder_width] if encoder_width else []), full}
        return tuple(sorted(length for length in lengths if length <= full))

"""Cleans a caption and finds out what is wrong with it: pure functions over one text.

If a good caption is rejected, it is lost. If a bad one is accepted, it is one weak feature among many. So
every rule lets a caption pass in case of doubt. The constants are our own judgement. They were tried on the
tables of tests/test_captioner/test_checks.py and on 5,783 lower-cased titles, board names and sentences of
real pins. Of these, one was wrongly called a repetition ("meow meow meow meow").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

# 30 new tokens are 100 to 200 characters. Text after this many characters is not read, so that no text takes
# long.
MAX_CHARS = 1000

# Invisible characters that are dropped: soft hyphen, direction marks, zero-width space, word joiner, byte
# order mark and similar ones. The joiners U+200C and U+200D and the tag characters of flags are kept, because
# they carry meaning in Persian, in Indic scripts and in emoji.
_INVISIBLE = re.compile("[\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]+")
_BLANK = re.compile("[\\s\x00-\x1f\x7f-\x9f\u2800\u3164\uffa0]+")
_LOOSE_JOINER = re.compile("(?:^|(?<= ))[\u200c\u200d]+|[\u200c\u200d]+(?= |$)")
_SURROGATE = re.compile("[\ud800-\udfff]")  # cannot be stored as UTF-8
_LEADING = re.compile(r"^(?:[,;:]+|[-–—•*]+(?= ))\s*")
_TRAILING_DOTS = re.compile(r"\s*(?:\.{2,}|…+)$")
_REPEATED_END = re.compile(r"([.!?。！？])[.!?…。！？]+$")

# Each opening quotation mark with the one that closes it.
_QUOTES = dict(zip("\"'`“”‘„«»「『", "\"'`””’“»«」』", strict=True))
_BRACKETS = {"(": ")", "[": "]", "{": "}", "（": "）"}

# No English sentence ends with these. "with", "of" and "on" may end one ("a friend to play with").
_CONNECTORS = frozenset({"and", "or", "nor", "und", "oder"})
# Words that mean nothing at the end of a text that was cut. Foreign words that are also English nouns or
# names ("van", "sur", "die") are not among them.
_FUNCTION_WORDS = """
    a an the this these that which who whose while where when but as than of in on at to with without for from
    by into onto over under above below behind beside between near against among through across around inside
    his her their its my your our is are was were has have being
    der das dem ein eine einen einem einer mit auf im zu le les une un des et dans avec el los las del de con
    para en uma um com di il della een het met op
"""
_DANGLING = _CONNECTORS.union(_FUNCTION_WORDS.split())


def check(text: str, prompt: str = "", finished: bool = True) -> tuple[str, str | None]:
    """Cleans a caption and judges it: returns the cleaned caption, and the reason to reject it or None."""
    caption = clean(text, prompt, finished)
    return caption, reject_reason(caption, prompt)


def clean(text: str, prompt: str = "", finished: bool = True) -> str:
    """The caption as it is stored: one line, without the repeated prompt, stray characters and loose ends.

    `finished=False` says that the model ran out of tokens before its end token. Then function words at the
    end, an unclosed bracket or quotation mark and an incomplete character are removed too. Other words at the
    end are kept, because nobody can know whether they were cut. To clean a caption twice is the same as to
    clean it once. No string raises an error.
    """
    repeated_prompt = _prompt_pattern(prompt)
    text = repeated_prompt.sub("", text[:MAX_CHARS].strip())
    text = next(filter(None, map(_tidied, text.splitlines())), "")
    while True:
        shorter = _trimmed_end(_unwrapped(_LEADING.sub("", repeated_prompt.sub("", text))), finished)
        if (shorter := _tidied(shorter)) == text:
            return text
        text = shorter


@lru_cache(maxsize=1024)
def _prompt_pattern(prompt: str) -> re.Pattern[str]:
    """Matches the words of `prompt` at the start of a text, in any case, spacing and final punctuation."""
    words = re.sub(r"[\W_]+$", "", prompt).split()
    if not words:
        return re.compile(r"(?!)")
    escaped = r"\s+".join(map(re.escape, words))
    return re.compile(rf"^(?:{escaped}(?![\w'’]|-\w)[\s.,;:!?–—-]*)+", re.IGNORECASE)


def _tidied(text: str) -> str:
    text = _INVISIBLE.sub("", _SURROGATE.sub("\ufffd", text))
    return _LOOSE_JOINER.sub("", _BLANK.sub(" ", text).strip()).strip()


def _unwrapped(text: str) -> str:
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        inside = text[1:-1]
        between = re.sub(r"\w['’](?=\w)", "", inside)  # an apostrophe closes no quotation
        if text[0] in between or text[-1] in between:  # "this" and "that"
            break
        text = inside.strip()
    return text


def _trimmed_end(text: str, finished: bool) -> str:
    if not finished:
        text = _without_unclosed(text.rstrip("\ufffd"))
    text = _REPEATED_END.sub(r"\1", _TRAILING_DOTS.sub("", text)).rstrip(" ,;:-–—&/")
    words = text.split(" ")
    while words and words[-1].rstrip(",").casefold() in (_CONNECTORS if finished else _DANGLING):
        words.pop()
    return " ".join(words)


def _without_unclosed(text: str) -> str:
    """Drops, for each kind, the last opening mark that is never closed.

    An inch mark or an apostrophe is no opening mark.
    """
    for opening, closing in (_BRACKETS | _QUOTES).items():
        at = text.rfind(opening)
        opens = at == 0 or (at > 0 and text[at - 1].isspace())
        even = opening == '"' and text.count(opening) % 2 == 0
        if opens and not even and closing not in text[at + 1 :]:
            text = text[:at] + text[at + 1 :]
    return text


def reject_reason(caption: str, prompt: str = "") -> str | None:
    """Why a caption must not be used, as one of `REASONS`, or None if it is fine.

    `prompt` is the text that the model had to continue.
    """
    caption = caption[:MAX_CHARS]
    return next((reason for reason, holds in _RULES if holds(caption, prompt)), None)


def _empty(caption: str, prompt: str) -> bool:
    """No visible character is left."""
    return not _tidied(caption)


# Scripts without spaces between words. In Han, kana and Bopomofo, each character counts as a word. In Thai,
# Lao, Khmer and Burmese, three characters count as a word, because words have three to four letters there.
_HAN_KANA = re.compile(
    "[\u3040-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_SOUTH_EAST_ASIAN = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+")


def _too_short(caption: str, prompt: str) -> bool:
    """One word of fewer than 8 letters ("dog", "kitchen").

    It may be true, but it hardly helps a search engine. A longer single word is kept. It is often a compound
    or a dish ("Hochzeitskleid", "tiramisu").
    """
    words = _words(caption)
    unspaced = len(_HAN_KANA.findall(caption)) + sum(
        -(-len(run) // 3) for run in _SOUTH_EAST_ASIAN.findall(caption)
    )
    return len(words) == 1 and unspaced < 2 and len(words[0]) < 8


_CLAUSE_END = re.compile(r"[,.;:!?()\"–—]|\s-\s")
_LONG_LETTER = re.compile(r"([^\W\d_])\1{7}")  # eight times the same letter; "shhhhh" and "yummmm" pass
# Loops inside a word ("hahahahaha"), and in scripts without spaces.
_LOOP_IN_WORD = re.compile(r"([^\W\d_]\S)\1{4}|([^\W\d_]\S{2,19}?)\2{3}")


def _repetition(caption: str, prompt: str) -> bool:
    """The same words again and again without others between them, a known failure of greedy decoding.

    One word must occur four times in a row ("ho ho ho" passes). Two words must occur twice, if no punctuation
    separates them ("ray ban ray ban" is rejected, "new york, new york" passes). More words must occur three
    times, where the last one may be missing at the end. A phrase that comes back after other words is
    ordinary language.
    """
    for words in map(_words, _CLAUSE_END.split(caption)):
        if any(
            words[i : i + 2] == words[i + 2 : i + 4] and words[i] != words[i + 1]
            for i in range(len(words) - 3)
        ):
            return True
    words = _words(caption)
    for period in range(1, min(20, len(words) // 2) + 1):
        needed, run = {1: 3, 2: 4}.get(period, 2 * period - 1), 0
        for word, earlier in zip(words[period:], words, strict=False):
            run = run + 1 if word == earlier else 0
            if run == needed:
                return True
    return bool(_LONG_LETTER.search(caption) or _LOOP_IN_WORD.search(caption.casefold()))


def _prompt_again(caption: str, prompt: str) -> bool:
    """The model repeats the question or adds to it, instead of answering it.

    The words of a short prompt may be ordinary language ("a woman holding a photo of a dog"). So a prompt in
    a caption only counts if it has at least five words, or at least three and occurs twice.
    """
    if caption.casefold().startswith(("question:", "answer:")) or ("?" in prompt and caption.endswith("?")):
        return True
    asked, said = _words(prompt), _words(caption)
    if not asked or not said:
        return False
    if _times(said, asked) or _times(asked, said) * len(asked) == len(said):
        return True
    times = _times(asked, said)
    return (times > 0 and len(asked) >= 5) or (times > 1 and len(asked) >= 3)


# Names of stock sites, and signs that replace a missing picture. They are regular expressions, separated by
# "; " or the end of a line, and match whole words in any case. A space stands for spaces, hyphens or
# underscores, " ?" for at most one of them. Names with another meaning ("getty", "stock", "copyright law")
# are not in the list.
STOCK_PHRASES = tuple(
    re.split(
        r"\s*[;\n]\s*",
        r"""shutterstock; alamy; getty ?images; istock; istock ?photos?; dreamstime; deposit ?photos?
        adobe ?stock; fotolia; 123rf; big ?stock; big ?stock ?photos?; freepik; vecteezy; vector ?stock
        pngtree
        stock (?:photo|image|vector|illustration|picture)s?; stock (?:photography|footage); stock ?fotos?
        royalty free; banque d'images; libres? de droits; libres? de derechos
        lizenzfreie[sn]? (?:bild|bilder|foto|fotos|stockfotos?)
        image may contain; may be an image of; (?:no|missing) (?:image|photo|picture|preview) available
        (?:image|photo|picture|preview) (?:is )?(?:coming soon|not (?:found|available))
        (?:image|photo|picture|preview) (?:is )?(?:un|no longer )available
        this (?:image|photo|picture|content) has been removed; (?:page|file|404) not found
        click here to; click (?:to enlarge|for more); all rights? reserved; © ?\w+; \(c\) (?:19|20)\d\d
        copyright(?:ed)?(?= ?(?:©|\(c\)|by|all|(?:19|20)\d\d|protected|image|photo|$))""",
    )
)
_ANY_STOCK_PHRASE = "|".join(STOCK_PHRASES).replace(" ?", r"[\s_-]?").replace(" ", r"[\s_-]+")
_STOCK_PHRASE = re.compile(rf"(?<![^\W_])(?:{_ANY_STOCK_PHRASE})(?![^\W_])", re.IGNORECASE)


def _stock_phrase(caption: str, prompt: str) -> bool:
    """The model read a watermark or a sign "no image", or recites the text of a stock site."""
    return bool(_STOCK_PHRASE.search(caption))


_LINK_OR_MARKUP = re.compile(
    r"https?:|www\.\w|\S@[\w-]+\.\w|<[/|!]?[a-z][^<>]*>|&(?:amp|lt|gt|quot|nbsp|#\d+);|\{\{|\]\(",
    re.IGNORECASE,
)
# Replacement characters, surrogates and characters for private use.
_BROKEN = re.compile("[\ufffd\ud800-\udfff\ue000-\uf8ff\U000f0000-\U0010fffd]")
_ONE_TOKEN = re.compile(r"(?=.*[\d._/\\=])[\x21-\x7e]+")
# Random letters and ids: eight letters without a vowel (Czech words have up to seven), or letters and digits
# in turns.
_GARBLED = re.compile(r"[b-df-hj-np-tv-xz]{8,}|(?=\w{8})[a-z]*(?:\d+[a-z]+){2,}\d*|(?=\D*\d)[0-9a-f]{12,}")


def _not_words(caption: str, prompt: str) -> bool:
    """Links, addresses, markup, ids or a broken encoding, or less than a third of the characters are letters.

    Emoji do not count: "happy birthday 🎂🎂🎂" is fine. At least half of the words must be garbled, because a
    caption may quote such a word.
    """
    if _LINK_OR_MARKUP.search(caption) or _BROKEN.search(caption) or _ONE_TOKEN.fullmatch(caption):
        return True
    kinds = [unicodedata.category(c) for c in caption if not c.isspace()]
    letters = sum(kind[0] in "LM" and kind != "Me" for kind in kinds)
    others = sum(kind[0] in "NP" or kind in ("Sm", "Sc", "Sk") for kind in kinds)
    if letters < 2 or 2 * letters < others:
        return True
    words = _words(caption)
    garbled = sum(bool(_GARBLED.fullmatch(word)) for word in words)
    return 2 * garbled >= len(words) or any(map(_mojibake, caption.split()))


def _mojibake(token: str) -> bool:
    """Whether this is UTF-8 that was read as Windows-1252, such as "cafÃ©".

    Only such a text gives valid UTF-8 when it is encoded again.
    """
    try:
        return not token.isascii() and bool(token.encode("cp1252").decode())
    except UnicodeError:
        return False


_RULES: tuple[tuple[str, Callable[[str, str], bool]], ...] = (
    ("empty", _empty),
    ("too short", _too_short),
    ("repetition", _repetition),
    ("prompt again", _prompt_again),
    ("watermark or stock phrase", _stock_phrase),
    ("not words", _not_words),
)
REASONS = tuple(reason for reason, _ in _RULES)


def _words(text: str) -> list[str]:
    """Runs of letters, marks and digits, case-folded. Format characters inside a word do not split it."""
    kinds = ((c, unicodedata.category(c)) for c in text)
    return (
        "".join(c if kind[0] in "LMN" else "" if kind == "Cf" else " " for c, kind in kinds)
        .casefold()
        .split()
    )


def _times(part: list[str], whole: list[str]) -> int:
    return sum(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))

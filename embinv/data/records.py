"""Synthetic multilingual business records: the ground truth for what an embedding leaks.

A record is a short note of the kind that people put in a vector store (medical, bank, HR, support, travel
...), with the character spans of its personal data labelled. It is written by a small grammar a language
(`record_templates/<lang>.py`): a template holds slots, and a slot is filled

- from a pool: a word list of ours, or values drawn from one of Faker's locales once per (language, seed);
- from a pattern, itself a template (`{person}` -> `{first_f} {last}`);
- from a range of integers, `{1..28}`, or `{00..59}` where the zeros give the width.

A slot whose name before the first underscore is one of `LABELS` (`person`, `person_f`, `date_weekday`) yields
a span around the whole value. A block of records is a pure function of (language, block, seed), so any worker
can make any block, in any order.

Nothing here is about real people: names are recombined at random, e-mail addresses end in RFC 2606's example
domains. The module does not tokenise, split or deduplicate (see `corpus` and `split`).
"""

import hashlib
import random
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, zip_longest
from typing import NamedTuple, Protocol

from faker import Faker

from embinv.data.record_templates import ar, de, en, es, fr, ja, ko, pt, ru, zh

BLOCK_SIZE = 1000
SHORT_LIST = 20  # values up to which all are equally common
POOL_SIZE = 600  # draws from Faker a pool; repeated draws stay, so that Faker's frequencies survive
LABELS = frozenset("PERSON AGE CITY ADDRESS COMPANY JOB DATE TIME AMOUNT DIAGNOSIS MEDICATION EMAIL PHONE ID".split())

_SLOT = re.compile(r"\{([^{}]+)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True)
class Span:
    """A labelled stretch of a record's text: characters [start, end)."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Record:
    """One synthetic text with its personal data marked, spans in the order of the text."""

    text: str
    lang: str
    spans: tuple[Span, ...]


class RecordGrammar(Protocol):
    """What a module under `record_templates/` holds."""

    LOCALE: str  # Faker's name of the locale
    FAKER: dict[str, str]  # symbol -> method of Faker that fills its pool
    WORDS: dict[str, str]  # symbol -> its values, separated by commas, the commonest first
    PATTERNS: dict[str, tuple[str, ...]]  # symbol -> patterns, one of which is chosen evenly
    TEMPLATES: dict[str, tuple[str, ...]]  # domain -> templates


class Part(NamedTuple):
    """A stretch of literal text, then a slot (empty at the end of a template)."""

    literal: str
    slot: str
    label: str  # empty where the slot is not personal data


class Grammar(NamedTuple):
    """A language's grammar ready to write with, its pools drawn."""

    pools: dict[str, tuple[str, ...]]
    patterns: dict[str, tuple[tuple[Part, ...], ...]]
    templates: tuple[tuple[Part, ...], ...]
    template_weights: tuple[float, ...]  # cumulative


GRAMMARS: dict[str, RecordGrammar] = {
    "en": en,
    "zh": zh,
    "de": de,
    "fr": fr,
    "ja": ja,
    "es": es,
    "ru": ru,
    "ko": ko,
    "ar": ar,
    "pt": pt,
}
LANGUAGES: tuple[str, ...] = tuple(GRAMMARS)


def generate_records(lang: str, block: int, seed: int) -> list[Record]:
    """Write one block of records.

    Args:
        lang: One of `LANGUAGES`.
        block: Which block, from 0 upwards; blocks are independent of one another.
        seed: The corpus's seed.

    Returns:
        `BLOCK_SIZE` records, the same for the same three arguments in any process.

    Raises:
        ValueError: The language is unknown, or the block negative.
    """
    if lang not in GRAMMARS:
        raise ValueError(f"No record templates for language {lang!r}; known: {', '.join(LANGUAGES)}.")
    if block < 0:
        raise ValueError(f"A block is numbered from 0 upwards, got {block}.")
    grammar = _grammar(lang, seed)
    rng = random.Random(_stable_seed(f"{seed}/{lang}/{block}"))
    return [_write_record(grammar, lang, rng) for _ in range(BLOCK_SIZE)]


def parse_template(template: str) -> tuple[Part, ...]:
    """Cut a template or a pattern into its literals and slots."""
    pieces = _SLOT.split(template)  # literal, slot, literal, slot, ..., literal
    parts = [Part(literal, slot, _label(slot)) for literal, slot in zip(pieces[0::2], pieces[1::2], strict=False)]
    if pieces[-1]:
        parts.append(Part(pieces[-1], "", ""))
    return tuple(parts)


def integer_values(slot: str) -> tuple[str, ...] | None:
    """The values of a range slot such as `1..28` or `00..59`; None for any other slot."""
    match = _RANGE.fullmatch(slot)
    if match is None:
        return None
    low, high = match.groups()
    width = len(low) if low.startswith("0") else 1
    return tuple(str(number).zfill(width) for number in range(int(low), int(high) + 1))


def _label(slot: str) -> str:
    stem = slot.partition("_")[0].upper()
    return stem if stem in LABELS else ""


def _stable_seed(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


@lru_cache(maxsize=32)
def _grammar(lang: str, seed: int) -> Grammar:
    """Parse a language's templates and draw its pools, by (lang, seed) alone, so that all blocks agree."""
    source = GRAMMARS[lang]
    patterns = {symbol: tuple(map(parse_template, variants)) for symbol, variants in source.PATTERNS.items()}
    # One template of each domain in turn, so that the commonest forms come from all of them; then Zipf's law, since a
    # store holds a few forms many times and many forms a few times.
    turns = zip_longest(*source.TEMPLATES.values())
    templates = tuple(parse_template(template) for turn in turns for template in turn if template is not None)
    weights = tuple(accumulate(1 / rank for rank in range(1, len(templates) + 1)))

    pools = {symbol: _skewed([word.strip() for word in words.split(",")]) for symbol, words in source.WORDS.items()}
    fake = Faker(source.LOCALE)
    fake.seed_instance(_stable_seed(f"{seed}/{lang}/pools"))
    for symbol, method in source.FAKER.items():
        pools[symbol] = _skewed([getattr(fake, method)() for _ in range(POOL_SIZE)])

    for variant in (*templates, *(variant for variants in patterns.values() for variant in variants)):
        for part in variant:
            numbers = integer_values(part.slot)
            if numbers is not None:
                pools[part.slot] = numbers
    return Grammar(pools, patterns, templates, weights)


def _skewed(values: list[str]) -> tuple[str, ...]:
    """Repeats values so that an even choice is a skewed one: each quarter comes half as often as the one before it.

    In an organisation's records a few customers, doctors and branches make up most of the lines. Short lists, such
    as months, are not skewed.
    """
    if len(values) < SHORT_LIST:
        return tuple(values)
    quarter = -(-len(values) // 4)
    return tuple(value for place, value in enumerate(values) for _ in range(8 >> (place // quarter)))


def _write_record(grammar: Grammar, lang: str, rng: random.Random) -> Record:
    template = rng.choices(grammar.templates, cum_weights=grammar.template_weights)[0]
    text, spans = _fill(template, grammar, rng)
    return Record(text, lang, tuple(spans))


def _fill(parts: tuple[Part, ...], grammar: Grammar, rng: random.Random) -> tuple[str, list[Span]]:
    """Write a template out: a labelled slot gives one span, another hands up the spans of what it is made of."""
    text = ""
    spans: list[Span] = []
    for literal, slot, label in parts:
        text += literal
        if not slot:
            continue
        inner: list[Span] = []
        pool = grammar.pools.get(slot)
        if pool is not None:
            value = pool[int(rng.random() * len(pool))]
        else:
            variants = grammar.patterns[slot]
            value, inner = _fill(variants[int(rng.random() * len(variants))], grammar, rng)
        start = len(text)
        if label:
            spans.append(Span(start, start + len(value), label))
        else:
            spans.extend(Span(start + span.start, start + span.end, span.label) for span in inner)
        text += value
    return text, spans

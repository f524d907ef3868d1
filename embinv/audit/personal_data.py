"""Personal data that has a form: e-mail, phone, card, IBAN, network and wallet addresses, dates, national ids.

Recognised by Microsoft Presidio's patterns and checksums (embinv[audit]), on texts without the spaces that a tokenizer
put in (`embinv.audit.spacing`); places are given in the texts as they are. No model of names is loaded, so what has no
form (names, places, employers) is not found here: labels say where that stands (`embinv.audit.entities`). A pattern
that says little without words around it, such as "nine digits", is left out. Nothing is fetched.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import regex

from embinv.audit.public_suffixes import bundled_list
from embinv.audit.spacing import close_up, without_accents
from embinv.data.dumps.base import MissingLibrary

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer

SURE = 0.4
"""Presidio's score from which a find counts: what a pattern alone says, or a checksum that fits."""

KINDS = {
    "EMAIL_ADDRESS": "EMAIL",
    "PHONE_NUMBER": "PHONE",
    "CREDIT_CARD": "CREDIT_CARD",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP_ADDRESS",
    "MAC_ADDRESS": "MAC_ADDRESS",
    "URL": "URL",
    "CRYPTO": "CRYPTO",
    "DATE_TIME": "DATE",
}
"""Presidio's names and ours, which are those of labelled records where both have one; all others are NATIONAL_ID."""

NATIONAL_ID = "NATIONAL_ID"
NATIONAL: Mapping[str, str] = {
    "en": "UsSsn UsItin Nhs UkNino InPan InAadhaar AuTfn AuMedicare SgFin CaSin",
    "de": "DeTaxId DeIdCard DeSocialSecurity DeHealthInsurance",
    "es": "EsNif EsNie",
    "fi": "FiPersonalIdentityCode",
    "it": "ItFiscalCode",
    "ko": "KrRrn KrFrn",
    "pl": "PlPesel",
    "sv": "SePersonnummer",
    "th": "ThTnin",
    "tr": "TrNationalId",
}
"""Presidio's recognisers of national ids by the language of a text; other languages have none."""

MONTHS: Mapping[str, str] = {
    "en": "january february march april may june july august september october november december",
    "de": "januar februar märz april mai juni juli august september oktober november dezember",  # typos: ignore-line
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "ru": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
}
"""Dates with a month's name, which Presidio's patterns do not have; accents may be missing."""

# What a text must hold for a recogniser to be asked at all: most texts hold none of it, and phone numbers cost dearly.
_DIGITS = regex.compile(r"\d")
_NEEDS: Mapping[str, regex.Pattern[str]] = {
    "EMAIL": regex.compile("@"),
    "PHONE": regex.compile(r"(?:\d\D{0,3}){7}"),
    "CREDIT_CARD": regex.compile(r"(?:\d[ \-]?){12}"),
    "IP_ADDRESS": regex.compile(r"\d\.\d|:.*:", regex.DOTALL),
    "URL": regex.compile(r"\w\.\w"),
}
_SUBTAGS = regex.compile("[-_]")


class Span(NamedTuple):
    """A find: characters [start, end) of a text."""

    start: int
    end: int
    kind: str


class _Recogniser(NamedTuple):
    kind: str
    wants_capitals: bool
    presidio: "EntityRecognizer"


def find_spans(texts: Sequence[str], langs: Sequence[str | None], languages: Sequence[str]) -> list[list[Span]]:
    """Personal data in texts.

    Args:
        texts: N texts, as a decoder or a person wrote them.
        langs: N language codes such as de, de-CH or de_CH; None for a text whose language is not known.
        languages: those that are tried on such a text, and on one whose code has not two letters ("german", "und") and
            is not among them.

    Returns:
        [N] finds that do not overlap, in the order of the text; where two did, the surer, then the longer one.

    Raises:
        MissingLibrary: Presidio is not installed.
    """
    found = []
    for text, lang in zip(texts, langs, strict=True):
        closed = close_up(text)
        hits = _hits(closed.text, recognisers(_spoken(lang, languages))) if closed.text else []
        found.append([Span(*closed.place(start, end), kind) for start, end, kind in hits])
    return found


def _spoken(lang: str | None, languages: Sequence[str]) -> tuple[str, ...]:
    """Those languages that a text may be in and that have recognisers of their own, so that few sets are made."""
    code = _SUBTAGS.split(lang or "", maxsplit=1)[0].strip().lower()
    known = code in languages or (len(code) == 2 and code.isalpha())
    return tuple(each for each in ((code,) if known else languages) if each in NATIONAL or each in MONTHS)


@lru_cache(maxsize=64)
def recognisers(languages: tuple[str, ...]) -> tuple[_Recogniser, ...]:
    """The recognisers of every language, and of national ids and months' names those of these languages.

    Raises:
        MissingLibrary: Presidio is not installed.
    """
    try:
        logging.getLogger("presidio-analyzer").setLevel(logging.WARNING)
        from presidio_analyzer import Pattern, PatternRecognizer
        from presidio_analyzer import predefined_recognizers as known
    except ImportError as error:
        raise MissingLibrary("personal data is recognised with Presidio: pip install 'embinv[audit]'") from error

    class Email(known.EmailRecognizer):
        """Presidio's, which would fetch the public suffix list."""

        def validate_result(self, pattern_text: str) -> bool:
            return bundled_list()(pattern_text).fqdn != ""

    everywhere: list[type[EntityRecognizer]] = [
        Email,
        known.PhoneRecognizer,
        known.CreditCardRecognizer,
        known.IbanRecognizer,
        known.IpRecognizer,
        known.MacAddressRecognizer,
        known.UrlRecognizer,
        known.CryptoRecognizer,
        known.DateRecognizer,
    ]
    made = [make() for make in cast(list[Any], everywhere)]
    made += [getattr(known, f"{name}Recognizer")() for lang in languages for name in NATIONAL.get(lang, "").split()]
    months = [month for lang in languages for month in MONTHS.get(lang, "").split()]
    if months:
        made.append(PatternRecognizer("DATE_TIME", patterns=[Pattern("a month's name", _dates(months), 0.6)]))
    kinds = [KINDS.get(each.supported_entities[0], NATIONAL_ID) for each in made]
    return tuple(_Recogniser(kind, kind in {"IBAN", NATIONAL_ID}, each) for kind, each in zip(kinds, made, strict=True))


def _dates(months: Sequence[str]) -> str:
    """Day, month and year in the order of either side of the Channel."""
    names = "|".join(dict.fromkeys(form for month in months for form in (month, without_accents(month))))
    day = r"(?:[12]\d|3[01]|0?[1-9])(?:st|nd|rd|th|er|º|\.)?"  # typos: ignore-line
    year = r"(?:,?\s?(?:de\s|of\s)?(?:19|20)\d\d)"
    return rf"\b(?:{day}\s(?:de\s|of\s)?(?:{names})\b{year}?|(?:{names})\s{day}{year}?|(?:{names}){year})\b"


def _one_digit(surface: str) -> bool:
    """Whether it is a row of one digit: 000 000 000 fits checksums, and a decoder that stutters writes it."""
    digits = {sign for sign in surface if sign.isalnum()}
    return len(digits) == 1 and digits.pop().isdigit()


def _hits(text: str, asked: Sequence[_Recogniser]) -> list[tuple[int, int, str]]:
    capitals = "".join(upper if len(upper := sign.upper()) == 1 else sign for sign in text)
    hits = []
    for kind, wants_capitals, presidio in asked:
        if not _NEEDS.get(kind, _DIGITS).search(text):
            continue
        results = presidio.analyze(capitals if wants_capitals else text, presidio.supported_entities, cast(Any, None))
        hits += [
            (-hit.score, hit.start - hit.end, hit.start, hit.end, kind)
            for hit in results or ()
            if hit.score >= SURE and not _one_digit(text[hit.start : hit.end])
        ]
    kept: list[tuple[int, int, str]] = []
    for _, _, start, end, kind in sorted(hits):
        if all(end <= other or start >= after for other, after, _ in kept):
            kept.append((start, end, kind))
    return sorted(kept)

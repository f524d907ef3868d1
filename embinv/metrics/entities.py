"""Entity recall: which of the names, numbers and dates that an original holds stand in the recovered text.

What the entities are is given (labelled spans); nothing is recognised here. An entity is found if its surface form
occurs anywhere in the recovered text, both in normal form (NFKC, case folded, each run of whitespace one space), and
on word boundaries: "12" is not in "2012", but in "3.12" it is. Scripts without spaces have a boundary at each letter.
An entity listed twice counts twice, and one occurrence is enough for both.
"""

from collections.abc import Iterable, Sequence

from embinv.metrics.characters import is_inside_word, normal_form
from embinv.metrics.figures import Figure, ratio_figure

Entities = Sequence[Sequence[tuple[str, str]]]
"""For each text, its entities as (kind, surface form)."""


def entity_recall(entities: Entities, recovered: Sequence[str]) -> Figure:
    """Share of all entities that occur in the recovered text of their original.

    A ratio over all texts with an entity, with the standard error of `ratio_figure`; n counts these texts.

    Args:
        entities: the n originals' entities; a text may have none.
        recovered: n recovered texts.

    Raises:
        ValueError: different counts, fewer than two texts with an entity, or an entity of whitespace.
    """
    found = _found(entities, recovered)
    figure = _recall([hit for _, hit in text] for text in found)
    if figure is None:
        labelled = sum(map(bool, found))
        raise ValueError(f"entity recall needs at least 2 texts with a labelled entity, got {labelled}")
    return figure


def entity_recall_by_kind(entities: Entities, recovered: Sequence[str]) -> dict[str, Figure]:
    """Entity recall of each kind, by the kind's name.

    Args:
        entities: the n originals' entities; a text may have none.
        recovered: n recovered texts.

    Returns:
        Figures whose n counts the texts with an entity of that kind. A kind that fewer than two texts have is absent.

    Raises:
        ValueError: different counts, no text with an entity, or an entity of whitespace.
    """
    found = _found(entities, recovered)
    kinds = sorted({kind for text in found for kind, _ in text})
    if not kinds:
        raise ValueError("entity recall by kind needs texts with a labelled entity, got 0")
    figures = {kind: _recall([hit for own, hit in text if own == kind] for text in found) for kind in kinds}
    return {kind: figure for kind, figure in figures.items() if figure is not None}


def occurs(surface: str, text: str) -> bool:
    """Whether a surface form stands in a text, as the head of this file says.

    Raises:
        ValueError: the surface form is empty or whitespace.
    """
    return _stands_in(_plain_surface(surface), _plain(text))


def _found(entities: Entities, recovered: Sequence[str]) -> list[list[tuple[str, bool]]]:
    """(kind, whether it was found) of each entity of each text."""
    found = []
    for labelled, said in zip(entities, recovered, strict=True):
        text = _plain(said)
        found.append([(kind, _stands_in(_plain_surface(surface), text)) for kind, surface in labelled])
    return found


def _recall(hits: Iterable[Sequence[bool]]) -> Figure | None:
    """The figure over the texts with an entity; None if fewer than two have one."""
    labelled = [text for text in hits if text]
    if len(labelled) < 2:
        return None
    return ratio_figure([sum(text) for text in labelled], [len(text) for text in labelled])


def _plain(text: str) -> str:
    return " ".join(normal_form(text).split())


def _plain_surface(surface: str) -> str:
    plain = _plain(surface)
    if not plain:
        raise ValueError(f"an entity's surface form is {surface!r}; give the words that stand in the original")
    return plain


def _stands_in(surface: str, text: str) -> bool:
    start = text.find(surface)
    while start >= 0:
        if not (is_inside_word(text, start) or is_inside_word(text, start + len(surface))):
            return True
        start = text.find(surface, start + 1)
    return False

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from embinv.decoding.refine import CLOSE_ENOUGH, Refined, refine
from embinv.encoders.hashing import HashEncoder
from embinv.inversion import Inversion
from tests.fakes import WORDS, hash_spec, sentences, unit_vectors

DIM = 16
NEVER = 2.0  # no cosine is close enough


@dataclass(frozen=True, eq=False)
class Text:
    """A hypothesis of its own kind: two of the same text are two things."""

    text: str


class RecordingEncoder:
    """A hash encoder that remembers what it was sent."""

    def __init__(self):
        self.spec = hash_spec(DIM)
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        return self.vectors(texts)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        return HashEncoder(self.spec).encode(texts)

    @property
    def sent(self) -> list[str]:
        return [text for call in self.calls for text in call]


class WordEncoder(RecordingEncoder):
    """The sum of a vector for each word at its place: one word set right brings the text closer."""

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        rows = [[f"{place} {word}" for place, word in enumerate(text.split())] for text in texts]
        return np.stack([HashEncoder(self.spec).encode(row).sum(axis=0) for row in rows])


class UncasedEncoder(RecordingEncoder):
    """Texts that differ in capitals only have one vector."""

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        return super().vectors([text.lower() for text in texts])


class EmptyIsZero(RecordingEncoder):
    """Refuses the empty text, and gives blank ones no direction."""

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        if "" in texts:
            raise RuntimeError("input must not be empty")
        return super().vectors(texts) * np.asarray([[bool(text.strip())] for text in texts])


class EditingCorrector:
    """Changes, drops or adds a word at random, the same for the same text and target; remembers what it was asked."""

    def __init__(self, words: Sequence[str] = WORDS[:4]):
        self.words = words
        self.asked: list[tuple[np.ndarray, list[str], np.ndarray]] = []

    def propose(self, targets: np.ndarray, texts: list[str], own: np.ndarray, count: int) -> list[list[Text]]:
        self.asked.append((targets, texts, own))
        return [self.edits(target, text, count) for target, text in zip(targets, texts, strict=True)]

    def edits(self, target: np.ndarray, text: str, count: int) -> list[Text]:
        key = hashlib.blake2b(target.tobytes() + text.encode(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(key, "big"))
        return [Text(self.edit(text.split(), rng)) for _ in range(count)]

    def edit(self, words: list[str], rng: np.random.Generator) -> str:
        place, word = int(rng.integers(len(words) + 1)), str(rng.choice(self.words))
        return " ".join(words[:place] + [word] * int(rng.integers(2)) + words[place + int(rng.integers(2)) :])


class ScriptedCorrector(EditingCorrector):
    """Proposes what a table says, over and over; for a text that is not in it, the text itself."""

    def __init__(self, table: dict[str, list[str]]):
        super().__init__()
        self.table = table

    def edits(self, target: np.ndarray, text: str, count: int) -> list[Text]:
        found = self.table.get(text, [text])
        return [Text(found[i % len(found)]) for i in range(count)]


class TruthfulCorrector(EditingCorrector):
    """Knows the text of each target and sets the first wrong word right; further proposals are edits at random."""

    def __init__(self, encoder: RecordingEncoder, truths: list[str]):
        super().__init__(WORDS)
        self.truths = {vector.tobytes(): truth for vector, truth in zip(encoder.vectors(truths), truths, strict=True)}

    def edits(self, target: np.ndarray, text: str, count: int) -> list[Text]:
        truth, words = self.truths[target.tobytes()].split(), text.split()
        wrong = [place for place, word in enumerate(truth) if words[place : place + 1] != [word]]
        for place in wrong[:1]:
            words[place : place + 1] = [truth[place]]
        return [Text(" ".join(words)), *super().edits(target, text, count)][:count]


def texts_of(first: list[list[str]]) -> list[list[Text]]:
    return [[Text(text) for text in some] for some in first]


def starts(rows: int, each: int = 1, seed: int = 0) -> list[list[Text]]:
    """`each` first hypotheses of every vector, all different."""
    found = sentences(rows * each, words=4, seed=seed)
    return texts_of([found[row * each : (row + 1) * each] for row in range(rows)])


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))


def facts(refined: list[Refined[Text]]) -> list[tuple]:
    """All that a result says, with the text in place of the object."""
    return [(r.hypothesis.text, r.cosine, r.encoder_calls, r.steps, r.stopped, r.cosines) for r in refined]


def by_brute_force(target, first, corrector, steps, beam):
    """Forgets nothing, corrects all that it holds again in every step, and sorts all texts ever seen."""
    encoder = RecordingEncoder()
    every: dict[str, tuple[float, Text]] = {}

    def see(hypotheses):
        for each in hypotheses:
            every.setdefault(each.text or " ", (cosine(encoder.encode([each.text or " "])[0], target), each))
        return sorted(every.values(), key=lambda seen: -seen[0])[:beam]

    held = see(first)
    cosines, stopped = [held[0][0]], "steps"
    while len(cosines) <= steps and stopped == "steps":
        before = held
        held = see([new for _, each in before for new in corrector.edits(target, each.text, beam)])
        cosines.append(held[0][0])
        if held == before:
            stopped = "converged"
    return held[0][1].text, len(every), stopped, cosines


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("beam", [1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_result_is_that_of_a_search_that_forgets_nothing_and_asks_everything_again(seed, beam, each):
    targets, first = unit_vectors(5, DIM, seed), starts(5, each, seed)
    found = refine(
        targets, first, RecordingEncoder(), EditingCorrector(), steps=6, beam=beam, chunk=7, close_enough=NEVER
    )
    for target, some, result in zip(targets, first, found, strict=True):
        text, count, stopped, cosines = by_brute_force(target, some, EditingCorrector(), 6, beam)
        assert (result.hypothesis.text, result.encoder_calls, result.stopped) == (text, count, stopped)
        assert result.steps == len(cosines) - 1
        assert result.cosines == pytest.approx(cosines, abs=1e-6)
        assert result.cosine == result.cosines[-1]


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_asked_no_cosine_falls_and_the_best_text_ever_embedded_comes_back(seed):
    rng = np.random.default_rng(seed)
    encoder, limit = RecordingEncoder(), int(rng.integers(1, 60))
    target, first = unit_vectors(1, DIM, seed), starts(1, int(rng.integers(1, 4)), seed)
    steps, beam, chunk = (int(rng.integers(low, 7)) for low in (0, 1, 1))
    (found,) = refine(
        target, first, encoder, EditingCorrector(), steps=steps, beam=beam, chunk=chunk, max_encoder_calls=limit
    )
    assert found.cosines == sorted(found.cosines)
    assert len(encoder.sent) == len(set(encoder.sent)) == found.encoder_calls <= limit
    assert max(map(len, encoder.calls)) <= chunk
    assert found.steps == len(found.cosines) - 1 <= steps
    best = max(cosine(vector, target[0]) for vector in encoder.vectors(encoder.sent))
    assert found.cosine == pytest.approx(best, abs=1e-6)
    assert cosine(encoder.vectors([found.hypothesis.text or " "])[0], target[0]) == pytest.approx(best, abs=1e-6)


def test_a_corrector_that_only_makes_things_worse_changes_nothing():
    encoder, first = RecordingEncoder(), starts(4)
    near = encoder.vectors([some[0].text for some in first]) + 0.1 * unit_vectors(4, DIM)
    for beam in (1, 3):
        found = refine(near, first, encoder, EditingCorrector(), steps=5, beam=beam)
        for result, some in zip(found, first, strict=True):
            assert result.hypothesis is some[0]
            assert set(result.cosines) == {result.cosine}
            assert result.cosine > 0.98


def test_a_corrector_that_knows_the_truth_reaches_it_a_word_at_a_time():
    encoder = WordEncoder()
    truths = ["anna paid ben two coins", "carla sent dan three keys", "ben lost four maps at"]
    first = texts_of([["anna paid dan two coins"], ["dan owes dan three maps"], ["anna sent one coins by"]])
    wrong = [1, 3, 5]
    found = refine(encoder.vectors(truths), first, encoder, TruthfulCorrector(encoder, truths), steps=8, beam=1)
    assert [result.hypothesis.text for result in found] == truths
    assert [result.steps for result in found] == wrong
    assert [result.encoder_calls for result in found] == [1 + count for count in wrong]
    assert all(result.stopped == "close_enough" and result.cosine >= CLOSE_ENOUGH for result in found)
    wide = refine(encoder.vectors(truths), first, encoder, TruthfulCorrector(encoder, truths), steps=8, beam=4)
    assert [result.hypothesis.text for result in wide] == truths
    assert all(result.steps <= count for result, count in zip(wide, wrong, strict=True))


def test_no_step_takes_the_closest_first_hypothesis_and_asks_no_corrector():
    encoder, corrector = RecordingEncoder(), EditingCorrector()
    targets, first = unit_vectors(4, DIM), starts(4, 3)
    found = refine(targets, first, encoder, corrector, steps=0, beam=2)
    for target, some, result in zip(targets, first, found, strict=True):
        cosines = [cosine(vector, target) for vector in encoder.vectors([each.text for each in some])]
        assert result.hypothesis is some[int(np.argmax(cosines))]
        assert result.cosine == pytest.approx(max(cosines), abs=1e-6)
        assert (result.encoder_calls, result.steps, result.stopped, result.cosines) == (3, 0, "steps", [result.cosine])
    assert not corrector.asked


def test_size_of_a_chunk_changes_no_figure():
    targets, first = unit_vectors(6, DIM), starts(6, 2)
    results = []
    for chunk in (1, 2, 5, 10_000):
        encoder = RecordingEncoder()
        results.append(facts(refine(targets, first, encoder, EditingCorrector(), steps=4, beam=3, chunk=chunk)))
        assert max(map(len, encoder.calls)) <= chunk
    assert all(result == results[0] for result in results)


def test_vectors_do_not_influence_each_other():
    targets = np.concatenate([unit_vectors(5, DIM), unit_vectors(2, DIM)])  # two of them stand there twice
    first = [*starts(5, 2), *starts(5, 2)[:2]]
    first[3] = first[2]  # and two share their texts
    encoder, corrector = RecordingEncoder(), EditingCorrector()
    together = facts(refine(targets, first, encoder, corrector, steps=5, beam=3, max_encoder_calls=30))
    alone = [
        facts(refine(target[None], [some], encoder, corrector, steps=5, beam=3, max_encoder_calls=30))[0]
        for target, some in zip(targets, first, strict=True)
    ]
    assert together == alone
    assert together[:2] == together[5:]
    assert len({fact[2] for fact in together}) > 1  # they did not all take equally long


def test_order_of_equals_is_not_that_of_the_neighbours():
    """The first vector asks for "b" before "B"; for the second, "B" came first."""
    corrector = ScriptedCorrector({"one": ["b", "B"], "two": ["B", "b"]})
    target = UncasedEncoder().vectors(["b"]) + 0.1 * unit_vectors(1, DIM)
    found = refine(np.repeat(target, 2, axis=0), texts_of([["one"], ["two"]]), UncasedEncoder(), corrector, beam=2)
    assert [result.hypothesis.text for result in found] == ["b", "B"]


def test_first_of_equally_close_ones_wins():
    target = unit_vectors(1, DIM)
    corrector = ScriptedCorrector({"Anna": ["ANNA", "anna"]})
    for chunk in (1, 10):
        (among_first,) = refine(target, texts_of([["Anna", "anna"]]), UncasedEncoder(), corrector, steps=0, chunk=chunk)
        assert among_first.hypothesis.text == "Anna"
        (over_proposals,) = refine(target, texts_of([["Anna"]]), UncasedEncoder(), corrector, steps=3, chunk=chunk)
        assert over_proposals.hypothesis.text == "Anna"


def test_what_is_said_again_is_not_embedded_again():
    encoder = RecordingEncoder()
    corrector = ScriptedCorrector({"one": ["two", "two", "one", "three"], "two": ["one", "three", "three", "two"]})
    (found,) = refine(unit_vectors(1, DIM), texts_of([["one", "one"]]), encoder, corrector, close_enough=NEVER)
    assert sorted(encoder.sent) == ["one", "three", "two"]
    assert found.encoder_calls == 3


def test_a_text_that_many_vectors_need_is_sent_once_and_counts_for_each():
    encoder = RecordingEncoder()
    found = refine(
        unit_vectors(3, DIM), texts_of([["one"]] * 3), encoder, ScriptedCorrector({"one": ["two"]}), close_enough=NEVER
    )
    assert encoder.sent == ["one", "two"]
    assert [result.encoder_calls for result in found] == [2, 2, 2]


def test_search_ends_when_a_step_brings_nothing_new():
    corrector = ScriptedCorrector({"one": ["two"], "two": ["three"], "three": ["one"]})
    (found,) = refine(unit_vectors(1, DIM), texts_of([["one"]]), RecordingEncoder(), corrector, steps=50, beam=3)
    assert (found.stopped, found.steps, found.encoder_calls) == ("converged", 3, 3)
    assert sum(len(texts) for _, texts, _ in corrector.asked) == 3  # each of the three was corrected once


def test_a_vector_that_is_done_leaves_the_work():
    encoder, corrector = RecordingEncoder(), EditingCorrector()
    first = starts(3)
    targets = unit_vectors(3, DIM)
    targets[1] = encoder.vectors([first[1][0].text])[0]
    found = refine(targets, first, encoder, corrector, steps=3)
    assert (found[1].stopped, found[1].steps, found[1].encoder_calls) == ("close_enough", 0, 1)
    assert found[1].cosine == pytest.approx(1)
    assert not any((row == targets[1]).all() for asked, _, _ in corrector.asked for row in asked)


@pytest.mark.parametrize("limit", [1, 2, 5, 17, 40])
def test_budget_cuts_the_search_short_and_changes_nothing_before(limit):
    target, first = unit_vectors(1, DIM), starts(1, 3)
    unlimited, limited = RecordingEncoder(), RecordingEncoder()
    refine(target, first, unlimited, EditingCorrector(), steps=20, beam=8)
    assert len(unlimited.sent) > 40
    (found,) = refine(target, first, limited, EditingCorrector(), steps=20, beam=8, max_encoder_calls=limit)
    assert limited.sent == unlimited.sent[:limit]
    assert (found.encoder_calls, found.stopped) == (limit, "encoder_calls")


def test_last_encoder_calls_go_to_what_is_proposed_for_the_closest():
    corrector = ScriptedCorrector({"one": ["three", "four"], "two": ["five", "six"]})
    for closest, proposed in (("one", "three"), ("two", "five")):
        encoder = RecordingEncoder()
        target = encoder.vectors([closest]) + 0.1 * unit_vectors(1, DIM)
        refine(target, texts_of([["one", "two"]]), encoder, corrector, beam=2, max_encoder_calls=3)
        assert encoder.sent == ["one", "two", proposed]


def test_corrector_sees_the_targets_as_given_and_the_texts_own_vectors_each_text_once():
    encoder, corrector = RecordingEncoder(), EditingCorrector()
    targets, first = 5 * unit_vectors(4, DIM), starts(4)
    refine(targets, first, encoder, corrector, steps=6, beam=3)
    asked = [row for rows in corrector.asked for row in zip(*rows, strict=True)]
    assert len({(target.tobytes(), text) for target, text, _ in asked}) == len(asked) > 20
    for target, text, own in asked:
        assert any(np.array_equal(target, given) for given in targets)
        assert np.array_equal(own, encoder.vectors([text or " "])[0])


def test_scale_of_the_targets_does_not_matter():
    class Unscaled(EditingCorrector):
        def edits(self, target, text, count):
            return super().edits(target / np.abs(target).max(), text, count)

    targets, first = unit_vectors(3, DIM), starts(3)
    small, large = (facts(refine(size * targets, first, RecordingEncoder(), Unscaled())) for size in (2**-40, 2**40))
    assert small == large


def test_an_empty_text_is_sent_as_a_blank_and_is_further_than_any_other():
    encoder, corrector = EmptyIsZero(), ScriptedCorrector({"": ["anna", " ", ""]})
    (found,) = refine(unit_vectors(1, DIM), texts_of([[""]]), encoder, corrector, steps=4, beam=3)
    assert found.hypothesis.text == "anna"
    assert found.cosines[0] == -np.inf and np.isfinite(found.cosines[1:]).all()
    assert encoder.sent == [" ", "anna"]  # an empty text and a blank one are one
    assert corrector.asked[0][1] == [""]


def test_where_no_text_has_a_direction_the_first_hypothesis_comes_back():
    first = texts_of([["", "  "]])
    (found,) = refine(unit_vectors(1, DIM), first, EmptyIsZero(), ScriptedCorrector({}), steps=4)
    assert found.hypothesis is first[0][0]
    assert (found.cosine, found.stopped) == (-np.inf, "converged")


def test_an_inversion_is_carried_through_as_it_is():
    first = [Inversion("anna paid", [5, 8], [0.9, 0.8], 0.85), Inversion("ben owes", [6, 9], [0.7, 0.6], 0.65)]
    corrected = Inversion("anna owes", [5, 9], [0.5, 0.5], 0.5)

    class Corrector:
        def propose(self, targets, texts, own, count):
            return [[corrected] * count for _ in texts]

    targets = RecordingEncoder().vectors(["anna owes", "ben owes"])
    found = refine(targets, [[each] for each in first], RecordingEncoder(), Corrector())
    assert found[0].hypothesis is corrected
    assert found[1].hypothesis is first[1]


def test_progress_grows_to_all_vectors():
    told: list[int] = []
    encoder = WordEncoder()
    truths = ["anna paid ben", "carla sent dan", "ben lost keys", "dan owes anna"]
    first = texts_of([["anna paid ben"], ["anna sent dan"], ["anna paid maps"], ["dan owes ben"]])
    corrector = TruthfulCorrector(encoder, truths)
    refine(encoder.vectors(truths), first, encoder, corrector, beam=1, on_progress=told.append)
    assert told == [1, 3, 4]  # nobody was done after the second step


class Miscounting(EditingCorrector):
    def __init__(self, rows: int, each: int):
        super().__init__()
        self.rows, self.each = rows, each

    def propose(self, targets, texts, own, count):
        return [[Text("anna")] * (count + self.each)] * (len(texts) + self.rows)


class Broken(RecordingEncoder):
    def __init__(self, broken):
        super().__init__()
        self.broken = broken

    def vectors(self, texts):
        return self.broken(super().vectors(texts))


def with_nan(vectors):
    vectors[1, 3] = np.nan
    return vectors


GOOD = unit_vectors(2, DIM)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": -1}, "steps is -1; give at least 0"),
        ({"beam": 0}, "beam is 0; give at least 1"),
        ({"chunk": 0}, "chunk is 0; give at least 1"),
        ({"max_encoder_calls": 0}, "max_encoder_calls is 0; give at least 1"),
        ({"targets": GOOD[0]}, r"targets: expected a matrix \[N, D\], got shape \(16,\); give one row for each"),
        ({"targets": GOOD[:0]}, "targets: no vector was given"),
        ({"targets": with_nan(GOOD.copy())}, "targets: row 1 holds NaN or infinity"),
        ({"targets": GOOD * [[1], [0]]}, "targets: row 1 is a zero vector"),
        ({"first": starts(3)}, "first: hypotheses of 3 vectors for 2 targets; give as many"),
        ({"first": [[Text("anna")], []]}, "first: vector 1 has no hypothesis; give at least one"),
        ({"targets": GOOD[:, :8]}, r"encoder: vectors of shape \(2, 16\), not \(2, 8\); take the encoder that made"),
        ({"encoder": Broken(lambda v: v[:1])}, r"encoder: vectors of shape \(1, 16\), not \(2, 16\)"),
        ({"encoder": Broken(with_nan)}, "encoder: the vector of 'ben' holds NaN or infinity; run the encoder in"),
        ({"corrector": Miscounting(-1, 0)}, "corrector: proposals for 1 of 2 hypotheses; return a row for each"),
        ({"corrector": Miscounting(0, 1)}, "corrector: 5 proposals for a hypothesis; return 4, as asked"),
        ({"corrector": Miscounting(0, -1)}, "corrector: 3 proposals for a hypothesis; return 4, as asked"),
    ],
)
def test_what_does_not_fit_is_named_with_its_remedy(changed, message):
    given = {
        "targets": GOOD,
        "first": texts_of([["anna"], ["ben"]]),
        "encoder": RecordingEncoder(),
        "corrector": EditingCorrector(),
    }
    with pytest.raises(ValueError, match=message):
        refine(**given | changed)


def test_each_step_is_told_with_what_has_come_so_far():
    encoder, told = WordEncoder(), []
    truths = sentences(3, words=5, seed=4)
    corrector, first = TruthfulCorrector(encoder, truths), starts(3, each=2)
    found = refine(
        encoder.vectors(truths),
        first,
        encoder,
        corrector,
        beam=2,
        on_step=lambda row, best: told.append((row, best)),
    )
    for row, last in enumerate(found):
        own = [best for of, best in told if of == row]
        assert [best.cosines for best in own] == [last.cosines[:count] for count in range(1, last.steps + 2)]
        assert [best.cosine for best in own] == last.cosines
        assert [best.stopped for best in own] == [None] * last.steps + [last.stopped]
        assert own[0].hypothesis in first[row] and own[0].encoder_calls == 2
        assert own[-1] == last


def test_what_is_raised_when_a_step_is_told_ends_the_search():
    encoder = WordEncoder()
    corrector = EditingCorrector()

    def enough(row, best):
        raise TimeoutError

    with pytest.raises(TimeoutError):
        refine(encoder.vectors(sentences(2)), starts(2), encoder, corrector, on_step=enough)
    assert len(encoder.calls) == 1 and corrector.asked == []

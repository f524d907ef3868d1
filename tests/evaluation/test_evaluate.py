import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from embinv.checkpoint import Checkpoint, load_checkpoint
from embinv.config import EvaluationSettings
from embinv.encoders.hashing import HashEncoder
from embinv.evaluation.baselines import derangement, unconditional
from embinv.evaluation.evaluate import evaluate
from embinv.evaluation.generation import DEFINITIONS
from embinv.evaluation.report import render
from embinv.inverter import DiffusionInverter
from embinv.metrics.perplexity import load_language_model, perplexity
from embinv.tasks import invert_here
from tests.fakes import (
    OracleDenoiser,
    OracleModel,
    hash_spec,
    pairs_of,
    sentences,
    tiny_checkpoint,
    word_tokenizer,
)

SPEC = hash_spec(16)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    tokenizer = word_tokenizer(tmp_path_factory.mktemp("words"))
    texts = sentences(60)
    encoder = HashEncoder(SPEC)
    test, training = pairs_of(texts[:20], tokenizer, encoder), pairs_of(texts[20:], tokenizer, encoder)
    folder = tmp_path_factory.mktemp("made") / "checkpoint"
    tiny_checkpoint(folder, tokenizer, SPEC)
    return load_checkpoint(folder), encoder, test, training


def inverter_that_says(made, token_ids):
    """Recovers token_ids [20, L] from the test vectors, whatever is true."""
    checkpoint, _, test, _ = made
    x_0 = torch.from_numpy(token_ids).long()
    denoiser = OracleDenoiser(torch.from_numpy(test.embeddings).float(), x_0, checkpoint.vocabulary.size)
    return DiffusionInverter(
        Checkpoint(checkpoint.config, OracleModel(denoiser), checkpoint.tokenizer, checkpoint.vocabulary)
    )


def measure(
    made, inverter, encoder=None, test=None, on_progress=lambda line: None, validation=None, entities=None, **options
):
    _, _, pairs, training = made
    settings = EvaluationSettings(**{"steps": 4, "examples": 3, "sweep_rows": 0, **options})
    return evaluate(
        inverter,
        test or pairs,
        training,
        encoder,
        settings,
        on_progress=on_progress,
        validation=validation,
        entities=entities,
    ).report


def content(pairs, tokenizer):
    return [tokenizer.content(row) for row in pairs.token_ids.tolist()]


def accuracy(originals, recovered):
    right = sum(a == b for x, y in zip(originals, recovered, strict=True) for a, b in zip(x, y, strict=False))
    return right / sum(map(len, originals))


def test_figures_of_an_oracle_are_perfect_and_its_baselines_are_not(made):
    _checkpoint, encoder, test, _training = made
    report = measure(made, inverter_that_says(made, test.token_ids), encoder)
    assert (report["n"], report["token_accuracy"], report["exact_match"], report["token_f1"]) == (20, 1, 1, 1)
    assert report["bleu"] == pytest.approx(100, abs=1e-3)
    assert report["cosine"] == pytest.approx(1, abs=1e-3)
    assert all(figures["token_accuracy"] < 0.5 for figures in report["baselines"].values())


def test_baselines_equal_their_definitions_by_hand(made):
    checkpoint, _, test, training = made
    inverter = inverter_that_says(made, test.token_ids)
    originals = content(test, checkpoint.tokenizer)
    report = measure(made, inverter, seed=5)

    shuffled = [originals[i] for i in derangement(20, 5)]
    assert report["baselines"]["shuffled"]["token_accuracy"] == pytest.approx(accuracy(originals, shuffled), abs=1e-4)
    [nothing] = inverter.invert_unchecked(np.zeros((1, 16)), steps=4)
    zero = accuracy(originals, [nothing.token_ids] * 20)
    assert report["baselines"]["zero"]["token_accuracy"] == pytest.approx(zero, abs=1e-4)
    cosines = test.embeddings.astype(np.float64) @ training.embeddings.astype(np.float64).T
    known = content(training, checkpoint.tokenizer)
    nearest = accuracy(originals, [known[i] for i in cosines.argmax(axis=1)])
    assert report["baselines"]["nearest"]["token_accuracy"] == pytest.approx(nearest, abs=1e-4)
    fixed = accuracy(originals, [unconditional(training, checkpoint.tokenizer).token_ids] * 20)
    assert report["baselines"]["unconditional"]["token_accuracy"] == pytest.approx(fixed, abs=1e-4)


def test_figures_of_a_case_made_by_hand(made):
    checkpoint, _, test, _ = made
    said = test.token_ids.copy()
    said[:5, 0] = 2  # the first token of five texts is wrong
    originals = content(test, checkpoint.tokenizer)
    report = measure(made, inverter_that_says(made, said))
    total = sum(map(len, originals))
    assert report["token_accuracy"] == pytest.approx((total - 5) / total, abs=1e-4)
    assert report["exact_match"] == pytest.approx(0.75, abs=1e-4)
    assert report["exact_match_se"] == pytest.approx((0.75 * 0.25 / 19) ** 0.5, abs=1e-4)
    f1 = [1 - 1 / len(x) if row < 5 else 1.0 for row, x in enumerate(originals)]
    assert report["token_f1"] == pytest.approx(np.mean(f1), abs=1e-4)


def test_nearest_neighbour_of_a_leaked_text_is_that_text(made):
    _, _, test, _ = made
    checkpoint = made[0]
    report = evaluate(DiffusionInverter(checkpoint), test, test, None, EvaluationSettings(steps=2, sweep_rows=0)).report
    assert report["baselines"]["nearest"]["exact_match"] == 1.0


def test_every_figure_has_its_standard_error_and_its_definition(made):
    _checkpoint, encoder, test, _ = made
    inverter = inverter_that_says(made, test.token_ids)
    report = measure(
        made, inverter, encoder, validation=test, entities=[[("WORD", text.split()[0])] for text in test.texts]
    )
    for name in DEFINITIONS.keys() - {"perplexity", "perplexity_of_originals"}:  # no language model was named
        assert report[name] is not None
        assert report[f"{name}_se"] >= 0
    assert report["definitions"] == DEFINITIONS
    for figures in report["baselines"].values():
        assert {"token_accuracy", "exact_match", "token_f1", "bleu"} <= figures.keys()
    assert report["samples_per_second"]["invert"] > 0


def test_cosine_is_left_out_without_an_encoder_and_never_made_up(made):
    report = measure(made, inverter_that_says(made, made[2].token_ids))
    assert "cosine" not in report


def test_examples_are_the_first_texts_not_the_best(made):
    _, _, test, _ = made
    said = test.token_ids.copy()
    said[0, 0] = 2
    report = measure(made, inverter_that_says(made, said), examples=2)
    assert [example["original"] for example in report["examples"]] == test.texts[:2]
    assert report["examples"][0]["recovered"].startswith("[UNK]")


def test_languages_are_measured_apart_and_add_up(made):
    checkpoint, _, test, _ = made
    said = test.token_ids.copy()
    said[:5, 0] = 2
    langs = ["de"] * 8 + ["en"] * 11 + ["fr"]
    mixed = type(test)(test.ids, test.texts, langs, test.token_ids, test.embeddings)
    report = measure(made, inverter_that_says(made, said), test=mixed)
    assert {lang: figures["n"] for lang, figures in report["languages"].items()} == {"de": 8, "en": 11}
    assert report["languages"]["en"]["token_accuracy"] == 1.0
    originals = content(test, checkpoint.tokenizer)[:8]
    assert report["languages"]["de"]["token_accuracy"] == pytest.approx(1 - 5 / sum(map(len, originals)), abs=1e-4)


def test_progress_is_told_in_words(made):
    lines = []
    measure(made, inverter_that_says(made, made[2].token_ids), made[1], on_progress=lines.append)
    assert lines == [
        "inverting: 20 of 21 vectors",
        "inverting: 21 of 21 vectors",
        "re-encoding what was recovered",
        "gaps, with the rest of a text in sight",
        "baselines",
    ]


def test_report_of_an_evaluation_renders_and_is_plain_json(made):
    import json

    _checkpoint, encoder, test, _ = made
    report = measure(made, inverter_that_says(made, test.token_ids), encoder)
    whole = {"name": "tiny", "encoder": "hash", "seconds": {"train": 1.0}} | report
    assert json.loads(json.dumps(whole)) == whole
    assert "100.0%" in render(whole)


def test_confidence_fitted_on_the_same_texts_is_calibrated_on_them(made):
    """Half of the texts are said wrongly in their second half; the oracle is equally sure of all of it."""
    _, _, test, _ = made
    said = test.token_ids.copy()
    said[::2, 2:5] = 2
    inverter = inverter_that_says(made, said)
    before = measure(made, inverter)
    assert "calibration_error" not in before and before["reliability"] == {}
    assert before["examples"][0]["probability"] is None
    report = measure(made, inverter, validation=test)
    assert report["calibration_error"] == pytest.approx(0.0, abs=1e-4)
    assert report["text_calibration_error"] == pytest.approx(0.0, abs=1e-4)
    assert report["reliability"]["text"] == [{"n": 20, "predicted": pytest.approx(0.5), "observed": 0.5}]
    assert report["examples"][0]["probability"] == pytest.approx(0.5)
    tokens = [row[: row.index(1)] for row in test.token_ids.tolist()]
    right = sum(len(x) - (row % 2 == 0) * len(x[2:5]) for row, x in enumerate(tokens))
    assert report["reliability"]["token"][0]["observed"] == pytest.approx(right / sum(map(len, tokens)))


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """A tiny causal model of random weights that reads the fakes' words."""
    folder = tmp_path_factory.mktemp("language") / "model"
    tokenizer = word_tokenizer(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=tokenizer.vocab_size, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return load_language_model(str(folder))


def test_perplexity_is_measured_of_what_was_recovered_and_of_the_originals(made, language_model):
    _, _, test, training = made
    settings = EvaluationSettings(steps=2, sweep_rows=0, language_model="a name")
    said = np.roll(test.token_ids, 1, axis=0)
    report = evaluate(inverter_that_says(made, said), test, training, None, settings, language_model).report
    assert report["perplexity"] == pytest.approx(perplexity(test.texts, language_model).figure.value, abs=1e-3)
    assert report["perplexity"] == pytest.approx(report["perplexity_of_originals"])  # the same texts, in another order
    assert report["perplexity_se"] > 0


def test_perplexity_of_nothing_is_absent(made, language_model, caplog):
    _, _, test, training = made
    said = np.ones_like(test.token_ids)  # EOS everywhere
    settings = EvaluationSettings(sweep_rows=0)
    report = evaluate(inverter_that_says(made, said), test, training, None, settings, language_model).report
    assert "perplexity" not in report and report["perplexity_of_originals"] > 1
    assert "perplexity is left out: perplexity needs at least 2 texts" in caplog.text


def test_a_way_that_is_calibrated_is_not_fitted_again(made):
    _, _, test, training = made
    inverter = inverter_that_says(made, test.token_ids)
    settings = EvaluationSettings(steps=4, sweep_rows=0)
    first = evaluate(inverter, test, training, None, settings, validation=test)
    assert first.calibration is not None and first.calibration.rows == 20
    inverter.calibrations = inverter.calibrations.with_one(first.calibration)
    again = evaluate(inverter, test, training, None, settings, validation=test)
    assert again.calibration is None
    assert again.report["text_calibration_error"] == first.report["text_calibration_error"]


def test_entities_are_looked_for_in_what_was_recovered_and_in_baselines(made):
    _, _, test, _ = made
    said = test.token_ids.copy()
    said[:5, 0] = 2
    entities = [[("FIRST", text.split()[0]), ("LAST", text.split()[-1])] for text in test.texts]
    report = measure(made, inverter_that_says(made, said), entities=entities)
    found = [text.split()[0] in text.split()[1:] for text in test.texts[:5]]  # a word may come twice
    assert report["entities"]["FIRST"]["entity_recall"] == pytest.approx((15 + sum(found)) / 20)
    assert report["entities"]["LAST"] == {"n": 20, "entity_recall": 1.0, "entity_recall_se": 0.0}
    assert report["baselines"]["shuffled"]["entity_recall"] < report["entity_recall"]
    assert "entity_recall" not in measure(made, inverter_that_says(made, said), entities=[[]] * 20)


def test_gaps_stand_under_the_name_of_their_mask(made):
    _, _, test, _ = made
    report = measure(made, inverter_that_says(made, test.token_ids))
    assert [report[f"accuracy_at_{share}_mask"] for share in ("10%", "50%", "100%")] == [1.0, 1.0, 1.0]


def test_all_decoding_goes_through_the_one_who_does_it(made):
    """Nothing is decoded beside `invert`, so that workers can do all of it."""
    checkpoint, _, test, training = made
    inverter, asked = DiffusionInverter(checkpoint), {}

    def invert(tasks):
        asked.update(tasks)
        return invert_here(inverter)(tasks)

    settings = EvaluationSettings(steps=2, sweep_rows=6, strategy="euler")
    there = evaluate(inverter, test, training, None, settings, validation=training, invert=invert).report
    assert {"test", "zero", "validation", "sweep confidence 1", "remasking 0.2 2"} <= asked.keys()
    assert len(asked["zero"].vectors) == 20  # sampled, so a text for each vector
    assert there["sweep"][0]["n"] == 6 and len(there["remasking"]) == 8
    inverter.invert_unchecked = lambda *_, **__: pytest.fail("decoded here")
    done = {}
    with pytest.raises(KeyError, match="test"):
        evaluate(inverter, test, training, None, settings, invert=lambda tasks: done)

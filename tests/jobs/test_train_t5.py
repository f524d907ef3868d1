"""A T5 through jobs/train.py and jobs/evaluate.py: the same run by teacher forcing, judged by its own writing."""

import json

import numpy as np
import pytest
import torch

from embinv.checkpoint import load_checkpoint
from embinv.data.pairs import read_pairs
from embinv.data.schema import read_recipe
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.inverter import T5TextInverter, load_inverter
from embinv.models.build import new_model
from embinv.models.t5_inverter import T5Inverter
from embinv.training.ema import EMA
from embinv.training.engine import LocalEngine
from embinv.training.loop import RunState, run
from embinv.training.optimizer import build_optimizer
from embinv.training.step import TokenIds
from jobs.evaluate import make_report
from jobs.train import train
from tests.jobs.training_runs import distance, log_of, progress_of, record_of, saves_of, weights_of, wind_back

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

T5 = ("model.family=t5", "model.pseudo_tokens=4", "training.optimizer=adamw", "training.decay=0.0")
SETTINGS = (*T5, "training.max_steps=12", "training.learning_rate=0.001")


@pytest.fixture(scope="module")
def t5_run(ray_cluster, tiny, tiny_pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("t5") / "out"
    return out, train(tiny(*SETTINGS), tiny_pairs, out, resume=False)


def test_a_run_leaves_a_t5_that_inverts(t5_run, tiny_pairs):
    out, record = t5_run
    assert record["steps"] == 12 and record["finished"] == "steps"
    model = load_checkpoint(out / "last").model
    assert isinstance(model, T5Inverter) and model.config.pseudo_tokens == 4
    inverter = load_inverter(out / "last")
    assert isinstance(inverter, T5TextInverter)
    vectors = read_pairs(tiny_pairs, "test").embeddings[:3].astype(np.float32)
    for strategy in ("greedy", "beam"):
        assert all(0 < each.confidence <= 1 for each in inverter.invert(vectors, strategy=strategy))


def test_its_log_and_figures_are_those_of_a_writer(t5_run):
    out, record = t5_run
    assert "% of tokens from left to right, " in log_of(out) and "whole texts, NLL " in log_of(out)
    assert {"nll", "token_accuracy", "exact_match"} <= set(record["last"]) and "nelbo" not in record["last"]
    row = progress_of(out)[-1]
    assert len(row["loss_by_place"]) == 10 and "loss_by_time" not in row
    assert np.isfinite(row["cross_entropy"])
    assert record["last"]["nll"] < np.log(load_checkpoint(out / "last").model.config.vocab_size)
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")


def test_deepspeed_computes_what_plain_pytorch_does(t5_run, tiny, tiny_pairs):
    out, _ = t5_run
    config, recipe = tiny(*SETTINGS), read_recipe(tiny_pairs)
    settings, training = config.training, read_pairs(tiny_pairs, "train")
    held_out = read_pairs(tiny_pairs, "validation").sample(settings.validation_rows, settings.seed)
    always, unknown = (recipe.eos_id, recipe.pad_id), TextTokenizer(config.tokenizer).unknown_id
    vocabulary = Vocabulary.of(training.token_ids, recipe.vocab_size, always, unknown)
    ends = vocabulary.ends(*always)
    torch.manual_seed(settings.seed)
    model = new_model(config.model, vocabulary, recipe.encoder.dim, recipe.seq_len, ends)
    start = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    ema = EMA(model, settings.ema_decay, settings.ema_share)
    engine = LocalEngine(model, build_optimizer(model, settings), clipping=settings.gradient_clipping)
    ids = TokenIds(model.config.mask_id, *ends, vocabulary.other_id)
    training, held_out = training.renumbered(vocabulary), held_out.renumbered(vocabulary)
    list(run(engine, ema, training, held_out, ids, settings, RunState()))
    expected = dict(ema.model.state_dict())
    assert distance(weights_of(out / "last"), expected) < 0.01 * distance(start, expected)


def test_it_goes_on_from_a_save_bit_for_bit(t5_run, tiny, tiny_pairs, tmp_path):
    out, record = t5_run
    again = wind_back(out, tmp_path / "out", saves_of(out)[0])
    assert train(tiny(*SETTINGS), tiny_pairs, again, resume=True)["steps"] == 12
    assert "going on from step 6" in log_of(again)
    assert record_of(again)["last"] == record["last"]
    found, expected = weights_of(again / "last"), weights_of(out / "last")
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.nightly
def test_a_report_is_of_its_own_writing_and_has_a_row_for_each_strategy(t5_run, tiny, tiny_pairs, tmp_path):
    out, _ = t5_run
    report = make_report(out / "last", tiny_pairs, tmp_path, tiny(*SETTINGS).evaluation, "cpu")
    assert report["n"] == 12 and report["strategy"] == "greedy"
    assert {row["strategy"] for row in report["sweep"]} == {"greedy", "beam"}
    assert all(0 <= report["baselines"][name]["token_accuracy"] <= 1 for name in ("zero", "shuffled", "nearest"))
    assert json.loads((tmp_path / "report.json").read_text()) == report

"""A corrector through jobs/train.py: from scratch, as its inverter, and refused where data or start are wrong."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import jobs.train
from embinv.checkpoint import load_checkpoint
from embinv.data.corrections import HYPOTHESES_KEY, Corrections, HypothesesRecipe
from embinv.data.pairs import read_pairs
from embinv.data.schema import read_recipe
from embinv.models.mdlm_corrector import CorrectingMDLM
from embinv.models.t5_corrector import T5Corrector
from embinv.trained_corrector import load_corrector
from jobs.arguments import RunStopped
from jobs.evaluate import make_report
from jobs.train import train
from tests.jobs.training_runs import log_of, record_of, saves_of, weights_of, wind_back

MADE_BY = HypothesesRecipe(inverter="minilm", weights="0" * 16, strategy="confidence", steps=8, seed=0)
CORRECTOR = ("model.corrector=true", "training.max_steps=8", "training.learning_rate=0.001")
T5 = ("model.family=t5", "model.pseudo_tokens=2", "training.optimizer=adamw", "training.decay=0.0")


@pytest.fixture(scope="module")
def hypotheses(tiny_pairs, tmp_path_factory):
    """The tiny pairs, each with the text of another row for a hypothesis."""
    folder = tmp_path_factory.mktemp("hypotheses") / "hypotheses"
    recipe = read_recipe(tiny_pairs)
    for split in ("train", "validation"):
        pairs = read_pairs(tiny_pairs, split)
        other = pairs.take(np.roll(np.arange(len(pairs)), 1))
        table = Corrections(pairs, other.texts, other.token_ids, other.embeddings).to_arrow(recipe, MADE_BY)
        (folder / f"split={split}").mkdir(parents=True)
        pq.write_table(table, folder / f"split={split}" / "part-0.parquet")
    (folder / "_SUCCESS").touch()
    return folder


def test_pairs_without_hypotheses_are_refused(tiny, tiny_pairs, tmp_path):
    with pytest.raises(ValueError, match=r"holds pairs without hypotheses.*jobs/hypotheses\.py"):
        train(tiny(*CORRECTOR), tiny_pairs, tmp_path / "out", resume=False)
    assert not (tmp_path / "out").exists()


def test_an_inverter_is_kept_from_the_texts_that_are_a_correctors(tiny, hypotheses, tmp_path):
    with pytest.raises(ValueError, match=r"of texts that no inverter may learn from; add --set model\.corrector=true"):
        train(tiny(), hypotheses, tmp_path / "out", resume=False)
    assert not (tmp_path / "out").exists()


def test_a_run_does_not_go_on_with_the_hypotheses_of_another_inverter(tiny, hypotheses, monkeypatch, tmp_path):
    def stop(*arguments):
        raise RunStopped("the workers would begin here")

    monkeypatch.setattr(jobs.train, "_fit", stop)
    monkeypatch.setattr(jobs.train, "require_places", lambda settings: None)
    data, out = shutil.copytree(hypotheses, tmp_path / "hypotheses"), tmp_path / "out"
    with pytest.raises(RunStopped):
        train(tiny(*CORRECTOR), data, out, resume=False)
    [storage] = out.glob("state-*")
    (storage / "step-000000004").mkdir()
    for file in data.rglob("*.parquet"):
        table = pq.read_table(file, partitioning=None)
        other = MADE_BY.model_copy(update={"weights": "1" * 16})
        metadata = table.schema.metadata | {HYPOTHESES_KEY: other.model_dump_json().encode()}
        pq.write_table(table.replace_schema_metadata(metadata), file)
    with pytest.raises(ValueError, match=r"holds other pairs than the run .*hypotheses\.weights: 0{16} != 1{16}"):
        train(tiny(*CORRECTOR), data, out, resume=True)


def test_a_start_that_is_no_inverter_of_this_family_and_these_pairs_is_refused(tiny, hypotheses, checkpoint, tmp_path):
    config = tiny(*CORRECTOR, "model.inverter=nowhere")
    with pytest.raises(ValueError, match=r"model\.inverter cannot be read: .*nowhere"):
        train(config, hypotheses, tmp_path / "out", resume=False)
    config = tiny(*CORRECTOR, *T5, f"model.inverter={checkpoint}")
    with pytest.raises(ValueError, match=r"is of family mdlm, and a corrector of model\.family t5 is asked for"):
        train(config, hypotheses, tmp_path / "out", resume=False)
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    tree = json.loads((other / "config.json").read_text())
    tree["pairs"]["encoder"]["normalize"] = not tree["pairs"]["encoder"].get("normalize")
    (other / "config.json").write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=r"model\.inverter"):
        train(tiny(*CORRECTOR, f"model.inverter={other}"), hypotheses, tmp_path / "out", resume=False)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def checkpoint(tiny, tiny_pairs, tmp_path_factory):
    """An inverter of the tiny pairs, not trained."""
    from embinv.checkpoint import CheckpointConfig, save_checkpoint
    from embinv.data.vocabulary import Vocabulary
    from embinv.models.build import new_model

    config, recipe = tiny(), read_recipe(tiny_pairs)
    tokenizer = config.open_tokenizer()
    always = (recipe.eos_id, recipe.pad_id)
    kept = read_pairs(tiny_pairs, "train").token_ids[::2]  # half of the texts: it lacks words of the others
    vocabulary = Vocabulary.of(kept, recipe.vocab_size, always, tokenizer.unknown_id)
    model = new_model(config.model, vocabulary, recipe.encoder.dim, recipe.seq_len, vocabulary.ends(*always))
    folder = tmp_path_factory.mktemp("inverter") / "checkpoint"
    made_by = CheckpointConfig(name=config.name, model=model.config, pairs=recipe, training={})
    save_checkpoint(folder, model, made_by, tokenizer, vocabulary)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "settings"), [(CorrectingMDLM, ()), pytest.param(T5Corrector, T5, marks=pytest.mark.nightly)]
)
def test_a_run_leaves_a_corrector_and_goes_on_bit_for_bit(ray_cluster, tiny, hypotheses, kind, settings, tmp_path):
    config, out = tiny(*CORRECTOR, *settings), tmp_path / "out"
    record = train(config, hypotheses, out, resume=False)
    assert record["steps"] == 8 and record["finished"] == "steps"
    assert "% of tokens after one correction, " in log_of(out) and "; the hypotheses had " in log_of(out)
    last = record["last"]
    assert {"nll", "token_accuracy", "hypothesis_accuracy"} <= set(last) and "nelbo" not in last
    assert isinstance(load_checkpoint(out / "last").model, kind)
    assert "--corrector ." in (out / "last" / "README.md").read_text()
    held_out = read_pairs(hypotheses, "validation")
    vectors = held_out.embeddings[:3].astype(np.float32)
    corrector = load_corrector(out / "last", read_recipe(hypotheses))
    assert [len(row) for row in corrector.propose(vectors, held_out.texts[:3], vectors[::-1], 2)] == [2, 2, 2]
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")

    again = wind_back(out, tmp_path / "again", saves_of(out)[0])
    assert train(config, hypotheses, again, resume=True)["steps"] == 8
    assert record_of(again)["last"] == last
    found, expected = weights_of(again / "last"), weights_of(out / "last")
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_one_that_begins_as_its_inverter_has_its_architecture_and_vocabulary_and_is_in_the_report(
    ray_cluster, tiny, tiny_pairs, hypotheses, checkpoint, tmp_path
):
    still = ("training.optimizer=adamw", "training.learning_rate=1e-9")
    config = tiny(*CORRECTOR, *still, f"model.inverter={checkpoint}", "model.pseudo_tokens=1")
    train(config, hypotheses, tmp_path / "out", resume=False)
    corrector, inverter = load_checkpoint(tmp_path / "out" / "last"), load_checkpoint(checkpoint)
    assert corrector.config.model.pseudo_tokens == inverter.config.model.pseudo_tokens
    assert np.array_equal(corrector.vocabulary.kept, inverter.vocabulary.kept)
    ours, theirs = corrector.model.state_dict(), inverter.model.state_dict()
    alike = [name for name in ours if ours[name].shape == theirs[name].shape]
    assert len(alike) == len(ours) - 2  # what reads vectors is wider
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in alike)

    settings = tiny("evaluation.refine=[[1,2]]", f"evaluation.corrector={tmp_path / 'out' / 'last'}").evaluation
    report = make_report(checkpoint, tiny_pairs, tmp_path / "report", settings, "cpu")
    assert [row["by"] for row in report["refinement"]] == [None, "rewriting", "corrector"]
    assert all(row["cosine_falls"] == 0 for row in report["refinement"])
    assert "+ corrector 1 x 2" in (tmp_path / "report" / "report.md").read_text()

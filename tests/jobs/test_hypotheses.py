"""jobs/hypotheses.py: what it refuses, what its stages make of a window, and what lies in its folder at the end."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import yaml

import jobs.hypotheses
from embinv.calibration import weights_digest
from embinv.data.corrections import HypothesesRecipe, corrections_schema, read_corrections, read_hypotheses_recipe
from embinv.data.pairs import read_pairs
from embinv.data.schema import matrix, read_recipe
from embinv.encoders.base import open_encoder, open_tokenizer
from embinv.encoders.hashing import HashEncoder
from embinv.encoders.openai_answers import Rejection
from embinv.encoders.spec import EncoderSpec
from embinv.inversion import Inversion
from embinv.inverter import load_inverter
from jobs.encode_run import require_same_run as require_same_pairs
from jobs.exactly_once import progress_folder
from jobs.hypotheses import main, make_hypotheses
from jobs.hypotheses_pipeline import pools
from jobs.hypotheses_run import Wish, job_of
from jobs.hypotheses_stages import EncodeHypotheses, InvertWindow, read_schema
from jobs.pool import ModelPool
from jobs.rejects import read_rejects, refuse_file
from jobs.shards import list_windows, read_window
from jobs.train_identity import identity_of, require_finished, train_texts
from tests.fakes import MINILM, pairs_of, recipe_for, sentences, tiny_checkpoint, word_tokenizer, write_pairs
from tests.provenance_checks import require_provenance

HASH = EncoderSpec(kind="hash", model="hash", dim=16)
OF_MINILM = EncoderSpec(model=MINILM, dim=384)
SPLITS = {"train": 20, "validation": 10, "test": 6, "correction": 24}
LENGTH = 8


class Given:
    """An inverter with random weights and pairs of four splits, of which it says that it learnt from one."""

    def __init__(self, folder, spec=HASH):
        tokenizer = word_tokenizer(folder / "words")
        self.checkpoint, self.data = folder / "checkpoint", folder / "pairs"
        tiny_checkpoint(self.checkpoint, tokenizer, spec, LENGTH)
        recipe = recipe_for(tokenizer, spec, LENGTH)
        encoder = HashEncoder(HASH.model_copy(update={"dim": spec.dim}))  # any vectors will do; a model's take seconds
        pairs = pairs_of(sentences(sum(SPLITS.values())), tokenizer, encoder)
        start = 0
        for split, rows in SPLITS.items():
            half, end = start + rows // 2, start + rows
            for name, part in (("a.parquet", (start, half)), ("b.parquet", (half, end))):
                write_pairs(self.data, recipe, pairs.take(np.arange(*part)), split, name)
            start = end
        (self.data / "_stats.json").write_text(json.dumps({"run": {"encoding": {"precision": "recipe"}}}))
        (self.data / "_SUCCESS").touch()
        self.says(train_texts(pairs.ids[: SPLITS["train"]]))
        self.wish = Wish(self.checkpoint, self.data, folder / "hypotheses", steps=2, precision="float32", workers=2)

    def says(self, training):
        """The checkpoint says this of its training."""
        path = self.checkpoint / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"training": {"steps": 1, **training}}))

    def window(self, split="correction"):
        """The first file of a split, as the job reads it."""

        def fail(file, reason):
            pytest.fail(f"{file}: {reason}")

        [window, _] = list_windows(sorted((self.data / f"split={split}").glob("*.parquet")), 512, fail)
        [table] = read_window(window, fail, read_schema(read_recipe(self.data)))
        return table

    def refusal(self, **changes):
        with pytest.raises(ValueError, match=r".+") as caught:
            make_hypotheses(replace(self.wish, **changes))
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)


@pytest.fixture
def given(tmp_path):
    return Given(tmp_path)


# Refusals


@pytest.fixture
def nothing_is_inverted(monkeypatch):
    def refuse(*_):
        pytest.fail("inverted before everything was looked at")

    monkeypatch.setattr(jobs.hypotheses, "run_pipeline", refuse)


def test_pairs_without_texts_for_correction_are_refused(given, nothing_is_inverted):
    shutil.rmtree(given.data / "split=correction")
    told = given.refusal()
    assert f"--data {given.data}: has no split=correction" in told
    assert "--set data.correction=0.3" in told and "train the inverter on those pairs" in told
    assert not given.wish.out.exists()


def test_pairs_that_are_not_whole_or_have_no_validation_are_refused(given, nothing_is_inverted):
    shutil.rmtree(given.data / "split=validation")
    assert "no rows in split=validation" in given.refusal()
    (given.data / "_SUCCESS").unlink()
    assert "the job that writes there has not finished" in given.refusal()


def test_a_damaged_file_of_pairs_is_refused_whoever_finds_it(given, nothing_is_inverted):
    file, schema = given.data / "split=correction" / "b.parquet", read_schema(read_recipe(given.data))
    [window] = list_windows([file], 512, refuse_file)
    content = bytearray(file.read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)  # the footer stays
    file.write_bytes(content)
    assert given.refusal().startswith(f"--data {given.data}: cannot be read (")
    with pytest.raises(ValueError, match=rf"^{file}: cannot be read \(.*\); put it back"):
        list(read_window(window, refuse_file, schema))
    assert not given.wish.out.exists()


def test_pairs_of_another_recipe_are_refused_by_name(given, nothing_is_inverted, tmp_path):
    tiny_checkpoint(tmp_path / "other", word_tokenizer(tmp_path / "words"), HASH.model_copy(update={"prompt": "q: "}))
    told = given.refusal(checkpoint=tmp_path / "other")
    assert "does not match the checkpoint" in told and "encoder.prompt: None != 'q: '" in told


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "does not say which texts its inverter learnt from"),
        ({"train_rows": 20, "train_ids": "0000beef"}, r"\(train_ids: 0000beef != [0-9a-f]{8}\)"),
        (train_texts(np.arange(44)), r"\(train_rows: 44 != 20; train_ids: [0-9a-f]{8} != [0-9a-f]{8}\)"),
    ],
    ids=["says nothing", "others", "more"],
)
def test_an_inverter_that_may_have_seen_the_texts_is_refused_unless_told_otherwise(
    given, nothing_is_inverted, said, why
):
    given.says(said)
    with pytest.raises(ValueError, match=rf"--checkpoint .*{why}, so it may have seen .* give --assume-unseen if"):
        make_hypotheses(given.wish)
    assert not given.wish.out.exists()
    assert job_of(replace(given.wish, assume_unseen=True)).hypotheses.weights == weights_digest(given.checkpoint)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"strategy": "beam"},
            "--strategy beam --steps 2: strategy beam is none of this inverter's; choose one of conf",
        ),
        ({"strategy": "magic"}, "--strategy magic --steps 2: strategy 'magic' is unknown"),
        ({"steps": 0}, "--steps 0: steps is 0; give at least 1"),
    ],
)
def test_a_way_to_invert_that_there_is_not_is_refused_with_its_flag(given, nothing_is_inverted, changes, told):
    assert told in given.refusal(**changes)


def test_folders_that_are_no_checkpoint_or_hold_other_things_are_refused(given, nothing_is_inverted, tmp_path):
    assert "no config.json" in given.refusal(checkpoint=tmp_path)
    assert "is the folder of --data" in given.refusal(out=given.data)
    assert "holds no hypotheses of ours" in given.refusal(out=shutil.copytree(given.data, tmp_path / "copy"))
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == sorted(p.name for p in given.data.iterdir())


def test_no_worker_is_refused_with_its_flag(given):
    where = ["--checkpoint", str(given.checkpoint), "--data", str(given.data), "--out", str(given.wish.out)]
    with pytest.raises(ValueError, match="--workers 0: give at least 1"):
        main([*where, "--workers", "0"])


# Stages


def test_a_window_is_read_with_the_split_that_it_lies_in(given):
    table = given.window()
    pairs = read_pairs(given.data, "correction")
    assert table["id"].to_pylist() == pairs.ids[:12].tolist() and table["split"].to_pylist() == ["correction"] * 12
    np.testing.assert_array_equal(matrix(table["embedding"], 16), pairs.embeddings[:12])


def test_hypotheses_are_what_the_inverter_says_and_ids_are_of_the_text_read_again(given):
    job, table = job_of(given.wish), given.window()
    found = InvertWindow(job, None, None)(table)
    inverter = load_inverter(given.checkpoint, precision="float32")
    texts = [each.text for each in inverter.invert(matrix(table["embedding"], 16), steps=2)]
    assert found["hypothesis"].to_pylist() == texts and len(set(texts)) > 1
    for text, ids in zip(texts, found["hypothesis_ids"].to_pylist(), strict=True):
        [own] = inverter.tokenizer.encode([text])
        ended = [*own[: LENGTH - 1], inverter.tokenizer.eos_id]
        assert ids == ended + [inverter.tokenizer.pad_id] * (LENGTH - len(ended))
    assert found.select(table.column_names).to_pylist() == table.to_pylist()


def said(texts):
    """An inverter that says these."""
    return lambda task: ([Inversion(text, [], [], 1.0) for text in texts[: len(task.vectors)]], 0.0)


def made_of(given, texts, encoder=None):
    """What both stages make of texts that an inverter said; `encoder` is in place of the recipe's."""
    job = job_of(given.wish)
    invert, encode = InvertWindow(job, None, None), EncodeHypotheses(job, None)
    invert.invert, encode.encoder = said(texts), encoder or encode.encoder
    return encode(invert(given.window().slice(0, len(texts))))


def test_an_empty_hypothesis_stays_empty_and_has_the_vector_of_a_space(given):
    found = made_of(given, ["anna paid ben", "", "coins"])
    assert found["hypothesis"].to_pylist() == ["anna paid ben", "", "coins"]
    assert found["hypothesis_ids"].to_pylist()[1] == [1] + [0] * (LENGTH - 1)
    vectors = HashEncoder(HASH).encode(["anna paid ben", " ", "coins"]).astype(np.float16)
    np.testing.assert_array_equal(matrix(found["hypothesis_embedding"], 16), vectors)


def test_rows_are_in_the_schema_of_corrections_and_correction_is_to_be_train(given):
    found = made_of(given, ["anna paid ben", "coins"])
    job = job_of(given.wish)
    assert found.drop_columns(["split"]).schema.equals(
        corrections_schema(job.recipe, job.hypotheses), check_metadata=True
    )
    assert found["split"].to_pylist() == ["train", "train"]
    assert EncodeHypotheses(job, None)(InvertWindow(job, None, None)(given.window("validation")))[
        "split"
    ].to_pylist() == ["validation"] * (SPLITS["validation"] // 2)


class Rejecting(HashEncoder):
    """Refuses coins, and has no number for keys."""

    def encode_or_reject(self, texts):
        rows = [row for row, text in enumerate(texts) if text != "coins"]
        vectors = self.encode([texts[row] for row in rows])
        vectors[[texts[row] == "keys" for row in rows], 3] = np.nan
        return vectors, np.array(rows), [Rejection(row, "too shiny") for row in set(range(len(texts))) - set(rows)]


def test_hypotheses_without_a_vector_are_set_aside_with_their_text_and_the_others_stay(given):
    found = made_of(given, ["anna", "coins", "keys", "ben"], Rejecting(HASH))
    ids = given.window()["id"].to_pylist()
    assert found["hypothesis"].to_pylist() == ["anna", "ben"] and found["id"].to_pylist() == [ids[0], ids[3]]
    vectors = HashEncoder(HASH).encode(["anna", "ben"]).astype(np.float16)
    np.testing.assert_array_equal(matrix(found["hypothesis_embedding"], 16), vectors)
    assert read_rejects(given.wish.out).rows == {
        ids[1]: "too shiny",
        ids[2]: "the encoder gave a vector with NaN or infinity",
    }
    [file] = (given.wish.out / "_rejected").glob("*.jsonl")
    assert [json.loads(line)["text"] for line in file.read_text().splitlines()] == ["coins", "keys"]


def test_a_text_whose_own_vector_is_no_number_is_set_aside_before_it_is_inverted(given):
    table = given.window().slice(0, 3)
    vectors = matrix(table["embedding"], 16).copy()
    vectors[1, 5] = np.inf
    place = table.column_names.index("embedding")
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=table.schema.field(place).type)
    broken = table.set_column(place, table.schema.field(place), column)
    found = InvertWindow(job_of(given.wish), None, None)(broken)
    assert found["id"].to_pylist() == table["id"].to_pylist()[::2]
    assert read_rejects(given.wish.out).rows == {table["id"][1].as_py(): "its own vector holds NaN or infinity"}


def test_a_window_whose_rows_are_all_done_gives_no_row(given):
    job = job_of(given.wish)
    found = EncodeHypotheses(job, None)(InvertWindow(job, None, None)(given.window().slice(0, 0)))
    assert len(found) == 0
    assert found.drop_columns(["split"]).schema.equals(corrections_schema(job.recipe, job.hypotheses))


def test_a_model_encodes_hypotheses_as_it_does_any_text_and_as_exactly_as_the_pairs_were(tmp_path):
    given = Given(tmp_path, OF_MINILM)
    job = job_of(given.wish)
    assert job.encoding.precision == "recipe"  # as the statistics of the pairs say
    invert, encode = InvertWindow(job, open_tokenizer(OF_MINILM), None), EncodeHypotheses(job, None)
    texts = ["anna paid ben three coins", "", "keys"]
    invert.invert = said(texts)
    found = encode(invert(given.window().slice(0, 3)))
    alone = open_encoder(OF_MINILM).encode([text or " " for text in texts])
    vectors = matrix(found["hypothesis_embedding"], 384).astype(np.float32)
    np.testing.assert_allclose(vectors, alone, rtol=2**-9, atol=1e-4)


def test_a_checkpoint_that_a_worker_cannot_load_is_told_with_the_first_window(given):
    job = job_of(given.wish)
    (given.checkpoint / "model.safetensors").write_bytes(b"no weights")
    stage = InvertWindow(job, None, None)  # Ray would hide what is raised here
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        stage(given.window())


# What is reserved


def nodes(monkeypatch, cpus, gpus):
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}}])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_an_inverter_and_an_encoder_share_a_gpu_and_a_server_needs_none(monkeypatch, tmp_path):
    nodes(monkeypatch, 8, 2)
    job = job_of(Given(tmp_path / "model", OF_MINILM).wish)
    job = replace(job, wish=replace(job.wish, device="cuda", workers=None))
    shares = [ModelPool(2, {"num_gpus": share, "num_cpus": 0}, None) for share in (0.6, 0.4)]  # no two inverters on one
    assert pools(job, 100) == tuple(shares)
    other = replace(job, recipe=job.recipe.model_copy(update={"encoder": HASH}))
    inverters, encoders = pools(other, 100)
    assert inverters.resources["num_gpus"] == 1 and encoders.workers == 1 and "num_gpus" not in encoders.resources


def test_gpus_that_are_not_there_are_refused_with_the_flag(given, monkeypatch):
    nodes(monkeypatch, 8, 0)
    job = job_of(replace(given.wish, device="cuda", workers=3))
    with pytest.raises(ValueError, match=r"--workers: device cuda with 3 worker\(s\), but this machine has 0 GPU"):
        pools(job, 100)


# A run


@pytest.fixture(scope="module")
def made(ray_cluster, tmp_path_factory):
    """A finished run, and the statistics that it returned."""
    given = Given(tmp_path_factory.mktemp("hypotheses"))
    return given, make_hypotheses(given.wish)


def test_every_text_for_correction_and_validation_is_there_once_with_its_own_hypothesis(made):
    given, stats = made
    inverter = load_inverter(given.checkpoint, precision="float32")
    for split, source in (("train", "correction"), ("validation", "validation")):
        found, pairs = read_corrections(given.wish.out, split), read_pairs(given.data, source)
        assert found.pairs.ids.tolist() == pairs.ids.tolist() and found.pairs.texts == pairs.texts
        np.testing.assert_array_equal(found.pairs.token_ids, pairs.token_ids)
        np.testing.assert_array_equal(found.pairs.embeddings, pairs.embeddings)
        assert found.hypotheses == [each.text for each in inverter.invert(pairs.embeddings, steps=2)]
        vectors = HashEncoder(HASH).encode([text or " " for text in found.hypotheses]).astype(np.float16)
        np.testing.assert_array_equal(found.hypothesis_embeddings, vectors)
        right = (found.hypothesis_ids == pairs.token_ids)[~np.isin(pairs.token_ids, (0, 1))]
        assert stats["recovered"][split]["token_accuracy"] == pytest.approx(right.mean(), abs=1e-4)
    assert stats["splits"] == {"train": SPLITS["correction"], "validation": SPLITS["validation"]}
    assert not (given.wish.out / "split=test").exists()


def test_the_folder_is_what_a_training_job_takes(made):
    given, stats = made
    out = given.wish.out
    require_finished(out)
    assert read_recipe(out) == read_recipe(given.data)
    assert read_hypotheses_recipe(out) == HypothesesRecipe(
        inverter="tiny", weights=weights_digest(given.checkpoint), strategy="confidence", steps=2, seed=0
    )
    assert stats == json.loads((out / "_stats.json").read_text()) and stats["dropped"] == {}
    assert identity_of(out)["train.ids"] == identity_of(given.data, ("correction",))["correction.ids"]
    kept = yaml.safe_load((out / "settings.yaml").read_text())
    assert kept["data"] == str(given.data) and kept["hypotheses"]["steps"] == 2
    assert require_provenance(out, "jobs/hypotheses.py")["settings"] == kept
    assert not progress_folder(out).exists()


def test_a_finished_run_is_not_done_again_and_says_what_comes_next(made, nothing_is_inverted, capsys):
    given, stats = made
    wish = given.wish
    where = ["--checkpoint", str(wish.checkpoint), "--data", str(wish.data), "--out", str(wish.out)]
    main([*where, "--steps", "2", "--precision", "float32"])
    told = capsys.readouterr().out
    assert f"all done before, {stats['rows']} hypotheses" in told
    assert f"of tokens recovered, {stats['recovered']['train']['exact_match']:.1%} whole texts" in told
    assert f"next: python jobs/train.py --config C --data {wish.out} --out {wish.out.parent / 'corrector'} " in told
    assert told.endswith("--set model.corrector=true\n")


def test_other_settings_and_other_inverters_are_refused_by_name(made, nothing_is_inverted, tmp_path):
    given, _ = made
    assert "was made with hypotheses.steps = 2, not 3" in given.refusal(steps=3)
    assert "was made with hypotheses.strategy = 'confidence', not 'euler'" in given.refusal(strategy="euler")
    assert "was made with precision = 'float32', not 'bfloat16'" in given.refusal(precision="bfloat16")
    tiny_checkpoint(tmp_path / "other", word_tokenizer(tmp_path / "words"), HASH, LENGTH, seed=1)
    assert "was made with hypotheses.weights = " in given.refusal(checkpoint=tmp_path / "other", assume_unseen=True)


def test_other_pairs_of_the_same_train_split_are_refused(made, nothing_is_inverted, tmp_path):
    given, _ = made
    fewer = shutil.copytree(given.data, tmp_path / "pairs")
    (fewer / "split=correction" / "b.parquet").unlink()
    assert "was made with pairs.correction.rows = 24, not 12" in given.refusal(data=fewer)


def test_pairs_are_not_encoded_into_a_folder_of_hypotheses(made):
    given, _ = made
    with pytest.raises(ValueError, match="holds no pairs of ours"):
        require_same_pairs(given.wish.out, read_recipe(given.data), {})


def test_overwrite_deletes_what_this_job_made_and_no_pairs(made, tmp_path):
    given, _ = made
    out = shutil.copytree(given.data, tmp_path / "other-pairs")
    (out / "_stats.json").write_text(json.dumps({"run": {"texts": "texts", "corpus": {}}}))
    with pytest.raises(ValueError, match=r"--overwrite would delete .*other-pairs, which another job made"):
        make_hypotheses(replace(given.wish, out=out), overwrite=True)
    assert list(out.glob("split=train/*.parquet"))


def test_overwrite_makes_them_anew(made, tmp_path):
    given, _ = made
    out = shutil.copytree(given.wish.out, tmp_path / "again")
    stats = make_hypotheses(replace(given.wish, out=out, steps=1), overwrite=True)
    assert stats["splits"] == {"train": SPLITS["correction"], "validation": SPLITS["validation"]}
    assert read_hypotheses_recipe(out).steps == 1


def test_a_trained_inverter_is_asked_about_texts_that_it_has_not_learnt_from_alone(tiny_run, tiny_pairs, tmp_path):
    """The checkpoint of a run of jobs/train.py says itself what it learnt from, and its encoder is a model."""
    run, _ = tiny_run
    data = shutil.copytree(tiny_pairs, tmp_path / "pairs")
    (data / "split=test").rename(data / "split=correction")
    out = tmp_path / "hypotheses"
    stats = make_hypotheses(Wish(run / "checkpoint", data, out, steps=2, precision="float32", workers=1))
    learnt = set(read_pairs(tiny_pairs, "train").ids.tolist())
    found = read_corrections(out, "train")
    assert len(found.pairs) == stats["splits"]["train"] > 0 and learnt.isdisjoint(found.pairs.ids.tolist())
    alone = open_encoder(read_recipe(data).encoder).encode([text or " " for text in found.hypotheses])
    cosines = (found.hypothesis_embeddings.astype(np.float32) * alone).sum(axis=1)
    assert cosines.min() > 0.999  # bfloat16 where the machine multiplies in it

    seen = shutil.copytree(data, tmp_path / "seen")
    extra = pq.read_table(next((seen / "split=correction").glob("*.parquet")), partitioning=None)
    pq.write_table(extra.slice(0, 5), seen / "split=train" / "more.parquet")
    with pytest.raises(ValueError, match="learnt from other texts than the train split"):
        make_hypotheses(Wish(run / "checkpoint", seen, tmp_path / "none"))

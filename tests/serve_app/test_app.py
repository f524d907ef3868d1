import json
import shutil

import pytest
import torch
from pydantic import ValidationError
from ray import serve

from embinv.calibration import weights_digest
from embinv.checkpoint import CheckpointConfig, load_checkpoint, read_checkpoint_config, save_checkpoint
from embinv.correcting import refined
from embinv.decoding.options import Choices, DecodingOptions
from embinv.encoders.base import open_encoder
from embinv.encoders.spec import EncoderSpec
from embinv.inverter import load_inverter
from embinv.models.warm_start import corrector_of
from embinv.trained_corrector import load_corrector
from serve_app.app import PROJECT_ROOT, AppArgs, build_app
from serve_app.schemas import Refinement
from tests.fakes import awaken

CHOICES = Choices(steps=4)

# The builder's arguments


def args_for(checkpoint, **changes):
    return AppArgs(**({"encoder": "minilm", "checkpoint": str(checkpoint)} | changes))


def test_an_unknown_argument_is_refused():
    with pytest.raises(ValidationError, match="max_batch"):
        args_for("x", max_batch=3)


def test_an_absent_checkpoint_is_named_with_the_path_that_was_tried():
    with pytest.raises(ValueError, match="make demo") as caught:
        build_app(args_for("runs/none/checkpoint"))
    assert str(PROJECT_ROOT / "runs/none/checkpoint") in str(caught.value)


def test_a_relative_checkpoint_does_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no config\.json") as caught:  # found, though it is no checkpoint
        build_app(args_for("serve_app"))
    assert str(PROJECT_ROOT / "serve_app") in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"encoder": "jina-v3"}, "encoder: 'jina-v3'.*'minilm'"), ({"dim": 768}, "dim: 768.*384 dimensions")],
)
def test_a_checkpoint_of_another_encoder_is_refused_by_field(tiny_checkpoint, changes, message):
    with pytest.raises(ValueError, match=message):
        build_app(args_for(tiny_checkpoint, **changes))


def test_requests_fit_at_least_one_full_batch(tiny_checkpoint):
    deployment = build_app(args_for(tiny_checkpoint, max_batch_size=48, threads=2))._bound_deployment
    assert deployment.max_ongoing_requests >= 2 * 48
    by_trial = build_app(args_for(tiny_checkpoint))._bound_deployment
    assert by_trial.max_ongoing_requests >= 2 * 32
    assert deployment.ray_actor_options["num_cpus"] == 2 and "num_gpus" not in deployment.ray_actor_options


def test_a_gpu_is_reserved_for_cuda_only(tiny_checkpoint):
    deployment = build_app(args_for(tiny_checkpoint, device="cuda"))._bound_deployment
    assert deployment.ray_actor_options["num_gpus"] == 1


def test_an_encoder_scales_by_its_own_arguments(tiny_checkpoint):
    changes = {"min_replicas": 0, "max_replicas": 3, "target_ongoing_requests": 5, "downscale_delay_s": 7}
    scaling = build_app(args_for(tiny_checkpoint, **changes))._bound_deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.initial_replicas) == (0, 3, 1)
    assert (scaling.target_ongoing_requests, scaling.downscale_delay_s) == (5, 7)
    by_default = args_for(tiny_checkpoint, max_batch_size=16).autoscaling()
    assert (by_default.min_replicas, by_default.max_replicas, by_default.target_ongoing_requests) == (1, 1, 16)


def test_fewer_replicas_at_most_than_at_least_are_refused():
    with pytest.raises(ValidationError, match="max_replicas is 1, below min_replicas, 2; raise it"):
        args_for("x", min_replicas=2)


@pytest.mark.parametrize("encode", [True, False])
def test_the_embedding_model_is_served_where_it_is_switched_on(tiny_checkpoint, encode):
    embedder = build_app(args_for(tiny_checkpoint, encode=encode))._bound_deployment.init_kwargs["embedder"]
    assert (embedder is not None) == encode
    if encode:
        recipe = EncoderSpec.model_validate_json(embedder._bound_deployment.init_kwargs["recipe"])
        assert recipe == read_checkpoint_config(tiny_checkpoint).pairs.encoder


@pytest.fixture(scope="module")
def tiny_corrector(tiny_checkpoint, tmp_path_factory):
    """A corrector that begins as the inverter, with weights moved so that what it says depends on all that it reads."""
    checkpoint, folder = load_checkpoint(tiny_checkpoint), tmp_path_factory.mktemp("corrector") / "checkpoint"
    model = awaken(corrector_of(checkpoint.model))
    config = CheckpointConfig(name="minilm", model=model.config, pairs=checkpoint.config.pairs, training={})
    save_checkpoint(folder, model, config, checkpoint.tokenizer, checkpoint.vocabulary)
    return folder


def test_a_corrector_is_one_of_this_encoder_and_needs_the_embedding_model(tiny_checkpoint, tiny_corrector, tmp_path):
    app = build_app(args_for(tiny_checkpoint, encode=True, corrector=str(tiny_corrector)))
    assert app._bound_deployment.init_kwargs["corrector"] == str(tiny_corrector)
    with pytest.raises(ValidationError, match="corrector: is asked by `refine` alone.*set encode: true"):
        args_for(tiny_checkpoint, corrector=str(tiny_corrector))
    with pytest.raises(ValueError, match=f"corrector {tiny_checkpoint}: holds an inverter"):
        build_app(args_for(tiny_checkpoint, encode=True, corrector=str(tiny_checkpoint)))
    with pytest.raises(ValueError, match="checkpoint: holds a corrector; name it as `corrector`"):
        build_app(args_for(tiny_corrector))
    with pytest.raises(ValueError, match="corrector: there is no folder"):
        build_app(args_for(tiny_checkpoint, encode=True, corrector="nowhere"))
    other = tmp_path / "other"
    shutil.copytree(tiny_corrector, other)
    tree = json.loads((other / "config.json").read_text())
    tree["pairs"]["encoder"]["prompt"] = "query: "
    (other / "config.json").write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=f"corrector {other}: is of other pairs than the inverter: encoder.prompt"):
        build_app(args_for(tiny_checkpoint, encode=True, corrector=str(other)))
    with pytest.raises(ValueError, match="holds a corrector; give an inverter here"):
        load_inverter(tiny_corrector)


# The replica, in this process


@pytest.fixture(scope="module")
def handle(tiny_checkpoint):
    yield serve.run(build_app(args_for(tiny_checkpoint, max_batch_size=8)), _local_testing_mode=True)


def asked(handle, vectors, choices=CHOICES, refine=False):
    answer = handle.invert.remote(vectors, choices, refine).result()
    return [json.loads(result) for result in answer.results]


def test_a_replica_gives_what_the_inverter_gives(handle, tiny_checkpoint, vectors):
    expected = load_inverter(tiny_checkpoint).invert(vectors, steps=4)
    found = asked(handle, vectors)  # 24 vectors, three batches
    assert [text["text"] for text in found] == [inversion.text for inversion in expected]
    assert [[token["id"] for token in text["tokens"]] for text in found] == [i.token_ids for i in expected]
    assert len({text["text"] for text in found}) > 1
    for text, inversion in zip(found, expected, strict=True):
        assert text["confidence"] == pytest.approx(inversion.confidence, abs=1e-4)
        sure = [token["confidence"] for token in text["tokens"]]
        assert sure == pytest.approx(inversion.token_confidence, abs=1e-4)
        assert text["probability"] is None and 1 <= text["steps"] <= 4


def test_concurrent_requests_of_different_steps_are_decoded_each_in_its_own_way(handle, tiny_checkpoint, vectors):
    inverter = load_inverter(tiny_checkpoint)
    wanted = [(vector[None], steps) for vector, steps in zip(vectors, [1, 2, 8] * 8, strict=True)]
    responses = [handle.invert.remote(vector, Choices(steps=steps), False) for vector, steps in wanted]
    found = [json.loads(response.result().results[0])["text"] for response in responses]
    assert found == [inverter.invert(vector, steps=steps)[0].text for vector, steps in wanted]
    assert found != [inverter.invert(vector, steps=4)[0].text for vector, _ in wanted]


def test_a_stream_ends_with_what_an_answer_is(handle, vectors):
    *seen, answer = handle.options(stream=True).watch.remote(vectors[:2], CHOICES, False)
    assert [json.loads(result) for result in answer.results] == asked(handle, vectors[:2])
    events = [json.loads(event.event) for event in seen]
    assert {event["index"] for event in events} == {0, 1}
    for row in (0, 1):
        own = [event for event in events if event["index"] == row]
        assert [event["step"] for event in own] == list(range(1, len(own) + 1)) and 1 < len(own) <= 4
        read = "".join(token["text"] for token in own[-1]["tokens"])
        assert read.strip() == json.loads(answer.results[row])["text"]
        assert any(token["text"] is None for token in own[0]["tokens"])


def test_a_replica_says_what_its_checkpoint_is(handle, tiny_checkpoint):
    described = handle.describe.remote().result()
    assert (described.dim, described.seq_len, described.max_tokens, described.encode) == (384, 8, 7, False)
    assert described.version == weights_digest(tiny_checkpoint)[:12] and described.figures == {"steps": 0}


@pytest.fixture(scope="module")
def refining(tiny_checkpoint):
    app = build_app(args_for(tiny_checkpoint, max_batch_size=8, encode=True))
    yield serve.run(app, name="refining", _local_testing_mode=True)


def test_candidates_are_chosen_by_the_embedding_model_as_by_the_library(refining, tiny_checkpoint, vectors):
    handle = refining
    choices = Choices("candidates", 4, 1, DecodingOptions(candidates=3))
    found = asked(handle, vectors[:4], choices, True)
    inverter = load_inverter(tiny_checkpoint)
    encoder = open_encoder(inverter.config.pairs.encoder)
    way = {"strategy": "candidates", "steps": 4, "seed": 1, "options": choices.options}
    expected = inverter.invert(vectors[:4], **way, encoder=encoder)
    assert [text["text"] for text in found] == [inversion.text for inversion in expected]
    assert [text["cosine"] for text in found] == pytest.approx([i.cosine for i in expected], abs=1e-4)
    assert [text["cosine"] for text in asked(handle, vectors[:4], choices)] == [None] * 4
    assert [text["encoder_calls"] for text in found] == [None] * 4


@pytest.mark.parametrize("choices", [CHOICES, Choices("candidates", 2, 3, DecodingOptions(candidates=3))])
def test_texts_of_any_strategy_are_refined_as_by_the_library(refining, tiny_checkpoint, vectors, choices):
    vectors, refinement = vectors[:2], Refinement(steps=2, beam=2)
    inverter = load_inverter(tiny_checkpoint, batch_size=8)
    encoder = open_encoder(inverter.config.pairs.encoder)
    if choices.strategy == "candidates":  # all of them are first hypotheses
        states = list(inverter.candidate_states(vectors, choices))
        candidates = inverter.read_candidates(states[-1])
        first = [candidates[:3], candidates[3:]]
    else:
        first = [[each] for each in inverter.invert(vectors, steps=choices.steps)]
    expected = refined(inverter, vectors, first, encoder, 2, 2, seed=choices.seed)
    found = asked(refining, vectors, choices, refinement)
    assert [text["text"] for text in found] == [each.text for each in expected]
    assert [text["cosine"] for text in found] == pytest.approx([each.cosine for each in expected], abs=1e-4)
    assert [text["encoder_calls"] for text in found] == [each.encoder_calls for each in expected]
    assert all(text["probability"] is None and text["steps"] >= 1 for text in found)
    unrefined = asked(refining, vectors, choices, Refinement(steps=0))
    assert all(now["cosine"] >= before["cosine"] for now, before in zip(found, unrefined, strict=True))
    assert [text["encoder_calls"] for text in unrefined] == [len({each.text for each in some}) for some in first]


def test_a_trained_corrector_refines_as_in_the_library(tiny_checkpoint, tiny_corrector, vectors):
    app = build_app(args_for(tiny_checkpoint, max_batch_size=8, encode=True, corrector=str(tiny_corrector)))
    handle = serve.run(app, name="correcting", _local_testing_mode=True)
    inverter = load_inverter(tiny_checkpoint, batch_size=8)
    encoder = open_encoder(inverter.config.pairs.encoder)
    corrector = load_corrector(tiny_corrector, inverter.config.pairs, batch_size=8).with_seed(CHOICES.seed)
    first = inverter.invert(vectors[:2], steps=CHOICES.steps)
    expected = refined(inverter, vectors[:2], [[each] for each in first], encoder, 2, 2, corrector)
    found = asked(handle, vectors[:2], CHOICES, Refinement(steps=2, beam=2))
    assert [text["text"] for text in found] == [each.text for each in expected]
    rewritten = refined(inverter, vectors[:2], [[each] for each in first], encoder, 2, 2)
    assert [each.text for each in rewritten] != [each.text for each in expected]


def test_a_stream_shows_the_passes_then_each_correction_then_the_answer(refining, vectors):
    vectors, refinement = vectors[:2], Refinement(steps=2, beam=2)
    *seen, answer = refining.options(stream=True).watch.remote(vectors, CHOICES, refinement)
    names = [event.name for event in seen]
    assert names == sorted(names, reverse=True) and set(names) == {"pass", "correction"}
    for row, result in enumerate(map(json.loads, answer.results)):
        own = [event for event in seen if event.row == row]
        assert [event.step for event in own] == list(range(1, len(own) + 1))
        corrections = [json.loads(event.event) for event in own if event.name == "correction"]
        assert [event["step"] for event in corrections] == list(range(len(corrections)))
        cosines = [event["cosine"] for event in corrections]
        assert cosines == sorted(cosines) and all(event["index"] == row for event in corrections)
        last = corrections[-1]
        assert {name: last[name] for name in ("text", "cosine", "encoder_calls")} == {
            name: result[name] for name in ("text", "cosine", "encoder_calls")
        }
        assert "".join(token["text"] for token in last["tokens"]).strip() == last["text"]


def test_a_broken_checkpoint_stops_the_start(tiny_checkpoint, tmp_path):
    broken = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        serve.run(build_app(args_for(broken)), name="broken", _local_testing_mode=True)


def test_a_checkpoint_is_checked_on_the_replica_too(tiny_checkpoint):
    app = build_app(args_for(tiny_checkpoint))
    app._bound_deployment.init_kwargs["dim"] = 768  # as if this node had another folder at the same path
    with pytest.raises(ValueError, match="dim: 768"):
        serve.run(app, name="other", _local_testing_mode=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_is_refused_where_there_is_none(tiny_checkpoint):
    with pytest.raises(ValueError, match="device: cuda, but this node has no CUDA device"):
        serve.run(build_app(args_for(tiny_checkpoint, device="cuda")), name="gpu", _local_testing_mode=True)

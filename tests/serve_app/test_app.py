import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from pydantic import ValidationError
from ray import serve

from embinv.inverter import load_inverter
from serve_app.app import PROJECT_ROOT, AppArgs, build_app
from serve_app.deployments import Decoding, Item, group_rows
from serve_app.ingress import build_ingress
from serve_app.schemas import RecoveredText

PREFIX = "/invert/fake"


# The ingress, over an inverter that needs no model


class EchoInverter:
    model, encoder, dim = "fake", "a fake encoder", 3

    async def invert(self, vectors, strategy, steps, seed):
        return [
            RecoveredText(text=f"{vector.tolist()} {strategy} {steps} {seed}", confidence=1.0, tokens=[])
            for vector in vectors
        ]


@pytest.fixture(scope="module")
def client():
    # As Serve does it: the application sits under its route prefix.
    return TestClient(build_ingress(EchoInverter()), root_path=PREFIX, follow_redirects=False)


@pytest.mark.parametrize("path", [PREFIX, PREFIX + "/"])
def test_both_spellings_of_the_path_are_answered_without_a_redirect(client, path):
    response = client.post(path, json={"embedding": [1, 2, 3], "steps": 2, "seed": 5})
    assert response.status_code == 200
    body = response.json()
    assert body["results"] == [{"text": "[1.0, 2.0, 3.0] confidence 2 5", "confidence": 1.0, "tokens": []}]
    assert (body["model"], body["encoder"]) == ("fake", "a fake encoder")
    assert body["milliseconds"] >= 0


def test_the_content_type_is_not_asked_for(client):
    headers = {"content-type": "application/x-www-form-urlencoded"}  # what `curl -d` sends
    assert client.post(PREFIX, content=b'{"embedding": [1, 2, 3]}', headers=headers).status_code == 200


@pytest.mark.parametrize("body", [b"", b'{"embedding": [1, NaN, 3]}', b'{"embedding": [1, 2]}', b'{"vector": 1}'])
def test_a_wrong_body_is_422_with_a_sentence(client, body):
    response = client.post(PREFIX, content=body)
    assert response.status_code == 422
    assert list(response.json()) == ["detail"]
    assert "send" in response.json()["detail"]


def test_a_fault_of_ours_is_not_blamed_on_the_caller():
    class Broken(EchoInverter):
        async def invert(self, vectors, strategy, steps, seed):
            raise ValueError("a bug")

    client = TestClient(build_ingress(Broken()), root_path=PREFIX, raise_server_exceptions=False)
    assert client.post(PREFIX, json={"embedding": [1, 2, 3]}).status_code == 500


def test_healthz_says_what_is_loaded(client):
    assert client.get(PREFIX + "/healthz").json() == {
        "status": "ok",
        "model": "fake",
        "encoder": "a fake encoder",
        "dim": 3,
    }


def test_the_documentation_describes_the_body(client):
    document = client.get(PREFIX + "/openapi.json").json()
    (path,) = [path for path in document["paths"] if "post" in document["paths"][path]]
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"embedding", "embeddings", "steps"} <= set(schema["properties"])


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
    app = build_app(args_for(tiny_checkpoint, max_batch_size=48, threads=2))
    deployment = app._bound_deployment
    assert deployment.max_ongoing_requests >= 48
    assert deployment.ray_actor_options["num_cpus"] == 2 and "num_gpus" not in deployment.ray_actor_options


def test_a_gpu_is_reserved_for_cuda_only(tiny_checkpoint):
    deployment = build_app(args_for(tiny_checkpoint, device="cuda"))._bound_deployment
    assert deployment.ray_actor_options["num_gpus"] == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_is_refused_where_there_is_none(tiny_checkpoint):
    with pytest.raises(ValueError, match="device: cuda, but this node has no CUDA device"):
        serve.run(build_app(args_for(tiny_checkpoint, device="cuda")), name="gpu", _local_testing_mode=True)


# The replica, in this process


@pytest.fixture(scope="module")
def handle(tiny_checkpoint):
    app = build_app(args_for(tiny_checkpoint, max_batch_size=8, batch_wait_s=0.05))
    with pytest.MonkeyPatch.context() as patch:
        # Serve's batch queue asks for the limit of its replica, which local testing mode does not know.
        settings = SimpleNamespace(max_ongoing_requests=app._bound_deployment.max_ongoing_requests)
        patch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(_deployment_config=settings))
        yield serve.run(app, _local_testing_mode=True)


def ask(handle, vectors, steps=4, seed=0):
    return handle.invert.remote(vectors, "confidence", steps, seed)


def test_a_replica_gives_what_the_inverter_gives(handle, tiny_checkpoint, vectors):
    expected = load_inverter(tiny_checkpoint).invert(vectors, steps=4)
    found = ask(handle, vectors).result()  # 24 vectors, three batches
    assert [text.text for text in found] == [inversion.text for inversion in expected]
    assert [[token.id for token in text.tokens] for text in found] == [i.token_ids for i in expected]
    assert len({text.text for text in found}) > 1
    assert all(0 < token.confidence <= 1 for text in found for token in text.tokens)


def test_concurrent_requests_of_different_steps_are_decoded_each_in_its_own_way(handle, tiny_checkpoint, vectors):
    inverter = load_inverter(tiny_checkpoint)
    wanted = [(vector[None], steps) for vector, steps in zip(vectors, [1, 2, 8] * 8, strict=True)]
    responses = [ask(handle, vector, steps) for vector, steps in wanted]
    found = [response.result()[0].text for response in responses]
    assert found == [inverter.invert(vector, steps=steps)[0].text for vector, steps in wanted]
    assert found != [inverter.invert(vector, steps=4)[0].text for vector, _ in wanted]


def test_vectors_of_many_requests_go_through_the_model_together(handle, monkeypatch, vectors):
    # The replica lives in this process, so what reaches the model can be watched.
    import embinv.inverter

    sizes = []
    invert = embinv.inverter.DiffusionInverter.invert
    monkeypatch.setattr(
        embinv.inverter.DiffusionInverter,
        "invert",
        lambda self, rows, **choices: sizes.append(len(rows)) or invert(self, rows, **choices),
    )
    responses = [ask(handle, vector[None]) for vector in vectors]
    [response.result() for response in responses]
    assert sum(sizes) == len(vectors) and max(sizes) == 8


def test_a_batch_is_grouped_by_the_way_of_decoding():
    vector = np.zeros(3, dtype=np.float32)
    few, many = Decoding("confidence", 2, 0), Decoding("confidence", 8, 0)
    assert group_rows([Item(vector, few), Item(vector, many), Item(vector, few)]) == {few: [0, 2], many: [1]}


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

"""`serve run` and `serve deploy` with the shipped config.yaml, its checkpoint and port replaced by the test's own."""

import datetime
import ipaddress
import json
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.ports import free_ports
from serve_app.app import PROJECT_ROOT
from serve_app.keys import key_hash, new_key
from tests.serve_app.programs import ANSWER_S, BIN, READY_S, environment_for, head_node, poll, running

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def ray_folder():
    """Ray's own folder: so that no cluster of somebody else is found. Short, since it holds Unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="serve", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def environment(ray_folder):
    return environment_for(ray_folder)


def config_for(checkpoint, folder, port, gateway=None, **http_options):
    tree = yaml.safe_load((PROJECT_ROOT / "serve_app" / "config.yaml").read_text(encoding="utf-8"))
    door, encoder = tree["applications"]
    door["args"] |= gateway or {}
    encoder["args"] |= {"checkpoint": str(checkpoint), "encode": False}
    tree["http_options"] |= {"port": port, **http_options}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path, f"http://127.0.0.1:{port}/invert/minilm"


def answer(url, vector, **options):
    try:
        response = httpx.post(url, json={"embedding": vector.tolist()}, trust_env=False, timeout=ANSWER_S, **options)
    except httpx.TransportError:
        return None
    return response if response.status_code == 200 else None


def assert_inverted(response, url):
    (result,) = response.json()["results"]
    assert result["text"] and 0 < result["confidence"] <= 1
    refused = httpx.post(url, content=b"", trust_env=False, timeout=ANSWER_S)
    assert refused.status_code == 422 and "send" in refused.json()["detail"]


@pytest.mark.nightly  # the next one runs it too
def test_serve_run_answers(tiny_checkpoint, vectors, environment, tmp_path):
    config, url = config_for(tiny_checkpoint, tmp_path, *free_ports(1))
    log = tmp_path / "serve.log"
    own_ray = environment | {"RAY_ADDRESS": "local"}
    with running([BIN / "serve", "run", config], own_ray, log) as process:
        response = poll(lambda: answer(url, vectors[0]), process, log)
        assert_inverted(response, url)
    assert answer(url, vectors[0]) is None


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy (Debian: haproxy)")
def test_behind_haproxy_and_with_the_environment_of_serving_it_answers_the_same(
    tiny_checkpoint, vectors, environment, tmp_path
):
    http, metrics, statistics = free_ports(3)
    config, url = config_for(tiny_checkpoint, tmp_path, http)
    lines = (PROJECT_ROOT / "cluster" / "serve.env").read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory(prefix="ha", dir="/tmp") as folder:  # short: it holds Unix sockets
        own = environment | dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        own |= {
            "RAY_ADDRESS": "local",
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(PROJECT_ROOT / "cluster" / "haproxy"),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        }
        log = tmp_path / "serve.log"
        with running([BIN / "serve", "run", config], own, log) as process:
            response = poll(lambda: answer(url, vectors[0]), process, log)
            assert_inverted(response, url)
            body = {"embedding": vectors[0].tolist()}
            with httpx.stream("POST", url + "/stream", json=body, trust_env=False, timeout=ANSWER_S) as got:
                assert "event: result" in "".join(got.iter_text())
            listening = {(laddr.ip, laddr.port) for laddr in (c.laddr for c in psutil.net_connections("tcp")) if laddr}
            for port in (http, metrics, statistics):
                assert [ip for ip, number in listening if number == port] == ["127.0.0.1"]


def certificate(folder):
    """A key and a certificate of this machine, signed by itself."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "embinv test")])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, *form))
    (folder / "cert.pem").write_bytes(signed.public_bytes(pem))
    return {"ssl_keyfile": str(folder / "key.pem"), "ssl_certfile": str(folder / "cert.pem")}


def test_with_keys_and_tls_it_listens_to_others_and_a_key_is_revoked_while_it_runs(
    tiny_checkpoint, vectors, environment, tmp_path
):
    key, keys = new_key(), tmp_path / "keys.txt"
    keys.write_text(f"ci {key_hash(key)}\n", encoding="utf-8")
    tls, log_file = certificate(tmp_path), tmp_path / "access.jsonl"
    gateway = {"keys_file": str(keys), "access_log": str(log_file)}
    (port,) = free_ports(1)
    config, url = config_for(tiny_checkpoint, tmp_path, port, gateway, host="0.0.0.0", **tls)
    url = url.replace("http:", "https:")
    own = {"verify": ssl.create_default_context(cafile=tls["ssl_certfile"])}
    bearer = own | {"headers": {"authorization": f"Bearer {key}"}}
    log = tmp_path / "serve.log"
    with running([BIN / "serve", "run", config], environment | {"RAY_ADDRESS": "local"}, log) as process:
        response = poll(lambda: answer(url, vectors[0], **bearer), process, log)
        assert response.headers["strict-transport-security"]
        refused = httpx.post(url, json={"embedding": vectors[0].tolist()}, trust_env=False, timeout=ANSWER_S, **own)
        assert refused.status_code == 401
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, trust_env=False, timeout=ANSWER_S)  # a certificate that nobody vouched for
        keys.write_text("# nobody\n", encoding="utf-8")
        poll(lambda: answer(url, vectors[0], **bearer) is None, process, log)
    lines = [json.loads(line) for line in log_file.read_text(encoding="utf-8").splitlines()]
    assert {(line["key"], line["status"]) for line in lines if line["encoder"]} >= {("ci", 200), (None, 401)}
    assert key not in log_file.read_text(encoding="utf-8") + log.read_text(encoding="utf-8")


def test_without_keys_it_refuses_to_listen_to_others(tiny_checkpoint, vectors, environment, tmp_path):
    config, url = config_for(tiny_checkpoint, tmp_path, *free_ports(1), host="0.0.0.0")
    log = tmp_path / "serve.log"
    refusal = "http_options.host is 0.0.0.0, which others can reach, and there are no API keys; set keys_file"
    with running([BIN / "serve", "run", config], environment | {"RAY_ADDRESS": "local"}, log) as process:
        poll(lambda: refusal in " ".join(log.read_text(encoding="utf-8").split()), process, log)
        assert answer(url, vectors[0]) is None


@pytest.fixture(scope="module")
def cluster(environment, ray_folder, tmp_path_factory):
    """A head node of our own: the address of its dashboard, its process and log, a free port for Serve."""
    log = tmp_path_factory.mktemp("cluster") / "ray.log"
    with head_node(environment, ray_folder, log) as (address, process, http):
        yield address, process, log, http


def serve(command, address, environment, *arguments):
    return subprocess.run(
        [BIN / "serve", command, "--address", address, *arguments],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=READY_S,
        check=True,
    ).stdout


def application(address):
    response = httpx.get(f"{address}/api/serve/applications/", trust_env=False, timeout=ANSWER_S)
    return response.json()["applications"].get("minilm", {}) if response.is_success else {}


def test_serve_deploy_answers_once_running(cluster, tiny_checkpoint, vectors, environment, tmp_path):
    address, process, log, port = cluster
    config, url = config_for(tiny_checkpoint, tmp_path, port)
    serve("deploy", address, environment, str(config))
    poll(lambda: application(address).get("status") == "RUNNING", process, log)
    assert "RUNNING" in serve("status", address, environment)
    assert_inverted(poll(lambda: answer(url, vectors[0]), process, log), url)


@pytest.mark.nightly  # test_deploy_cluster.py sees deployments fail
def test_a_deploy_without_its_checkpoint_fails_with_the_path_that_was_tried(cluster, environment, tmp_path):
    address, process, log, port = cluster
    config, _ = config_for(tmp_path / "none", tmp_path, port)
    serve("deploy", address, environment, str(config))  # exits 0, as Serve does
    poll(lambda: application(address).get("status") == "DEPLOY_FAILED", process, log)
    message = application(address)["message"]
    assert str(tmp_path / "none") in message and "make demo" in message

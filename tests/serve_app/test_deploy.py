"""`python -m serve_app.deploy`: what it waits for, what it takes for a failure, and how it says so."""

import subprocess
import sys

import httpx
import pytest
import yaml

from benchmarks.ports import free_ports
from serve_app import deploy as module
from serve_app.dashboard import Dashboard, Unreachable
from serve_app.deploy import Failed, deploy, main, reason
from tests.serve_app.programs import environment_for
from tests.serve_app.small_app import config_of

TREE = {"applications": [{"name": "a", "import_path": "x:y", "args": {"n": 1}}]}
MADE_UP = "ValueError: dim: 3, but it takes 384"
TRACEBACK = f"""Deploying app 'a' failed with exception:
Traceback (most recent call last):
  File "/x/ray/serve/api.py", line 10, in build
    return function(args)
           ^^^^^^^^^^^^^^
  File "/x/serve_app/app.py", line 1, in build_app
    require(args)
{MADE_UP}
  give another
"""


class Said(list):
    """What a deployment says, line by line."""

    __call__ = list.append


class Scripted:
    """A dashboard that gives prepared answers, one a question; the last one again and again."""

    def __init__(self, *answers):
        self.answers, self.sent, self.was_put = list(answers), [], False

    def details(self):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def put(self, config, timeout_s):
        self.sent.append(config)


def application(status, at, message="", deployments=None, **more):
    return {"status": status, "last_deployed_time_s": at, "message": message, "deployments": deployments or {}} | more


def deployment(status="HEALTHY", running=1, target=1, message=""):
    replicas = [{"state": "RUNNING"}] * running
    return {"status": status, "message": message, "target_num_replicas": target, "replicas": replicas}


def details(**applications):
    return {"applications": applications, "proxies": {}}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.01)


def followed(*answers, tree=TREE, timeout_s=5):
    said, dashboard = Said(), Scripted(*answers)
    deploy(tree, dashboard, timeout_s, said)
    assert dashboard.sent == [tree]
    return said


# What is waited for


def test_an_answer_about_the_config_before_is_not_taken_for_the_new_one():
    old = details(a=application("RUNNING", 1.0))
    new = details(a=application("DEPLOYING", 2.0)), details(a=application("RUNNING", 2.0))
    assert followed(old, old, old, *new) == ["a: waiting", "a: DEPLOYING", "a: RUNNING"]


def test_an_old_failure_is_not_taken_for_a_new_one():
    old = details(a=application("DEPLOY_FAILED", 1.0, "bad"))
    assert followed(old, old, details(a=application("RUNNING", 2.0)))[-1] == "a: RUNNING"


def test_every_application_must_run():
    tree = {"applications": [*TREE["applications"], {"name": "b", "import_path": "x:y"}]}
    answers = (
        details(a=application("RUNNING", 2.0)),
        details(a=application("RUNNING", 2.0), b=application("DEPLOYING", 2.0)),
        details(a=application("RUNNING", 2.0), b=application("RUNNING", 2.0)),
    )
    said = followed(details(), *answers, tree=tree)
    assert said == ["a: RUNNING", "b: waiting", "b: DEPLOYING", "b: RUNNING"]


def test_progress_is_one_line_a_change():
    starting = details(a=application("DEPLOYING", 2.0, deployments={"Model": deployment("UPDATING", 0, 2)}))
    half = details(a=application("DEPLOYING", 2.0, deployments={"Model": deployment("UPDATING", 1, 2)}))
    ready = details(a=application("RUNNING", 2.0, deployments={"Model": deployment("HEALTHY", 2, 2)}))
    said = followed(details(), starting, starting, half, half, ready)
    assert said == ["a: DEPLOYING (Model 0/2)", "a: DEPLOYING (Model 1/2)", "a: RUNNING (Model 2/2)"]


def test_a_dashboard_that_is_away_for_a_moment_is_waited_for():
    ready = details(a=application("RUNNING", 2.0))
    said = followed(details(), Unreachable("gone"), Unreachable("gone"), ready)
    assert said == ["waiting: gone", "a: RUNNING"]


def test_replicas_that_serve_kept_are_said():
    kept = application("RUNNING", 1.0, deployed_app_config=TREE["applications"][0])
    said = followed(details(a=kept), details(a=kept | {"last_deployed_time_s": 2.0}))
    assert "its replicas were kept; new files need a new path" in said[-1]


def test_an_application_that_will_be_removed_is_named():
    before = details(
        old=application("RUNNING", 1.0, source="declarative"), other=application("RUNNING", 1.0, source="x")
    )
    said = followed(before, details(a=application("RUNNING", 2.0)))
    assert said[0] == "old: will be removed, since the file does not name it" and "other" not in "".join(said)


# What is a failure


def test_a_builder_that_fails_gives_its_last_words_without_the_traceback():
    with pytest.raises(Failed) as caught:
        followed(details(), details(a=application("DEPLOY_FAILED", 2.0, TRACEBACK)))
    assert str(caught.value) == f"a: {MADE_UP}\n  give another"


def test_a_replica_that_fails_gives_its_last_words():
    broken = {"Model": deployment("DEPLOY_FAILED", 0, 1, TRACEBACK), "Fine": deployment(message="all is well")}
    failed = application("DEPLOY_FAILED", 2.0, "Failed to update the deployments ['Model'].", broken)
    with pytest.raises(Failed) as caught:
        followed(details(), details(a=failed))
    assert str(caught.value) == f"a: Failed to update the deployments ['Model']. Model: {MADE_UP}\n  give another"


def test_time_that_is_up_names_who_does_not_run_and_why():
    slow = {"Model": deployment("UPDATING", 0, 1, "no node has 8 CPUs")}
    with pytest.raises(Failed, match=r"time is up, and not RUNNING: a \(a: Model: no node has 8 CPUs\)"):
        followed(details(), details(a=application("DEPLOYING", 2.0, deployments=slow)), timeout_s=0.05)


def test_a_config_that_serve_refuses_is_a_failure(monkeypatch):
    def refuse(self, config, timeout_s):
        raise ValueError(TRACEBACK)

    monkeypatch.setattr(Scripted, "put", refuse)
    with pytest.raises(Failed, match=f"Serve refused the config: {MADE_UP}"):
        followed(details())


def test_other_http_options_than_those_it_listens_with_are_refused_before_anything_is_sent():
    running = details() | {"http_options": {"host": "127.0.0.1", "port": 8000}, "proxies": {"x": {}}}
    running["proxy_location"] = "EveryNode"
    tree = TREE | {"http_options": {"host": "127.0.0.1", "port": 8001}}
    dashboard = Scripted(running)
    with pytest.raises(ValueError, match=r"http_options.port: 8001, but Serve runs .* with 8000 .*serve shutdown"):
        deploy(tree, dashboard, 1, Said())
    with pytest.raises(ValueError, match=r"http_options.host: 0.0.0.0, but"):
        deploy(TREE, dashboard, 1, Said())
    assert dashboard.sent == []


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("two\n\nlines\n", "two\nlines"),
        ("\x1b[36mray::x\x1b[39m \x07said\x9b", "ray::x  said"),
        ('a\n  File "x", line 1\n    code', ""),
        (
            '  File "x", line 1\n    code\n    ~~^\nE: first\n\nduring\n  File "y", line 2, in f\n    c\nF: last',
            "F: last",
        ),
        ("\n".join(map(str, range(20))), "\n".join(map(str, range(12, 20)))),
    ],
)
def test_a_reason_is_what_the_last_exception_says(message, expected):
    assert reason(message) == expected


# The command, without a cluster


@pytest.fixture
def config(tmp_path):
    return config_of(tmp_path, {"text": "hello"})


def test_a_dry_run_prints_what_would_be_sent_and_sends_nothing(config, capsys):
    assert main([str(config), "--dry-run", "--address", "http://127.0.0.1:1"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(config.read_text())


def test_a_wrong_file_is_one_sentence_and_status_2(config, tmp_path, capsys):
    for file in (config_of(tmp_path, {"txt": "hello"}), tmp_path / "none.yaml", tmp_path):
        assert main([str(file)]) == 2
        shown = capsys.readouterr()
        assert shown.out == "" and shown.err.count("\n") == 1 and str(file) in shown.err


def test_an_open_address_is_refused_unless_insecure(tmp_path, capsys):
    file = config_of(tmp_path, {"text": "hello"})
    file.write_text(file.read_text().replace("127.0.0.1", "0.0.0.0"))
    assert main([str(file), "--dry-run"]) == 2
    assert "no API key is asked for" in capsys.readouterr().err
    assert main([str(file), "--dry-run", "--insecure"]) == 0


def test_no_cluster_is_one_sentence_and_status_1(config, capsys):
    assert main([str(config), "--address", f"http://127.0.0.1:{free_ports(1)[0]}"]) == 1
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "ray://x:1", "auto", ""])
def test_another_address_than_the_dashboards_is_refused(config, capsys, address):
    assert main([str(config), "--address", address]) == 2
    assert "http://127.0.0.1:8265" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "nan", "inf"])
def test_a_timeout_that_is_none_is_refused(config, capsys, seconds):
    with pytest.raises(SystemExit) as caught:
        main([str(config), "--timeout", seconds])
    assert caught.value.code == 2 and "no number of seconds" in capsys.readouterr().err


def test_an_interrupt_says_that_the_deployment_goes_on(config, capsys, monkeypatch):
    def interrupted(tree, dashboard, timeout_s, say):
        dashboard.was_put = next(sent)
        raise KeyboardInterrupt

    sent = iter([False, True])
    monkeypatch.setattr(module, "deploy", interrupted)
    assert main([str(config)]) == 130
    assert "nothing was sent" in capsys.readouterr().err
    assert main([str(config)]) == 130
    assert "the deployment goes on" in capsys.readouterr().err


def answering(status, text):
    dashboard = Dashboard("http://127.0.0.1:8265/")
    dashboard._client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(status, text=text)))
    return dashboard


@pytest.mark.parametrize(
    ("status", "text", "error", "said"),
    [
        (401, "", ValueError, "RAY_AUTH_TOKEN"),
        (403, "", ValueError, "RAY_AUTH_TOKEN"),
        (400, "no such key", ValueError, "no such key"),
        (503, "later", Unreachable, "503: later"),
        (200, "<html>", ValueError, "not Ray's dashboard"),
        (200, "[]", ValueError, "not Ray's dashboard"),
    ],
)
def test_what_the_dashboard_refuses_is_said(status, text, error, said):
    with pytest.raises(error, match=said):
        answering(status, text).details()


def in_another_process(code, **environment):
    kept = environment_for("/tmp") | {"HOME": "/nowhere"} | environment
    return subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True)


ASK = "from serve_app.dashboard import Dashboard; print(Dashboard('http://127.0.0.1:1')._client.headers)"


def test_the_token_is_shown_where_ray_asks_for_one(tmp_path):
    (tmp_path / "token").write_text("from-a-file")
    from_variable = in_another_process(ASK, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="from-a-variable")
    from_file = in_another_process(ASK, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))
    assert "authorization" in from_variable.stdout and "authorization" in from_file.stdout
    assert "authorization" not in in_another_process(ASK, RAY_AUTH_TOKEN="x").stdout


def test_a_token_that_is_nowhere_is_said_in_a_sentence(config):
    code = f"import sys, serve_app.deploy; sys.exit(serve_app.deploy.main([{str(config)!r}]))"
    ended = in_another_process(code, RAY_AUTH_MODE="token")
    assert ended.returncode == 2 and "Traceback" not in ended.stderr and "~/.ray/auth_token" in ended.stderr

"""cluster/haproxy: what it makes of a configuration as Ray writes it."""

import os
import subprocess
from pathlib import Path

import pytest
from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

ROOT = Path(__file__).resolve().parents[2]

WRITTEN = """global
    maxconn 4096
defaults
    errorfile 502 /tmp/500.http
    errorfile 503 /tmp/500.http
    timeout server 10s
frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind *:8000
    bind 127.0.0.1:8001
listen stats
  bind *:8404
  stats enable
"""


@pytest.fixture
def mended(tmp_path):
    """What HAProxy is started with, and its arguments."""
    config, programs = tmp_path / "haproxy.cfg", tmp_path / "bin"
    tmp_path.chmod(0o755)
    config.write_text(WRITTEN, encoding="utf-8")
    programs.mkdir()
    program = programs / "haproxy"
    program.write_text('#!/bin/sh\necho "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    command = [ROOT / "cluster" / "haproxy", "-db", "-f", config, "-sf", "17"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=20).stdout
    return config.read_text(encoding="utf-8"), said


def test_metrics_and_statistics_listen_on_this_machine_alone(mended):
    text, _ = mended
    assert "bind 127.0.0.1:9101" in text and "bind 127.0.0.1:8404" in text
    assert ":9101\n" not in text.replace("127.0.0.1:9101", "") and "*:8404" not in text


def test_the_served_port_and_all_else_is_left(mended):
    text, _ = mended
    assert "    bind *:8000\n    bind 127.0.0.1:8001\n" in text and "    timeout server 10s\n" in text


def test_what_it_answers_itself_is_not_made_a_500(mended):
    assert "errorfile" not in mended[0]


def test_its_folder_is_this_users_alone(mended, tmp_path):
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_its_arguments_are_passed_on(mended):
    assert mended[1].startswith("-db -f ") and mended[1].endswith("haproxy.cfg -sf 17\n")


def test_ray_still_writes_what_is_mended():
    for line in (
        "frontend prometheus\n    bind :{{ config.metrics_port }}",
        "listen stats\n  bind *:{{ config.stats_port }}",
        "    errorfile 503 ",
        "frontend http_frontend\n    bind {{ config.frontend_host }}:",
    ):
        assert line in HAPROXY_CONFIG_TEMPLATE

"""benchmarks/serve*.py: what counts as what; no server is started here."""

import itertools
import json
import sys

import pytest

from benchmarks import serve
from benchmarks.serve_capacity import batches_of, latencies_of
from benchmarks.serve_changes import goes_through, steps_of
from benchmarks.serve_hey import Row, parse_hey, rate_of, statuses_of
from benchmarks.serve_killed import first_answer_after, lost_and_wrong
from benchmarks.serve_load import Answer, arrivals, counted, failures
from benchmarks.serve_overload import is_seconds, probes_p50, recovered_after
from benchmarks.serve_percentile import percentile
from benchmarks.serve_server import read_environment

HEY = """response-time,DNS+dialup,DNS,Request-write,Response-delay,Response-read,status-code,offset
0.5000,0.0,0.0,0.0,0.5,0.0,200,3.0000
0.2000,0.0,0.0,0.0,0.2,0.0,200,0.1000
0.1000,0.0,0.0,0.0,0.1,0.0,429,4.0000
2.0000,0.0,0.0,0.0,2.0,0.0,200,9.5000
"""


def answer(body=0, sent=0.0, took=1.0, status=200, due=None, **rest):
    return Answer(body, sent if due is None else due, sent, sent + took, status, **rest)


def test_a_percentile_is_one_of_the_values_by_its_rank():
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, share) for share in (1, 20, 21, 50, 99, 100)] == [1, 1, 2, 3, 5, 5]
    assert percentile(range(1, 201), 99) == 198
    with pytest.raises(ValueError, match="nothing was answered"):
        percentile([], 50)
    with pytest.raises(ValueError, match="share"):
        percentile([1.0], 0)


def test_heys_table_is_read_in_the_order_sent_and_statuses_are_counted():
    rows = parse_hey(HEY)
    assert [row.sent for row in rows] == [0.1, 3.0, 4.0, 9.5]
    assert statuses_of(rows) == {"200": 3, "429": 1}
    with pytest.raises(ValueError, match="hey printed"):
        parse_hey("Summary:\n  Total: 1 s\n")


def test_a_rate_is_clients_over_the_time_of_an_answer_without_each_ones_first():
    batches = [Row(0, 1, 200), Row(0, 3, 200), Row(1, 2, 200), Row(3, 2, 200), Row(3, 2, 200)]
    assert rate_of(batches, clients=2) == 1.0
    assert rate_of(batches[:2], clients=2) == 0.0  # nobody was answered twice


def test_batches_are_told_by_what_their_answers_have_in_common():
    first, second, third, last = (
        [answer(sent=0.0, took=end, model_ms=model_ms)] * rows
        for end, model_ms, rows in ((1.0, 900.0, 1), (3.0, 1800.0, 31), (4.0, 700.5, 5), (9.0, 20.0, 2))
    )
    found = batches_of([*third, *first, *last, answer(status=429), *second])
    assert found == {"mean_batch": 18.0, "model_at_work": round(2.5005 / 3.0, 3)}
    assert batches_of([*first, *second]) == {}


def test_a_late_generator_does_not_make_a_server_fast():
    assert answer(due=1.0, sent=3.0, took=0.5).took == 2.5
    found = latencies_of([answer(took=0.1), answer(took=0.3), answer(status=429), answer(status=0)])
    assert found["p50_ms"] == pytest.approx(100) and found["p99_over_p50"] == pytest.approx(3)
    assert found["not_200"] == 2


def test_arrivals_come_at_the_rate_within_the_time_and_know_nothing_of_each_other():
    times = arrivals(50.0, 200.0)
    assert times == sorted(times) and times[0] > 0 and times[-1] < 200
    assert len(times) == pytest.approx(10_000, rel=0.05)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert sum(gap > 1 / 50 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)  # 1/e
    assert arrivals(50.0, 200.0, seed=1) != times == arrivals(50.0, 200.0)


def test_answers_are_counted_by_status_and_failures_by_problem():
    answers = [answer(), answer(status=429), answer(status=0, problem="reset"), answer()]
    assert counted(answers) == {"200": 2, "429": 1, "reset": 1}


def test_what_failed_says_why_unless_it_was_expected():
    answers = [answer(), answer(status=429, problem="full"), answer(status=500, problem="oops")]
    assert failures(answers) == {"429: full": 1, "500: oops": 1}
    assert failures(answers, {200, 429}) == {"500: oops": 1}


def test_recovery_counts_to_the_end_of_the_first_window_whose_median_is_back():
    slow = [answer(sent=float(second), took=0.9) for second in range(3)]
    refused = [answer(sent=3.0, took=0.01, status=429)]
    fast = [answer(sent=4.0 + second, took=0.1) for second in range(5)]
    assert recovered_after(slow + refused, 0.0, 0.15) is None
    assert recovered_after(slow + refused + fast, 0.0, 0.15) == pytest.approx(6.1)  # 3 of these 5 are fast
    assert recovered_after([*slow, *fast[:2]], 0.0, 0.15) is None


def test_an_idle_server_that_refuses_is_no_measure():
    assert probes_p50([answer(took=0.1), answer(took=0.3), answer(took=0.2)]) == pytest.approx(0.2)
    with pytest.raises(RuntimeError, match="429"):
        probes_p50([answer(), answer(status=429)])


@pytest.mark.parametrize(("value", "right"), [("1", True), ("30", True), ("0", False), ("soon", False), (None, False)])
def test_retry_after_is_whole_seconds(value, right):
    assert is_seconds(value) is right


def test_only_a_request_sent_after_the_kill_shows_that_the_server_is_back():
    before, after = answer(sent=9.0, took=2.0), answer(sent=10.5, took=4.0)
    assert first_answer_after([before, answer(sent=10.1, status=503)], 10.0) is None
    assert first_answer_after([before, after], 10.0) == pytest.approx(4.5)


def test_what_is_not_200_is_lost_and_another_text_is_wrong():
    answers = [answer(0, text="a"), answer(1, text="b"), answer(1, text="a"), answer(0, status=503), answer(status=0)]
    assert lost_and_wrong(answers, ["a", "b"]) == {"requests": 5, "lost": 2, "wrong": 1}


def test_replicas_are_shown_where_their_number_changes():
    seen = [(0.0, 1), (1.0, 1), (2.04, 2), (3.0, 2), (9.0, 1)]
    assert steps_of(seen) == [[0.0, 1], [2.0, 2], [9.0, 1]]
    assert goes_through(seen, [1, 2, 1]) and not goes_through(seen, [1, 0, 1]) and not goes_through(seen, [2, 1, 2])


def test_the_environment_of_serving_is_read_or_its_line_named():
    assert read_environment("# a comment\n\nA=1\nexport B='x=y'\nC=\n") == {"A": "1", "B": "x=y", "C": ""}
    with pytest.raises(ValueError, match=r"serve\.env:2"):
        read_environment("A=1\nnothing\n")


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["serve.py", *arguments])
    monkeypatch.setattr(serve, "write_checkpoint", lambda folder, *_: folder)
    monkeypatch.setattr(serve.signal, "signal", lambda *_: None)
    serve.main()


def test_all_goes_on_past_a_measure_that_fails_and_says_so(monkeypatch, capsys):
    def fails(*_):
        raise OSError("no more sockets")

    sizes = {}

    def works(_, arguments, name):
        sizes[name] = arguments.size
        return {name: 1}

    works_by_name = {name: lambda *a, name=name: works(*a, name) for name in serve.MEASURES}
    monkeypatch.setattr(serve, "MEASURES", works_by_name | {"overload": fails})
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "all")
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ended.value.code == 1 and result["errors"] == {"overload": "OSError: no more sockets"}
    assert result["benchmark"] == "serve" and result["fuzz"] == result["capacity"] == 1
    assert sizes["capacity"] == "base" and sizes["fuzz"] == "tiny"


def test_a_measure_that_needs_what_is_not_installed_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(serve.serve_fuzz, "BIN", tmp_path)
    monkeypatch.setattr(serve.serve_fuzz.shutil, "which", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "fuzz")
    assert ended.value.code == 2 and "pip install" in capsys.readouterr().err


def test_every_measure_has_a_table():
    assert set(serve.TABLES) == set(serve.MEASURES)

"""benchmarks/cluster.py at small sizes: a dead node costs no row, no step and no request."""

from argparse import Namespace

import pytest

from benchmarks.cluster_scaling import scaling
from benchmarks.encode import ENGLISH
from benchmarks.node_deaths import encode_node_killed, serve_node_killed, train_node_killed


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_no_request_fails_when_a_node_with_a_replica_dies(tmp_path):
    found = serve_node_killed(Namespace(proxy="ray"), tmp_path)
    assert found["replicas"] == [1, 1] and found["requests"] > 100
    assert found["failed_requests"] == 0, found
    assert found["replica_replaced_s"] is not None


@pytest.mark.benchmark
@pytest.mark.timeout(900)
def test_no_row_is_lost_when_a_node_with_an_encoder_dies(tmp_path):
    found = encode_node_killed(Namespace(rows=3000), tmp_path)
    assert found["encoders_on_the_node"] == 1 and 0 < found["rows_at_the_kill"] < found["rows"]
    assert (found["lost_rows"], found["twice"], found["differing_rows"]) == (0, 0, 0)


@pytest.mark.benchmark
@pytest.mark.timeout(900)
def test_a_run_comes_to_the_same_end_when_a_node_with_a_worker_dies(tmp_path):
    found = train_node_killed(Namespace(steps=120), tmp_path)
    assert found["completed"] == 1, found


@pytest.mark.benchmark
@pytest.mark.timeout(900)
@pytest.mark.skipif(not ENGLISH.is_file(), reason="the corpus is not there")
def test_rates_are_found_for_every_size_and_number_of_nodes(tmp_path):
    found = scaling(Namespace(sizes=[4000, 8000], texts=ENGLISH), tmp_path)
    assert found["rates"].keys() == {"hash-4000", "hash-8000", "minilm-4000"} == found["speedup"].keys()
    assert all(by[count]["rows_per_second"] > 0 for by in found["rates"].values() for count in "12")

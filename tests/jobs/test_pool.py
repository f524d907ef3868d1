"""How many copies of a model a cluster gets, and where Ray may put them; a list of nodes stands for Ray."""

import pytest

from jobs import pool

HEAD = {"CPU": 0, "node:__internal_head__": 1.0}


@pytest.fixture
def cluster(monkeypatch):
    """Nodes that Ray is to know."""

    def of(*nodes):
        monkeypatch.setattr(pool.ray, "nodes", lambda: [{"Alive": True, "Resources": dict(node)} for node in nodes])

    return of


@pytest.mark.parametrize("workers", [None, 3])
def test_a_head_without_cpus_that_is_alone_yet_gets_no_model(cluster, workers):
    cluster(HEAD)
    found = pool.model_pool("cpu", 8, "encoding.workers", workers)
    assert found.resources["num_cpus"] > 0 and found.workers == (workers or 1) and found.threads == 1


def test_on_two_cpus_a_model_leaves_both_to_the_tasks_and_on_more_it_reserves_next_to_none(cluster):
    cluster({"CPU": 2})
    assert pool.model_pool("cpu", 8, "encoding.workers", None) == pool.ModelPool(2, {"num_cpus": 0}, 1)
    cluster(HEAD, {"CPU": 32})
    found = pool.model_pool("cpu", 8, "encoding.workers", None)
    assert found.workers == pool.NODE_MODELS and 0 < found.resources["num_cpus"] < 0.1 and found.threads == 8

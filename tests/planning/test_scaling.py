"""Loads that grow as the code says, bounds that they pass where they should, and docs/SCALING.md as it is printed."""

import re
import shlex
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path

import pytest

from embinv.commands import plan as command
from embinv.planning.accelerators import accelerator
from embinv.planning.cluster import P4D, Node
from embinv.planning.encoder_size import encoder_size
from embinv.planning.inverter_size import inverter_size
from embinv.planning.limits import limits
from embinv.planning.loads import at_scale, cuts, exchange, filter_ids, pairs_of_a_worker, setting
from embinv.planning.scaling import amount
from tests.planning.loads import workload

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "SCALING.md"


@pytest.fixture(scope="module")
def base():
    load = workload("minilm", ["training.batch_size=1024"], gpus=8, vocabulary=30_522)
    return setting(load, encoder_size(load.config.encoder), inverter_size(load.config, 30_522), accelerator("a100-40g"))


def test_gpus_come_in_whole_nodes_and_grow_with_the_square_root(base):
    assert [at_scale(base, scale).load.gpus for scale in (1, 4, 9, 100)] == [8, 16, 24, 80]
    assert setting(workload("minilm", gpus=9), base.encoder, base.inverter, base.gpu).load.gpus == 16


def test_training_makes_as_many_epochs_at_every_scale(base):
    one, ten = base.load, at_scale(base, 10).load
    assert ten.training_steps / ten.training_rows == pytest.approx(one.training_steps / one.training_rows, rel=1e-4)


def test_minutes_bound_no_training_that_makes_as_many_epochs(base):
    hurried = replace(base, load=replace(base.load, minutes=30))
    for scale in (1, 10):
        assert at_scale(hurried, scale).load == at_scale(base, scale).load
        assert at_scale(hurried, scale).load.training_minutes is None


def test_a_worker_holds_every_pair_of_the_split(base):
    text = 20 * 4.5
    assert pairs_of_a_worker(base) == pytest.approx(base.load.training_rows * (8 + 4 * 28 + 2 * 384 + 2 * 57 + text))


def test_the_shuffles_references_grow_with_the_square_of_the_rows(base):
    assert cuts(at_scale(base, 100)) / cuts(at_scale(base, 10)) == pytest.approx(100, rel=0.05)
    assert filter_ids(base) == 3 * 8 * 2_000_000


def test_one_node_exchanges_over_its_links_and_more_over_the_network(base):
    assert exchange(at_scale(base, 4)) > 10 * exchange(base)


def test_a_load_breaks_where_it_first_passes_its_bound(base):
    for limit in limits(base):
        for scale, load, bound in zip((1, 10, 100, 1000), limit.loads, limit.bounds, strict=True):
            if limit.breaks_at is not None and limit.unit != "share":  # of nodes, which come in steps
                assert (load > bound) == (scale > limit.breaks_at / 1.05), (limit.name, scale)
    found = [limit.breaks_at for limit in limits(base)]
    assert found == sorted(found, key=lambda scale: scale or float("inf"))


def test_a_smaller_driver_breaks_earlier(base):
    small = Node("small", 8, P4D.memory_bytes, P4D.disk_bytes, P4D.driver_bytes / 10)
    large = {limit.name: limit.breaks_at for limit in limits(base)}
    found = limits(setting(base.load, base.encoder, base.inverter, base.gpu, small))
    earlier = {limit.name: limit.breaks_at for limit in found}["encode: ids on the driver at the end"]
    assert earlier == pytest.approx(large["encode: ids on the driver at the end"] / 10, rel=0.06)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (96.5e9, "bytes", "96.5 GB"),
        (12, "bytes", "12 B"),
        (90, "seconds", "1.5 min"),
        (7200, "seconds", "2 h"),
        (0.07, "share", "0.07"),
    ],
)
def test_amounts_read_well(value, unit, text):
    assert amount(value, unit) == text


def test_the_document_holds_what_its_command_prints(capsys):
    text = DOCUMENT.read_text(encoding="utf-8")
    line = re.search(r"^embinv (plan .*--scaling)$", text, re.MULTILINE)
    held = re.search(r"<!-- tables: begin -->\n(.*)<!-- tables: end -->", text, re.DOTALL)
    assert line and held
    top = ArgumentParser()
    command.add(top.add_subparsers(required=True))
    arguments = top.parse_args(shlex.split(line[1].replace("configs/", f"{DOCUMENT.parents[1]}/configs/")))
    arguments.run(arguments)
    assert capsys.readouterr().out == held[1], "run the command in docs/SCALING.md again and put in what it prints"

"""The Grafana dashboard: every metric it asks for is one that the server or Ray Serve makes, with the labels it has."""

import ast
import json
import re
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "cluster" / "grafana" / "embinv.json"
DASHBOARD = json.loads(FILE.read_text(encoding="utf-8"))
PANELS = DASHBOARD["panels"]
SHOWING = [panel for panel in PANELS if panel["type"] != "row"]
EXPRESSIONS = [(panel["title"], target["expr"]) for panel in SHOWING for target in panel["targets"]]
# What Serve adds to every metric of a replica, and Prometheus to a histogram.
GIVEN_LABELS = {"application", "deployment", "le"}
SUFFIXES = {"Histogram": ("_bucket", "_sum", "_count"), "Counter": ("",), "Gauge": ("",)}


def made_by_the_server():
    """Prometheus name -> label names, of the metrics that serve_app/metrics.py makes."""
    tree = ast.parse((ROOT / "serve_app" / "metrics.py").read_text(encoding="utf-8"))
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SUFFIXES:
            tags = next(ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg == "tag_keys")
            for suffix in SUFFIXES[node.func.attr]:
                found[f"ray_{ast.literal_eval(node.args[0])}{suffix}"] = set(tags)
    return found


def made_by_ray():
    """Prometheus names of the metrics in the source of Ray Serve."""
    folder = Path(find_spec("ray").submodule_search_locations[0]) / "serve"
    found = set()
    for path in folder.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        for kind, name in re.findall(r'metrics\.(Histogram|Counter|Gauge)\(\s*(?:name=)?"(serve_\w+)"', source):
            found |= {f"ray_{name}{suffix}" for suffix in SUFFIXES[kind]}
            if kind == "Counter":
                found.add(f"ray_{name.removesuffix('_total')}_total")
    return found


OURS, RAYS = made_by_the_server(), made_by_ray()


def test_metrics_are_found_where_they_are_made():
    assert {"ray_embinv_requests_total", "ray_embinv_request_seconds_bucket"} <= OURS.keys()
    assert "ray_serve_deployment_replica_healthy" in RAYS


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_every_metric_is_one_that_exists_with_the_labels_asked_for(title, expression):
    plain = re.sub(r'"(\\.|[^"\\])*"', '""', expression)
    metrics = re.findall(r"\bray_\w+", plain)
    assert metrics and set(metrics) <= OURS.keys() | RAYS
    labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", plain))
    for grouped in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", plain):
        labels |= set(re.findall(r"\w+", grouped))
    ours = set().union(*(OURS.get(metric, set()) for metric in metrics))
    assert labels <= ours | GIVEN_LABELS, labels


def test_every_metric_of_the_server_is_shown():
    shown = " ".join(expression for _, expression in EXPRESSIONS)
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in OURS}
    assert [name for name in names if name not in shown] == []


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_brackets_close_and_rates_follow_the_zoom(title, expression):
    plain = re.sub(r'"(\\.|[^"\\])*"', "", expression)
    for opened, closed in ("()", "{}", "[]"):
        assert plain.count(opened) == plain.count(closed)
    assert "histogram_quantile" not in plain or re.search(r"by \([^)]*\ble\b", plain)
    assert set(re.findall(r"rate\([^[]*\[([^]]*)\]", plain)) <= {"$__rate_interval"}


@pytest.mark.parametrize("panel", SHOWING, ids=lambda panel: panel["title"])
def test_a_panel_has_a_title_a_description_a_unit_and_the_chosen_source(panel):
    assert panel["title"] and panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    for part in (panel, *panel["targets"]):
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)


def test_panels_have_numbers_of_their_own_and_do_not_overlap():
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    boxes = {panel["id"]: panel["gridPos"] for panel in PANELS}
    for box in boxes.values():
        assert box["x"] >= 0 and box["w"] > 0 and box["h"] > 0 and box["x"] + box["w"] <= 24
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        apart = apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart, (one, other)


def test_source_and_encoder_can_be_chosen_and_no_other_variable_is_used():
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables.keys() == {"datasource", "encoder"}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    (metric,) = re.findall(r"ray_\w+", variables["encoder"]["query"]["query"])
    assert "encoder" in OURS[metric]
    text = FILE.read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__all", "1"}
    assert used == {"datasource", "encoder", "__rate_interval"}


def test_it_can_be_imported_anywhere():
    assert DASHBOARD["id"] is None and DASHBOARD["schemaVersion"] >= 39
    assert "://" not in FILE.read_text(encoding="utf-8")

"""The dashboard of clusters, and what puts both dashboards and the scraping into Kubernetes."""

import json
import re
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import pytest

from tests.contracts.kustomize import render
from tests.contracts.manifest_network import selects
from tests.contracts.manifest_pods import pods
from tests.contracts.manifest_schemas import problems
from tests.contracts.overlays import RENDERED

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "cluster" / "grafana"
DASHBOARD = json.loads((GRAFANA / "cluster.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
OBJECTS = render(GRAFANA)
MONITOR = next(item for item in OBJECTS if item["kind"] == "PodMonitor")


def known_to_ray():
    """Every name in the dashboards that Ray itself ships: its metrics and their labels."""
    folder = Path(find_spec("ray").submodule_search_locations[0]) / "dashboard" / "modules" / "metrics" / "dashboards"
    return set(re.findall(r"\w+", " ".join(file.read_text(encoding="utf-8") for file in folder.glob("*.py"))))


KNOWN = known_to_ray()


def test_ray_is_known_by_what_it_has_and_not_by_what_it_has_not():
    assert {"ray_node_cpu_utilization", "autoscaler_active_nodes", "NodeType", "ray_data_output_rows"} <= KNOWN
    assert not {"ray_node_cpu", "ray_data_rows", "ray_io_namespace"} & KNOWN


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_metrics_and_labels_are_ones_of_ray(title, expression):
    plain = re.sub(r'"[^"]*"', '""', expression)
    metrics = set(re.findall(r"\b(?:ray|autoscaler)_\w+(?=\{)", plain))
    labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", plain))
    for grouped in re.findall(r"\bby\s*\(([^)]*)\)", plain):
        labels |= set(re.findall(r"\w+", grouped))
    assert metrics and metrics | labels <= KNOWN
    assert plain.count("{") == plain.count("ray_io_cluster") == len(re.findall(r"\w\{", plain))


def test_panels_are_told_apart_and_do_not_overlap():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    boxes = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for a, b in combinations(boxes, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (a, b)
    assert all(panel["title"] and panel["description"] for panel in PANELS)
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "cluster"}


def test_both_dashboards_reach_grafana_as_they_are():
    (found,) = (item for item in OBJECTS if item["kind"] == "ConfigMap")
    names = {file.name: file.read_text(encoding="utf-8") for file in GRAFANA.glob("*.json")}
    assert found["data"] == names and found["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert len({json.loads(text)["uid"] for text in names.values()}) == len(names)
    assert sum(len(text) for text in names.values()) < 200_000  # kubectl notes them in an annotation, of 256 KiB


def test_objects_are_ones_that_kubernetes_and_prometheus_operator_take():
    assert [problem for item in OBJECTS for problem in problems(item)] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.pop("selector"),
        lambda spec: spec.update(podMetricsEndpoint=[]),
        lambda spec: spec["podMetricsEndpoints"][0].update(ports="metrics"),
        lambda spec: spec["namespaceSelector"].update(any="true"),
    ],
)
def test_a_pod_monitor_that_is_wrong_is_seen(change):
    wrong = json.loads(json.dumps(MONITOR))
    change(wrong["spec"])
    assert problems(wrong)


@pytest.mark.parametrize("overlay", RENDERED)
def test_every_node_of_every_overlay_is_scraped_and_no_submitter(overlay):
    ports = {endpoint["port"] for endpoint in MONITOR["spec"]["podMetricsEndpoints"]}
    for pod in pods(RENDERED[overlay]):
        assert selects(MONITOR["spec"]["selector"], pod.labels) == (pod.role != "submitter")
        named = {port["name"] for port in pod.ray.get("ports", [])}
        assert ports & named == ({"metrics", "as-metrics"} if pod.role == "head" else {"metrics"} & named)
        assert pod.role == "submitter" or "metrics" in named

"""Workloads that plans are made of, without any file but the configs that ship."""

from pathlib import Path

from embinv.config import load_config
from embinv.planning.assumptions import assumed
from embinv.planning.workload import Workload

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def workload(name="qwen3-0.6b", sets=(), assume=(), **given):
    """2,000,000 texts of 100 tokens on one GPU, but for what is given."""
    config = load_config(CONFIGS / f"{name}.yaml", sets)
    fields = {"rows": 2_000_000, "vectors": 2_000_000, "gpus": 1, "tokens": 20.0, "vocabulary": 1000, "passes": 8}
    return Workload(config=config, assumptions=assumed(assume), **{**fields, **given})

"""What is loaded in many processes, or before `--help`, is loaded without the libraries that take seconds."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "sentence_transformers", "huggingface_hub", "ray")


@pytest.mark.parametrize("module", ["embinv", "embinv.config", "embinv.encoders.base", "jobs.encode_stages"])
def test_module_loads_without_heavy_libraries(module):
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_package_gives_its_public_names_when_asked():
    import embinv

    for name in embinv.__all__:
        assert getattr(embinv, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        embinv.Nothing  # noqa: B018

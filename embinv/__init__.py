"""embinv: recover text from an embedding vector, and show what a leaked vector store gives away."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embinv.config import Config, load_config
    from embinv.correcting import refined
    from embinv.inversion import Inversion
    from embinv.inverter import DiffusionInverter, Inverter, T5TextInverter, load_inverter
    from embinv.trained_corrector import TrainedCorrector, load_corrector

__version__ = "0.1.0"

_HOMES = {
    "Config": "embinv.config",
    "DiffusionInverter": "embinv.inverter",
    "Inversion": "embinv.inversion",
    "Inverter": "embinv.inverter",
    "T5TextInverter": "embinv.inverter",
    "TrainedCorrector": "embinv.trained_corrector",
    "load_config": "embinv.config",
    "load_corrector": "embinv.trained_corrector",
    "load_inverter": "embinv.inverter",
    "refined": "embinv.correcting",
}
__all__ = [
    "Config",
    "DiffusionInverter",
    "Inversion",
    "Inverter",
    "T5TextInverter",
    "TrainedCorrector",
    "load_config",
    "load_corrector",
    "load_inverter",
    "refined",
]


def __getattr__(name: str) -> Any:
    """Loads what is asked for (PEP 562): with torch and transformers `import embinv` would take two seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

"""embinv: recover text from an embedding vector, and show what a leaked vector store gives away."""

from embinv.config import Config, load_config
from embinv.inverter import DiffusionInverter, Inversion, Inverter, load_inverter

__version__ = "0.1.0"

__all__ = ["Config", "DiffusionInverter", "Inversion", "Inverter", "load_config", "load_inverter"]

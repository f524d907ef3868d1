"""The libraries of stores, imported when a store is opened."""

from importlib import import_module
from typing import Any

from embinv.data.dumps.base import MissingLibrary


def import_library(module: str, extra: str, address: str) -> Any:
    """Imports a module of an optional library.

    Args:
        module: dotted name.
        extra: which extra of embinv brings it.
        address: of the dump, for the message.

    Raises:
        MissingLibrary: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingLibrary(
            f"--vectors {address}: reading it needs {module.partition('.')[0]}, which cannot be imported ({error}); "
            f"run `pip install 'embinv[{extra}]'`"
        ) from error

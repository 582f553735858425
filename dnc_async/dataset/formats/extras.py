"""Libraries that are imported when they are needed, and named with their extra when they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from dnc_async.errors import DatasetError


def pyarrow(what: str, *modules: str) -> Any:  # noqa: ANN401 - the module
    """Import pyarrow, and modules of it; ``what`` needs it, and begins the error where it is missing."""
    try:
        library = importlib.import_module("pyarrow")
        for module in modules:
            importlib.import_module(f"pyarrow.{module}")
    except ImportError as error:
        raise DatasetError(
            f"{what}: needs pyarrow, which cannot be imported ({error}); install it with pip install 'dnc-async[tables]'"
        ) from error
    return library

"""What is tested is what users install."""

import os
from pathlib import Path

import pytest

import dnc_async


@pytest.mark.skipif("PYTHONSAFEPATH" not in os.environ, reason="only where the wheel is tested, as nox does")
def test_the_working_copy_is_not_what_is_imported() -> None:
    assert Path(dnc_async.__file__).parent != Path(__file__).parents[2] / "dnc_async"

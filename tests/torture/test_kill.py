"""SIGKILL at random instants; `scripts/torture kill` does many more of these."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.kill import torture

pytestmark = pytest.mark.slow

SEED = 20_261_002


def test_nothing_is_lost_by_kills(tmp_path: Path) -> None:
    torture(3, SEED, tmp_path, print).check()

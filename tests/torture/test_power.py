"""Power cuts; `scripts/torture power` does many more of these."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.disks import root_only
from tests.torture.power import torture

pytestmark = pytest.mark.slow

SEED = 20_261_003


@pytest.mark.slow
@root_only
def test_nothing_is_lost_by_power_cuts(tmp_path: Path) -> None:
    torture(3, SEED, tmp_path, print).check()

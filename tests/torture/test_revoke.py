"""A smaller round of `scripts/torture revoke`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.revoke import torture

pytestmark = pytest.mark.slow


def test_two_rounds(tmp_path: Path) -> None:
    torture(2, 7, tmp_path, print).check()

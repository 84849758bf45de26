"""The space that is set aside for a start on a full disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from unittest.mock import patch

from meshnode.app.reserve import SIZE, Reserve


def test_it_is_laid_by_when_there_is_room_and_given_up_when_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    reserve = Reserve(path)
    reserve.lay_by(SIZE - 1)
    assert not path.exists()
    reserve.lay_by(SIZE)
    assert path.stat().st_size == SIZE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    reserve.give_up_if_needed()
    assert path.exists()
    with patch("shutil.disk_usage") as usage:
        usage.return_value.free = SIZE - 1
        reserve.lay_by()
        reserve.give_up_if_needed()
        assert not path.exists()
        reserve.lay_by()
        assert not path.exists()
        usage.return_value.free = SIZE
        reserve.lay_by()
        assert path.exists()


def test_half_a_reserve_is_none(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    with patch.object(os, "write", side_effect=[1000, OSError(28, "No space left on device")]):
        Reserve(path).lay_by(SIZE)
    assert not path.exists()


def test_a_home_that_is_gone_is_no_trouble(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "gone" / "reserve")
    reserve.give_up_if_needed()
    reserve.lay_by()

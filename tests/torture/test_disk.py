"""Disks that are full or broken, while daemons run on them and while they start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from meshnode.core.limits import KIB, MIB
from tests.app.fleets import Fleet, assert_refused
from tests.torture.disk import KINDS, torture
from tests.torture.disks import disks, root_only

pytestmark = pytest.mark.slow

SEED = 20_261_001


@pytest.mark.slow
@root_only
def test_each_fault_of_a_disk_once(tmp_path: Path) -> None:
    torture(len(KINDS), SEED, tmp_path, print).check()


@root_only
@pytest.mark.parametrize("ended", ["well", "killed"])
def test_a_start_on_a_full_disk(tmp_path: Path, ended: str) -> None:
    with disks(tmp_path, "disk", size_bytes=64 * MIB) as places, Fleet(tmp_path) as fleet:
        disk = places["disk"]
        fleet.enroll("office", "office")
        ana = fleet.enroll("ana")
        ana.home = Path(shutil.move(ana.home, disk.path))
        record = tmp_path / "record"
        record.write_bytes(bytes(200 * KIB))
        fleet.start(ana)
        kept = [ana.give({"record": bytes(3 * MIB)})["key"]]
        ana.stop() if ended == "well" else ana.kill()
        disk.fill(0)
        fleet.start(ana)
        status = ana.get("status")
        assert [alarm["code"] for alarm in status["alarms"]][-1] == "disk-full"
        assert_refused(ana.run("submit", record), "free above the floor")
        disk.empty()
        fleet.until("it takes messages again", lambda: ana.run("submit", record).returncode == 0)
        assert ana.get("messages")[0]["key"] == kept[0]
        ana.kill()

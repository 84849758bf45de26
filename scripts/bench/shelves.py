"""Two homes whose stores hold the same many bundles, filled without daemons, which would take an hour for a million.

The bundles are real: numbered and signed by the two members' keys, half of the journals each, and put into a real store
by commits of a thousand. Their payloads are noise, since nobody opens them, and no messages are told of them. The other
home gets a copy of the file. A shelf is made aside and then renamed, so what is there is whole.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.grounds import Grounds

from meshnode.app.home import Home, Membership
from meshnode.core.bundle import ROUTINE, Header, journal_id, sign_bundle
from meshnode.core.identity import DeviceId, EndpointId
from meshnode.core.limits import LIFETIME_S
from meshnode.core.rows import PutBundle, PutCertificate, Row
from meshnode.core.sealing import SEAL_OVERHEAD
from meshnode.drivers.sqlite import SCHEMA_VERSION, SqliteStore

PAIR: Final = ("siti", "budi")
#: A daemon starts a journal each time it starts.
JOURNALS: Final = 12
PAYLOAD_SIZE: Final = SEAL_OVERHEAD + 64
BATCH: Final = 1000
#: The store's clock when it is put aside; a node goes on from there.
CLOCK_S: Final = 1000.0


def shelf(grounds: Grounds, bundles: int) -> Path:
    """A folder with a home for each of PAIR, whose stores hold so many bundles; made if it is not there yet."""
    folder = grounds.keep / f"shelf-{SCHEMA_VERSION}-{bundles}"
    if not folder.is_dir():
        aside = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(aside, ignore_errors=True)
        for name in PAIR:
            shutil.copytree(grounds.home(name), aside / name)
        first, second = (Home(aside / name) for name in PAIR)
        _fill(first.store_path, [first.load(), second.load()], bundles)
        shutil.copy(first.store_path, second.store_path)
        aside.rename(folder)
    return folder


def _fill(path: Path, members: list[Membership], bundles: int) -> None:
    store = SqliteStore(path)
    try:
        store.commit([PutCertificate(member.certificate) for member in members], CLOCK_S)
        rows: list[Row] = []
        for row in _bundles(members, bundles):
            rows.append(row)
            if len(rows) == BATCH:
                store.commit(rows, CLOCK_S)
                rows = []
        if rows:
            store.commit(rows, CLOCK_S)
        while store.tidy():  # as after a quiet minute
            pass
    finally:
        store.close()


def _bundles(members: list[Membership], bundles: int) -> Iterator[PutBundle]:
    destination = EndpointId(members[0].document.endpoints[0].id)
    now_ms = int(time.time() * 1000)
    dice = random.Random(bundles)
    for at in range(JOURNALS):
        key = members[at % len(members)].key
        source, epoch = DeviceId(key.public.id), os.urandom(8)
        journal = journal_id(source, destination, epoch)
        for number in range(1, bundles // JOURNALS + (at < bundles % JOURNALS) + 1):
            payload = dice.randbytes(PAYLOAD_SIZE)
            header = Header(
                source=source,
                destination=destination,
                recipient_key=bytes(8),
                epoch=epoch,
                number=number,
                part=1,
                parts=1,
                priority=ROUTINE,
                created_ms=now_ms,
                lifetime_s=LIFETIME_S,
                previous=None,
                payload_size=PAYLOAD_SIZE,
                payload_sha256=hashlib.sha256(payload).digest(),
            )
            yield PutBundle(sign_bundle(header, payload, key), journal, CLOCK_S, now_ms)

"""The client for programs, on a real node."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshnode import client as module
from meshnode.client import (
    Client,
    DaemonRefused,
    FileTrouble,
    Message,
    NoSuchMessage,
    NotDelivered,
    NotRunning,
    Submitted,
)
from tests.app.fleets import Fleet, Node


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as fleet:
        yield fleet


@pytest.fixture
def ana(fleet: Fleet) -> Node:
    fleet.enroll("office", "office")
    ana = fleet.enroll("ana")
    fleet.start(ana)
    return ana


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"12345")
    return path


def test_the_example(ana: Node, photo: Path) -> None:
    said = doctest.DocTestParser().get_doctest(
        module.__doc__ or "", {"home": ana.home, "photo": photo}, "client", None, None
    )
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(said)
    assert (results.failed, results.attempted) == (0, 7)


def test_a_message_to_the_office(fleet: Fleet, ana: Node, photo: Path) -> None:
    client = Client(str(ana.home))
    taken = client.submit(
        [photo], kind="foto", reference="Siti", meta={"a": "b"}, priority="urgent", text="hi"
    )
    assert taken == Submitted(taken.key, 1, 7)
    (message,) = client.messages()
    assert message == client.message(taken.key)
    assert message == Message(
        taken.key, "on_this_device_only", 0, "foto", "Siti", "", "office", 7, message.submitted_ms
    )
    assert not message.has_arrived
    ana.stop()
    office = fleet.nodes["office"]
    ana.configure(peers=[office.address])
    fleet.start(office, ana)
    assert client.wait_delivered(taken.key, timeout_s=30).state == "delivered"
    assert set(office.inbox()) == {taken.key}
    status = client.status()
    assert (status.name, status.device, status.fleet) == ("ana", ana.device, "Tasikmalaya")
    assert status.messages["delivered"] == 1
    assert status.raw["messages"] == status.messages
    assert status.alarms == ()
    assert office.call("answer", taken.key, "refused", "--reason", "blurred").returncode == 0
    fleet.until("the answer is here", lambda: client.message(taken.key).state == "refused")
    assert client.wait_delivered(taken.key, timeout_s=0).reason == "blurred"


def test_what_goes_wrong_has_a_class(ana: Node, photo: Path, tmp_path: Path) -> None:
    client = Client(ana.home)
    with pytest.raises(FileTrouble, match="does not exist"):
        client.submit([tmp_path / "none"])
    with pytest.raises(DaemonRefused, match=r"form\.json is missing"):
        client.submit([photo], kind="ktp-el")
    with pytest.raises(NoSuchMessage, match="No message 'x:1' is known"):
        client.message("x:1")
    with pytest.raises(NoSuchMessage):
        client.wait_delivered("x:1", 10)
    key = client.submit([photo]).key
    with pytest.raises(NotDelivered, match=r"not at the office within 0\.1 s"):
        client.wait_delivered(key, 0.1)
    assert [message.key for message in client.messages()] == [key]
    ana.stop()
    for call in (client.status, client.messages, lambda: client.submit([photo])):
        with pytest.raises(NotRunning):
            call()

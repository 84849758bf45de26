"""Bars on a terminal, silence elsewhere."""

from __future__ import annotations

import io
import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from meshnode.app.cli import progress as module
from meshnode.app.cli.progress import progress
from meshnode.core.words import say


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """What stderr leads to in this block: a terminal, of which this is the other end."""
    near, far = pty.openpty()
    with os.fdopen(far, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "80")
        os.set_blocking(near, False)
        yield near
    os.close(near)


def shown(near: int) -> str:
    """All that has come to the terminal."""
    try:
        return os.read(near, 1 << 20).decode()
    except BlockingIOError:
        return ""


def test_a_bar_that_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AFTER_S", 0.0)
    with terminal(monkeypatch) as near:
        with progress(say("Handing over")) as show:
            show(1_000_000, 4_000_000)
            show(2_000_000, 4_000_000)
        seen = shown(near)
    assert "Handing over" in seen
    assert "2.0/4.0 MB" in seen


def test_what_is_over_soon_has_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AFTER_S", 60.0)
    with terminal(monkeypatch) as near:
        with progress(say("Handing over")) as show:
            show(10, 10)
        assert shown(near) == ""


def test_a_pipe_stays_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AFTER_S", 0.0)
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with progress(say("Handing over"), is_bytes=False) as show:
        show(10, 10)
    assert pipe.getvalue() == ""

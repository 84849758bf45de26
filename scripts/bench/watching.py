"""The command `meshnode`, and beside it how long each step of its event loop took: `watching.py OUT ARGUMENT...`.

While a step runs nobody else is served: no other contact, no submission, no question of an officer. Nothing in the
product knows of this; `trio.run` is given an instrument. At the end OUT gets

    {"ends_s": [...], "took_s": [...], "long": [[end_s, took_s, cpu_s, task], ...]}

in seconds of the monotonic clock, which all processes of a machine share. `took_s` is what others waited, also where
this thread was itself kept waiting, by another thread of this process or by another program: `cpu_s` tells.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from functools import partial
from pathlib import Path
from typing import Final

import trio

#: Steps of this length are kept with their task.
LONG_S: Final = 0.005


class Watch(trio.abc.Instrument):
    """Times every step."""

    def __init__(self) -> None:
        self.ends_s = array("d")
        self.took_s = array("d")
        self.long: list[tuple[float, float, float, str]] = []
        self._began_s = self._cpu_s = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A step begins."""
        self._cpu_s = time.thread_time()
        self._began_s = time.monotonic()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """It ended."""
        end_s = time.monotonic()
        took_s = end_s - self._began_s
        self.ends_s.append(end_s)
        self.took_s.append(took_s)
        if took_s >= LONG_S:
            self.long.append((end_s, took_s, time.thread_time() - self._cpu_s, task.name))

    def write(self, path: Path) -> None:
        """Write all to a file, whole or not at all."""
        told = {"ends_s": self.ends_s.tolist(), "took_s": self.took_s.tolist(), "long": self.long}
        aside = path.with_suffix(".new")
        aside.write_text(json.dumps(told))
        aside.replace(path)


def main() -> None:
    """Run the command under a watch."""
    from meshnode.app.cli import main as meshnode

    path, words = Path(sys.argv[1]), sys.argv[2:]
    watch = Watch()
    setattr(trio, "run", partial(trio.run, instruments=[watch]))  # noqa: B010 - to mypy it is no variable
    try:
        meshnode(words, prog_name="meshnode")
    finally:
        watch.write(path)


if __name__ == "__main__":
    main()

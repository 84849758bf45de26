"""`meshnode run`: the node in the foreground, logging to stderr."""

from __future__ import annotations

import resource
from pathlib import Path

import click


@click.command()
@click.pass_obj
def run(path: Path) -> None:
    """Run the node in the foreground.

    Logs to stderr; SIGTERM ends it cleanly.
    """
    import trio

    from meshnode.app.home import Home
    from meshnode.app.logs import log_to_stderr
    from meshnode.app.serving import run_node
    from meshnode.core.errors import MeshnodeError

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the keys
    log_to_stderr()
    try:
        trio.run(run_node, Home(path), strict_exception_groups=True)
    except* MeshnodeError as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that matters to a person, out of however many layers of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

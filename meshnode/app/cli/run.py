"""`meshnode run`: the node in the foreground, logging to stderr."""

from __future__ import annotations

import resource
from pathlib import Path

import click

from meshnode.app.logs import FORMATS, LEVELS


@click.command()
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    help="Lines as text, or each as a JSON object for programs. Without it config.toml says.",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    help="How much to log. At no level does the log say what messages hold.",
)
@click.pass_obj
def run(path: Path, log_format: str | None, log_level: str) -> None:
    """Run the node in the foreground.

    Logs to stderr; SIGTERM ends it cleanly.
    """
    import trio

    from meshnode.app.home import Home
    from meshnode.app.logs import log_to_stderr
    from meshnode.app.serving import run_node
    from meshnode.core.errors import MeshnodeError
    from meshnode.core.words import reading

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the keys
    log_to_stderr(log_level)
    try:
        with reading(None):  # the log is English
            trio.run(run_node, Home(path), log_format, strict_exception_groups=True)
    except* MeshnodeError as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that matters to a person, out of however many layers of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

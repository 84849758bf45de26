"""`meshnode web`: the node's page in the browser.

The link is good once. It is still nobody else's business, and other users of this machine can see the arguments of
every program. So a browser is not given the link but a file in the home that leads there, for this user only.
"""

from __future__ import annotations

import html
from pathlib import Path

import click

from meshnode.core.words import say

#: In the home; the next link is written over it.
DOOR_NAME = "web.html"


@click.command()
@click.option(
    "--print", "only_print", is_flag=True, help="Print a link instead: good once, and for a minute."
)
@click.pass_obj
def web(path: Path, only_print: bool) -> None:
    """Open the node's page in the browser.

    The page shows where everything is, takes messages, and at an office shows the whole fleet. It is for this machine
    only. The browser stays let in for 12 hours, or until the node ends.
    """
    import webbrowser

    from meshnode.app.client import Client
    from meshnode.app.files import write_file
    from meshnode.app.home import Home

    home = Home(path)
    link = Client(home).request("POST", "/web/link")["url"]
    if only_print:
        click.echo(link)
        return
    door = home.path / DOOR_NAME
    write_file(door, _leading_to(link).encode())
    if not webbrowser.open(door.as_uri()):
        click.echo(
            str(say("There is no browser to open here. This link opens the page once, within a minute:"))
        )
        click.echo(link)


def _leading_to(link: str) -> str:
    there = html.escape(link, quote=True)
    return (
        '<!doctype html><html><head><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="refresh" content="0;url={there}"><title>meshnode</title></head>'
        f'<body><p><a href="{there}">meshnode</a></p></body></html>\n'
    )

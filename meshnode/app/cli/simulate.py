"""`meshnode simulate`: what a fleet would deliver, for people who plan one."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from meshnode.app.cli.progress import progress
from meshnode.app.cli.screen import duration, size, table
from meshnode.core.errors import FileTrouble
from meshnode.core.limits import FOREIGN_QUOTA_BYTES, PAYLOAD_SIZE_MAX
from meshnode.core.words import Words, count, say

if TYPE_CHECKING:
    from meshnode.sim.canvas import Canvas
    from meshnode.sim.carrying import Carried
    from meshnode.sim.figures import Figures, NodeFigures

_FILE: Final = click.Path(path_type=Path, dir_okay=False, readable=False)


def _names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = tuple(name.strip() for name in (value or "").split(",") if name.strip())
    if value is not None and not names:
        raise click.BadParameter(str(say("it names no node")))
    return names


def _end(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise click.BadParameter(str(say("it must be more than 0 seconds.")))
    return value


@click.command()
@click.option("--contacts", type=_FILE, metavar="FILE", help="Who meets whom and when, as CSV.")
@click.option("--workload", type=_FILE, metavar="FILE", help="What is recorded where and when, as CSV.")
@click.option(
    "--gateways",
    metavar="A,B,...",
    callback=_names,
    help="The nodes with a way to the office: a message is delivered when one of them holds all of it.",
)
@click.option(
    "--store-bytes",
    type=click.IntRange(min=0),
    default=FOREIGN_QUOTA_BYTES,
    metavar="N",
    show_default=True,
    help=f"What each node but the gateways holds of others' bundles at most; below {PAYLOAD_SIZE_MAX} it carries "
    "nothing. Its own are not counted: as on a device, they are never discarded.",
)
@click.option(
    "--until-s",
    type=float,
    callback=_end,
    metavar="T",
    help="End at this second; without it, when the last contact ends. What is recorded later is left out.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    show_default=True,
    help="Draws the nodes' keys, which decide ties; contacts and workload are as the files say.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs: JSON instead of text.")
@click.option(
    "--plot",
    type=_FILE,
    metavar="FILE",
    help="Also draw what was delivered over time, and who carried for whom; FILE.svg, or FILE.png with Pillow.",
)
@click.option(
    "--example",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Instead, write the plan of a made-up fleet into DIR to start from; --seed draws another one.",
)
def simulate(
    contacts: Path | None,
    workload: Path | None,
    gateways: tuple[str, ...],
    store_bytes: int,
    until_s: float | None,
    seed: int,
    as_json: bool,
    plot: Path | None,
    example: Path | None,
) -> None:
    """Say what a fleet would deliver, by running the real node over a plan of contacts.

    The contacts are a CSV file with the columns start_s, end_s, node_a, node_b and, if it is known, rate_bytes_per_s
    (else 1000000): one row a contact, each one half-duplex channel. Rows of one pair that overlap add up. The workload
    has the columns t_s, source and size_bytes: one row a message. Seconds count from the start of the plan.

    Delays are of all messages; one that is not delivered counts as waiting to the end.
    """
    if example is not None:
        _write_example(example, seed)
        return
    if contacts is None or workload is None or not gateways:
        text = say(
            "It needs --contacts, --workload and --gateways; `meshnode simulate --example DIR` writes some to try."
        )
        raise click.UsageError(str(text))
    from meshnode.sim.canvas import canvas_maker
    from meshnode.sim.carrying import carry
    from meshnode.sim.figures import figures_of
    from meshnode.sim.plan import read_plan

    make = canvas_maker(plot) if plot is not None else None  # says what is missing before the long run
    plan = read_plan(contacts, workload, gateways)
    for name in plan.gateways_unvisited:
        _warn(say("the gateway {name} occurs in no contact", name=name))
    with progress(say("Carrying"), is_bytes=False) as show:
        contacts_done, contacts_total = itertools.count(1), len(plan.stretches(until_s))
        run = carry(
            plan,
            store_bytes=store_bytes,
            until_s=until_s,
            seed=seed,
            on_contact=lambda: show(next(contacts_done), contacts_total),
        )
    if run.broken_off:
        broken = count(
            "{n} contact broken off by the nodes, which is a fault of meshnode's",
            "{n} contacts broken off by the nodes, which is a fault of meshnode's",
            run.broken_off,
        )
        _warn(broken)
    figures = figures_of(run)
    if as_json:
        given = {"gateways": sorted(set(gateways)), "store_bytes": store_bytes, "seed": seed}
        click.echo(json.dumps(figures.as_json() | given, indent=2))
    else:
        click.echo(screen(figures))
    if plot is not None and make is not None:
        _draw(run, plot, make)


def _warn(text: Words) -> None:
    click.echo(f"meshnode: {text}", err=True)


def _draw(run: Carried, path: Path, make: Callable[[float, float], Canvas]) -> None:
    from meshnode.sim.plot import draw

    try:
        path.write_bytes(draw(run, make))
    except OSError as error:
        raise FileTrouble(
            path=path, problem=say("cannot be written: {problem}", problem=error.strerror)
        ) from None


def _write_example(folder: Path, seed: int) -> None:
    from meshnode.sim.example import CONTACTS, WORKLOAD, write_example

    gateways = write_example(folder, seed)
    click.echo(say("A week of 12 officers on 7 motorbikes is in {folder}. Try:", folder=folder))
    click.echo()
    click.echo(
        f"meshnode simulate --contacts {folder / CONTACTS} --workload {folder / WORKLOAD} "
        f"--gateways {','.join(gateways)}"
    )


# --- text -------------------------------------------------------------------------------------------------------


def screen(figures: Figures) -> str:
    """The text for a person."""
    share, byte_share = _percent(figures.delivered_share), _percent(figures.delivered_byte_share)
    copies = figures.copies_per_delivered
    head = count(
        "{delivered} of {n} message delivered ({share}; {byte_share} of the bytes)",
        "{delivered} of {n} messages delivered ({share}; {byte_share} of the bytes)",
        figures.messages,
        delivered=figures.delivered,
        share=share,
        byte_share=byte_share,
    )
    delay = say(
        "Delay: {mean} on average, {median} for the middle one, {p95} for 95 % of all;",
        mean=_time(figures.mean_delay_s),
        median=_time(figures.median_delay_s),
        p95=_time(figures.p95_delay_s),
    )
    waiting = say(
        "a message that is not delivered counts as waiting to the end, after {end}.", end=_time(figures.end_s)
    )
    moved = count(
        "{size} moved in {n} contact",
        "{size} moved in {n} contacts",
        figures.contacts,
        size=size(figures.bytes_moved),
    )
    if copies is not None:
        moved = say(
            "{moved}, {copies} copies made for each delivered message", moved=moved, copies=f"{copies:.1f}"
        )
    lines = [click.style(head, bold=True), "", f"  {delay}", f"  {waiting}", f"  {moved}."]
    carriers = [node for node in figures.nodes if not node.gateway]
    gateways = [node for node in figures.nodes if node.gateway]
    for part in (_carriers(carriers), _gateways(gateways)):
        lines += ["", part]
    return "\n".join(lines)


def _percent(share: float) -> str:
    """Never 100 % when something is missing."""
    return f"{share:.1%}" if share == 1 or share < 0.9995 else "99.9%"


def _time(seconds: float) -> str:
    if seconds < 48 * 3600:
        return duration(round(seconds))
    return str(say("{days} days", days=f"{seconds / 86400:.1f}"))


def _carriers(nodes: list[NodeFigures]) -> str:
    heads = [
        say("node"),
        say("submitted"),
        say("delivered"),
        say("mean delay"),
        say("carried for others"),
        say("sources"),
        say("still on board"),
    ]
    rows: list[list[Any]] = [
        [
            node.name,
            node.submitted or "-",
            node.delivered if node.submitted else "-",
            "-" if node.mean_delay_s is None else _time(node.mean_delay_s),
            size(node.carried_bytes),
            node.carried_for,
            size(node.on_board_bytes),
        ]
        for node in nodes
    ]
    return table([str(head) for head in heads], [[str(cell) for cell in row] for row in rows])


def _gateways(nodes: list[NodeFigures]) -> str:
    rows = [[node.name, str(node.taken_in), str(node.submitted or "-")] for node in nodes]
    heads = (say("gateway"), say("messages that came here first"), say("submitted here"))
    return table([str(head) for head in heads], rows)

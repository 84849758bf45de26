"""From a home to a running node: check it, take its ports, run the daemon and its control interface, and end well."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
from pathlib import Path
from typing import Final

import trio
from hypercorn.config import Config as ServerConfig
from hypercorn.trio import serve

from meshnode.app.addresses import Address
from meshnode.app.config import read_config
from meshnode.app.control import make_app
from meshnode.app.daemon import Daemon, open_daemon
from meshnode.app.files import trouble, write_file
from meshnode.app.home import Home
from meshnode.app.logs import log_as
from meshnode.app.metrics import serve_open
from meshnode.app.outbox import Outbox
from meshnode.app.report import one_line
from meshnode.app.reserve import Reserve
from meshnode.core.errors import FileTrouble, PortTaken
from meshnode.core.words import Words, say
from meshnode.drivers.notify import Notify

log: Final = logging.getLogger("meshnode")

_BACKLOG: Final = 128
#: Between two attempts to write control.json to a disk that does not take it.
_DOOR_AGAIN_S: Final = 1.0
#: Between two looks at whether there is room for the reserve.
_RESERVE_S: Final = 60.0
#: All IPv4 addresses of this machine, and here all its IPv6 addresses too.
_EVERYWHERE: Final = "0.0.0.0"


def listen(address: Address, purpose: Words, key: str) -> socket.socket:
    """A socket that listens at `address`. Raises PortTaken, which says what for and which key names it."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        server = socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        # what the standard library adds in brackets, the sentence says itself
        problem = (error.strerror or str(error)).partition(" (while")[0].lower()
        raise PortTaken(purpose=purpose, address=address, problem=problem, key=key) from None
    server.setblocking(False)
    return server


def _address_of(server: socket.socket) -> str:
    host, port = server.getsockname()[:2]
    return str(Address(host, port))


def listen_for_peers(address: Address) -> list[socket.socket]:
    """Sockets that listen there; at 0.0.0.0 on IPv6 too, where this machine has it. Raises PortTaken."""
    sockets = [listen(address, say("The node"), "listen")]
    if address.host == _EVERYWHERE:
        port = sockets[0].getsockname()[1]
        try:
            sockets.append(listen(Address("::", port), say("The node"), "listen"))
        except PortTaken as problem:
            log.info(f"IPv4 only: {problem}")
    return sockets


async def run_node(home: Home, log_format: str | None = None) -> None:
    """Run the node until SIGTERM or SIGINT. Raises MeshnodeError when it cannot start, and then nothing was touched.
    `log_format`: instead of what config.toml says."""
    membership = home.load()
    config = read_config(home.config_path)
    log_as(log_format or config.log)
    with home.lock(), listen(config.control, say("The control interface"), "control") as control:
        peers = listen_for_peers(config.listen)
        reserve = Reserve(home.reserve_path)
        reserve.give_up_if_needed()
        with contextlib.ExitStack() as closing:
            for each in peers:
                closing.enter_context(each)
            measured = None
            if config.metrics.listen is not None:
                measured = listen(config.metrics.listen, say("The page of metrics"), "metrics.listen")
                closing.enter_context(measured)
            port = peers[0].getsockname()[1]
            async with open_daemon(home, membership, config, port) as daemon:
                certificate = membership.certificate
                name = f"{certificate.name} ({certificate.role} of {membership.fleet_name})"
                listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in peers]
                says = f"{name} listens on {_address_of(peers[0])}"
                outbox = None
                if (folder := config.outbox.folder(home.path)) is not None:
                    outbox = Outbox(daemon, folder, config.outbox.kind, config.language)
                await _run_until_told(home, daemon, says, listeners, control, reserve, measured, outbox)
        reserve.lay_by()
        log.info("ended")


async def _run_until_told(
    home: Home,
    daemon: Daemon,
    says: str,
    listeners: list[trio.SocketListener],
    control: socket.socket,
    reserve: Reserve,
    measured: socket.socket | None,
    outbox: Outbox | None,
) -> None:
    async def serve_control(task_status: trio.TaskStatus[None]) -> None:
        await _serve_control(home, daemon, control, task_status)

    async def serve_metrics(task_status: trio.TaskStatus[None]) -> None:
        if measured is None:
            task_status.started()
        else:
            log.info(
                f"the metrics are at http://{_address_of(measured)}/metrics, for whoever reaches that address"
            )
            await serve_open(daemon, measured, task_status)

    async def serve_outbox(task_status: trio.TaskStatus[None]) -> None:
        if outbox is None:
            task_status.started()
        else:
            await outbox.run(task_status)

    async def keep_reserve(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            reserve.lay_by(daemon.node.state.room_bytes)
            await trio.sleep(_RESERVE_S)

    async def tell_manager(task_status: trio.TaskStatus[None]) -> None:
        await Notify.from_environment().run(lambda: one_line(daemon.node.state), task_status)

    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_end_on_signal, nursery.cancel_scope)
            log.info(says)
            await daemon.run(
                listeners, serve_control, serve_metrics, serve_outbox, keep_reserve, tell_manager
            )
    finally:
        with contextlib.suppress(OSError):  # as on a disk that is read-only; the next daemon writes its own
            home.control_path.unlink()


async def _serve_control(
    home: Home, daemon: Daemon, control: socket.socket, task_status: trio.TaskStatus[None]
) -> None:
    """The control interface; control.json says where it is, once it answers and the disk takes that."""
    address, token = _address_of(control), secrets.token_urlsafe(32)
    server = ServerConfig()
    server.bind = [f"fd://{control.detach()}"]  # the server closes it
    server.accesslog = server.errorlog = None
    server.graceful_timeout = 1.0
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, make_app(daemon, token), server)
        door = {"address": address, "token": token, "pid": os.getpid()}
        written = json.dumps(door).encode() + b"\n"
        try:
            await trio.to_thread.run_sync(_write_door, home.control_path, written)
        except FileTrouble as problem:
            log.warning(f"{problem} Programs on this machine cannot talk to this node until that is over.")
            nursery.start_soon(_write_door_later, home.control_path, written)
        task_status.started()


def _write_door(path: Path, written: bytes) -> None:
    """Write control.json; on a full disk over what a crash left of the one before. Raises FileTrouble."""
    try:
        write_file(path, written)
    except FileTrouble as problem:
        if not path.is_file() or path.is_symlink():
            raise
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            raise problem from None
        try:
            # cut to its length afterwards: the space that it has now would be another's at once
            os.ftruncate(descriptor, os.write(descriptor, written))
        except OSError as error:
            raise trouble(path, error, "written") from None
        finally:
            os.close(descriptor)


async def _write_door_later(path: Path, written: bytes) -> None:
    """Others rely on this node all the while, so it runs without control.json."""
    while True:
        await trio.sleep(_DOOR_AGAIN_S)
        with contextlib.suppress(FileTrouble):
            await trio.to_thread.run_sync(_write_door, path, written)
            log.info("control.json is written now")
            return


async def _end_on_signal(scope: trio.CancelScope, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info(f"ending ({signal.Signals(number).name})")
            scope.cancel()
            return

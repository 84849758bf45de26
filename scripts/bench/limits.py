"""The machine: what it could do at best, and what it says of its processes and its disk.

A contact cannot be faster than the same bytes over TLS, nor than they get into SQLite with nothing else in the way,
so its figures are given as shares of these.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sqlite3
import ssl
import subprocess
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
PIECE_SIZE = 256 * KIB
COPY_SIZE = 200 * MIB
#: As the node's store has it: large pages, and a log that is merged when it has grown to 8 MiB.
PAGE_SIZE = 16 * KIB
LOG_SIZE = 8 * MIB
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


# --- the network ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Credentials:
    """A member's certificate and key, and the authority's certificate: PEM files."""

    certificate: Path
    key: Path
    authority: Path

    def context(self, purpose: int) -> ssl.SSLContext:
        """TLS 1.3 with a certificate on either side, as between nodes."""
        context = ssl.SSLContext(purpose)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.authority)
        context.load_cert_chain(self.certificate, self.key)
        return context


def tls_mib_s(credentials: Credentials) -> float:
    """MiB/s of COPY_SIZE bytes from one plain process to another: blocking sockets, PIECE_SIZE a write."""
    processes = multiprocessing.get_context("spawn")
    mine, theirs = processes.Pipe()
    receiver = processes.Process(target=_receive, args=(credentials, theirs))
    receiver.start()
    theirs.close()  # so that a receiver that fails is heard of as the end of the pipe
    try:
        sender = processes.Process(target=_send, args=(credentials, mine.recv()))
        sender.start()
        seconds: float = mine.recv()
        sender.join()
        receiver.join()
    finally:
        receiver.kill()
    return COPY_SIZE / MIB / seconds


def _receive(credentials: Credentials, report: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        report.send(server.getsockname()[1])
        plain, _ = server.accept()
    context = credentials.context(ssl.PROTOCOL_TLS_SERVER)
    with context.wrap_socket(plain, server_side=True) as stream:
        stream.recv(1)
        start_s = time.monotonic()
        buffer = bytearray(PIECE_SIZE)
        left = COPY_SIZE
        while left:
            if not (size := stream.recv_into(buffer, min(left, PIECE_SIZE))):
                raise EOFError("the sender has gone")
            left -= size
        report.send(time.monotonic() - start_s)


def _send(credentials: Credentials, port: int) -> None:
    context = credentials.context(ssl.PROTOCOL_TLS_CLIENT)
    piece = os.urandom(PIECE_SIZE)
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port))) as stream:
        stream.sendall(piece[:1])
        for _ in range(COPY_SIZE // PIECE_SIZE):
            stream.sendall(piece)
        stream.recv(1)  # the end: until the receiver has all and closes


# --- the disk -------------------------------------------------------------------------------------------------------


def sqlite_rows_s(folder: Path, rows: int, row_size: int, rows_per_commit: int) -> float:
    """Rows a second that become durable: random bytes, WAL, synchronous=FULL, so many rows a commit."""
    path = folder / "raw.db"
    payload = os.urandom(row_size + rows)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_SIZE // PAGE_SIZE}")
        connection.execute("CREATE TABLE raw (id INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
        start_s = time.monotonic()
        for first in range(0, rows, rows_per_commit):
            connection.execute("BEGIN IMMEDIATE")
            numbers = range(first, min(rows, first + rows_per_commit))
            connection.executemany(
                "INSERT INTO raw VALUES (?, ?)", ((n + 1, payload[n : n + row_size]) for n in numbers)
            )
            connection.execute("COMMIT")
        return rows / (time.monotonic() - start_s)
    finally:
        connection.close()
        for name in ("raw.db", "raw.db-wal", "raw.db-shm"):
            (folder / name).unlink(missing_ok=True)


def disk_size(folder: Path) -> int:
    """Bytes that a folder takes on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in [folder, *folder.rglob("*")])


# --- processes ------------------------------------------------------------------------------------------------------


def busy_s() -> float:
    """CPU seconds that all processors together have been busy since the machine started."""
    user, nice, system, _idle, _wait, irq, soft, steal = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, irq, soft, steal))) * TICK_S


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def memory_mib(pid: int, key: str) -> float:
    """VmRSS (now) or VmHWM (the most it ever was) in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{key}:")[2].split()[0]) / KIB


def switches(pid: int) -> dict[str, int]:
    """Voluntary context switches of each of its threads so far."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            status = (task / "status").read_text()
            found[task.name] = int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return found


def command_cpu_s(words: list[str]) -> float:
    """CPU seconds of one command, from start to end. Raises CalledProcessError."""
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, code, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return used.ru_utime + used.ru_stime

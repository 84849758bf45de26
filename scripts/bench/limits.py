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
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from resource import struct_rusage
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from meshnode.core.identity import SigningKey
from meshnode.drivers.sqlite import PAGE_SIZE
from meshnode.drivers.sqlite.connecting import LOG_SIZE

KIB = 1024
MIB = 1024 * KIB
PIECE_SIZE = 256 * KIB
COPY_SIZE = 200 * MIB
#: A TLS record holds so much at most.
RECORD_SIZE = 16 * KIB
#: How long a loop of one kind of cryptography is timed.
LOOP_S = 0.5
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


# --- cryptography ---------------------------------------------------------------------------------------------------


def _rate(step: Callable[[], object]) -> float:
    """Steps a second on one core."""
    step()
    done, began_s = 0, time.perf_counter()
    while time.perf_counter() - began_s < LOOP_S:
        for _ in range(16):
            step()
        done += 16
    return done / (time.perf_counter() - began_s)


def aead_mib_s() -> float:
    """MiB/s that one core encrypts with AES-256-GCM, a TLS record at a time."""
    box, piece, nonce = AESGCM(os.urandom(32)), os.urandom(RECORD_SIZE), bytes(12)
    return _rate(lambda: box.encrypt(nonce, piece, None)) * RECORD_SIZE / MIB


def verify_s() -> float:
    """Signatures a second that one core verifies, over as much as a bundle's header has."""
    key, data = SigningKey.from_seed(os.urandom(32)), os.urandom(180)
    signature = key.sign(data)
    return _rate(lambda: key.public.verify(signature, data, "header"))


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


def files_s(folder: Path) -> float:
    """New files of 8 KiB a second, each one flushed to the disk before the next."""
    data = os.urandom(8 * KIB)
    path = folder / "raw.file"

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
        path.unlink()

    return _rate(write)


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


def command_use(words: list[str], **more: Any) -> tuple[float, struct_rusage]:
    """Seconds that one command took, and what it has used. Raises CalledProcessError."""
    began_s = time.monotonic()
    process = subprocess.Popen(words, **more)
    _, code, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began_s
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return seconds, used


def command_cpu_s(words: list[str]) -> float:
    """CPU seconds of one command, from start to end. Raises CalledProcessError."""
    _, used = command_use(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return used.ru_utime + used.ru_stime


def threads_cpu_s(pid: int) -> tuple[float, float]:
    """CPU seconds so far of a process's first thread, where its event loop runs, and of all others that still are."""
    of_loop, of_others = 0.0, 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            used_s = (int(fields[11]) + int(fields[12])) * TICK_S
            if task.name == str(pid):
                of_loop = used_s
            else:
                of_others += used_s
    return of_loop, of_others


def written_mib(pid: int) -> float:
    """MiB that a process has had written to a disk so far."""
    said = Path(f"/proc/{pid}/io").read_text()
    return int(said.partition("\nwrite_bytes:")[2].split()[0]) / MIB

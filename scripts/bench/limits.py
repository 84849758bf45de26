"""What this machine could do at best: the same bytes over TLS, and into SQLite, with nothing else in the way.

A contact cannot be faster than the slower of the two, so its figures are given as shares of these.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sqlite3
import ssl
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

MIB = 1024 * 1024
PIECE_SIZE = 256 * 1024
COPY_SIZE = 200 * MIB
#: As the node's store has it: large pages, and a log that is merged when it has grown to 8 MiB.
PAGE_SIZE = 16 * 1024
LOG_SIZE = 8 * MIB


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


def tls_copy_s(credentials: Credentials) -> float:
    """Seconds for COPY_SIZE bytes from one plain process to another: blocking sockets, PIECE_SIZE a write."""
    processes = multiprocessing.get_context("spawn")
    mine, theirs = processes.Pipe()
    receiver = processes.Process(target=_receive, args=(credentials, theirs))
    receiver.start()
    try:
        sender = processes.Process(target=_send, args=(credentials, mine.recv()))
        sender.start()
        seconds: float = mine.recv()
        sender.join()
        receiver.join()
    finally:
        receiver.kill()
    return seconds


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
            left -= stream.recv_into(buffer, min(left, PIECE_SIZE))
        report.send(time.monotonic() - start_s)


def _send(credentials: Credentials, port: int) -> None:
    context = credentials.context(ssl.PROTOCOL_TLS_CLIENT)
    piece = os.urandom(PIECE_SIZE)
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port))) as stream:
        stream.sendall(piece[:1])
        for _ in range(COPY_SIZE // PIECE_SIZE):
            stream.sendall(piece)


def sqlite_s(folder: Path, rows: int, row_size: int, rows_per_commit: int) -> float:
    """Seconds to make rows of random bytes durable: WAL, synchronous=FULL, so many rows a commit."""
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
        return time.monotonic() - start_s
    finally:
        connection.close()
        for name in ("raw.db", "raw.db-wal", "raw.db-shm"):
            (folder / name).unlink(missing_ok=True)

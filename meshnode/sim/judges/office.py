"""What an endpoint promises, the office above all: each message once and unaltered, and a signature only for what its
sink has taken."""

from __future__ import annotations

import hashlib

from meshnode.core.frames import Frame, ReceiptFrame
from meshnode.core.identity import DeviceId
from meshnode.core.intervals import NONE
from meshnode.core.message import Manifest, stream_head
from meshnode.core.receipt import read_receipt
from meshnode.core.rows import PutReceipt, Row
from meshnode.office.sinks import Envelope
from meshnode.sim.judges.judge import Judge, name_of
from meshnode.sim.machine import Machine


class Sink(Judge):
    """Each message reaches the sink once, under one key, unaltered, and only where it was meant to go."""

    def taken(self, envelope: Envelope, manifest: Manifest, files: list[bytes]) -> None:
        """It is what was submitted."""
        truth = self.truth
        if truth.names[envelope.source_id] in truth.hostile:
            return
        what = f"{envelope.key[:6]}{envelope.key[32:]} of {envelope.source}"
        submitted = truth.submitted.get(manifest.reference)
        if submitted is None or submitted.source != envelope.source:
            raise self.broken(f"{what} was submitted by nobody")
        gone = submitted.number in truth.machines[submitted.source].programs.given_up
        if submitted.denied or gone:
            raise self.broken(f"{what} reaches the sink, and its program was told that it was not taken")
        stream = stream_head(manifest) + b"".join(files)
        if hashlib.sha256(stream).digest() != submitted.stream_sha256:
            raise self.broken(f"{what} was altered")
        if submitted.delivered_as is not None:
            raise self.broken(f"{what} reaches the sink again, after {submitted.delivered_as}")
        if submitted.key is not None and submitted.key != envelope.key:
            raise self.broken(f"{what} was acknowledged as {submitted.key}")
        submitted.delivered_as = envelope.key


class Receipts(Judge):
    """A receipt never covers what the sink has not taken, and is passed on only when it is durable."""

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """What is kept is true."""
        for row in rows:
            if isinstance(row, PutReceipt):
                signer = self.truth.names.get(DeviceId(row.receipt.endpoint))
                if signer in self.truth.hostile:
                    continue  # it may say of what goes to itself what it likes
                untrue = row.receipt.ranges - self.truth.taken.get(row.receipt.journal, NONE)
                if untrue:
                    journal = name_of(row.receipt.journal)
                    raise self.broken(f"{machine.name} keeps a receipt of {journal}: {untrue}, never taken")

    def said(self, machine: Machine, frame: Frame) -> None:
        """What is said is kept."""
        if isinstance(frame, ReceiptFrame):
            receipt = read_receipt(frame.body, frame.signature)
            known = self.truth.shelves[machine.name].receipted.get(receipt.journal, NONE)
            if not receipt.ranges <= known:
                journal = name_of(receipt.journal)
                raise self.broken(f"{machine.name} passes on a receipt of {journal} that it has not written")

"""What a machine does, as bytes for the digest of a run, and as words for whoever reads its trace."""

from __future__ import annotations

from collections.abc import Iterable

from meshnode.core.frames import (
    Bye,
    Cert,
    Finished,
    Fleet,
    Frame,
    Have,
    Heard,
    Hello,
    Next,
    ReceiptFrame,
    Stored,
    Want,
)
from meshnode.core.framing import FrameReader
from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ports import (
    Accepted,
    Adopt,
    Arrived,
    Close,
    Dial,
    Effect,
    Refused,
    Send,
    SendBundle,
    Write,
)
from meshnode.core.receipt import read_receipt
from meshnode.core.rows import DropBundles, PutBundle, PutMessage, PutReceipt, Row


def short(journal: bytes) -> str:
    """A journal's or a device's id, as far as people can remember it."""
    return journal.hex()[:6]


def effect_bytes(effect: Effect) -> bytes:
    """What of an effect has to be the same in two runs of one seed."""
    match effect:
        case Send():
            return effect.data
        case SendBundle():
            return b"%b %d %d" % (effect.journal, effect.number, effect.age_s)
        case Write():
            return b"write %d %d" % (effect.token, len(effect.rows))
        case Adopt():
            return b"adopt %d" % effect.document.version
        case Refused():
            return f"refused {effect.submission} {effect.problem}".encode()
        case _:
            return repr(effect).encode()


def effect_text(effect: Effect) -> str:
    """An effect in words; nothing for those that are told otherwise."""
    match effect:
        case Send():
            return ", ".join(frame_text(frame) for frame in FrameReader().feed(effect.data))
        case SendBundle():
            return f"bundle {short(effect.journal)}:{effect.number}, {effect.age_s} s old"
        case Write():
            return "writes " + ", ".join(filter(None, map(row_text, effect.rows)))
        case Close():
            return f"closes: {effect.reason}"
        case Dial():
            return f"dials {effect.address}"
        case Accepted():
            key, _, first = effect.key.partition(":")
            return f"accepts submission {effect.submission} as {key[:6]}:{first}, {effect.bundles} bundles"
        case Refused():
            return f"refuses submission {effect.submission}: {effect.problem}"
        case Adopt():
            return f"adopts fleet document {effect.document.version}"
        case Arrived():
            return f"has something of {short(effect.journal)} for the office"
        case _:
            return ""


def _rows(rows: Iterable[tuple[JournalId, Ranges]]) -> str:
    return "; ".join(f"{short(journal)} {ranges}" for journal, ranges in rows) or "nothing"


def frame_text(frame: Frame) -> str:
    """A frame in words."""
    match frame:
        case Hello():
            return f"HELLO {frame.name}, document {frame.fleet_version}, free {frame.free_bytes}"
        case Fleet():
            return "FLEET"
        case Have():
            rows = "; ".join(f"{short(h.journal)} {h.ranges} /{h.serial >> 32}" for h in frame.journals)
            return f"HAVE{' whole' if frame.whole else ''} {rows}"
        case Want():
            asked = _rows((want.journal, want.ranges) for want in frame.journals if want.ranges)
            back = [(want.journal, want.dropped) for want in frame.journals if want.dropped != NONE]
            return f"WANT {asked}{', not ' + _rows(back) if back else ''}, credit {frame.credit}"
        case Stored():
            return f"STORED {_rows(row[:2] for row in frame.journals)}"
        case ReceiptFrame():
            receipt = read_receipt(frame.body, frame.signature)
            return f"RECEIPT {short(receipt.journal)} {receipt.ranges} /{receipt.serial >> 32}"
        case Finished():
            return f"FINISHED {len(frame.buckets)}"
        case Next():
            return f"NEXT {frame.rank[0]} {-frame.rank[1]:.3g}" if frame.rank else "NEXT nothing"
        case Heard():
            rows = "; ".join(f"{short(e.device)} {e.away_s} s: {_rows(e.journals)}" for e in frame.devices)
            return f"HEARD {rows}"
        case Bye():
            return f"BYE {frame.reason}"
        case Cert():
            return "CERT"
        case _:
            return type(frame).__name__.upper()


def row_text(row: Row) -> str:
    """A row in words; nothing for those that are only remembered for convenience."""
    match row:
        case PutBundle():
            return f"bundle {short(row.journal)}:{row.bundle.header.number}"
        case DropBundles():
            return f"drop {short(row.journal)} {row.ranges}"
        case PutReceipt():
            return f"receipt {short(row.receipt.journal)} {row.receipt.ranges}"
        case PutMessage():
            return f"message {short(row.journal)}:{row.first}"
        case _:
            return ""

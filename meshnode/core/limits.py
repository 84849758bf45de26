"""Every bound of the protocol and the node, in one place, each with its reason.

A peer that goes beyond one of these is at fault (`RemoteError`); a user that does gets a sentence. Nothing grows
without one.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# --- objects ----------------------------------------------------------------------------------------------------

#: One bundle's sealed payload. Small enough that a contact cut anywhere costs a fraction of a second of Wi-Fi, and
#: a few are held in memory; large enough that signature and HPKE overhead (1.2 KiB) stay below 1 %.
PAYLOAD_SIZE_MAX: Final = 256 * KIB

#: The files of one message together. A registration has 0.1 to 2 MB; this leaves room for a scanned family register.
MESSAGE_SIZE_MAX: Final = 256 * MIB

#: Bundles of one message: what MESSAGE_SIZE_MAX needs, with room for the manifest.
PARTS_MAX: Final = 2048

#: A message's manifest (kind, meta, reference, file names) before sealing.
MANIFEST_SIZE_MAX: Final = 64 * KIB
FILES_MAX: Final = 256
FILE_NAME_SIZE_MAX: Final = 255  # bytes of UTF-8: what ext4, APFS and NTFS all take
KIND_SIZE_MAX: Final = 64
REFERENCE_SIZE_MAX: Final = 1024

#: A header has 14 items of at most 36 bytes; a certificate is about 330 bytes.
HEADER_SIZE_MAX: Final = 512
CERTIFICATE_SIZE_MAX: Final = 2 * KIB

#: A fleet document: some endpoints of 1.3 KiB and 16 bytes a revoked device.
DOCUMENT_SIZE_MAX: Final = 256 * KIB
ENDPOINTS_MAX: Final = 16
ADDRESSES_MAX: Final = 32
REVOKED_MAX: Final = 8192

#: Numbers in a journal. A daemon that runs for a year and takes one bundle a second stays far below.
NUMBER_MAX: Final = 2**40
#: Ranges in one range set. Holdings have a range a gap, and gaps close; more is a lie or a flood.
RANGES_MAX: Final = 4096

NAME_SIZE_MAX: Final = 63

# --- frames and contacts ----------------------------------------------------------------------------------------

#: The largest frame: a bundle with its header and signature, or a list of many journals.
FRAME_SIZE_MAX: Final = 512 * KIB
#: Journals in one HAVE, WANT or STORED; a longer list is sent as several frames.
JOURNALS_PER_FRAME: Final = 1024
#: Items in any one list: the ranges of a journal, two numbers each, the revoked devices, or what a manifest can hold.
#: What says that it has more is not read: a few bytes can announce lists within lists of millions.
ITEMS_MAX: Final = 32 * KIB

#: Bundle bytes that a receiver lets be on their way to it. At 100 Mbit/s and 100 ms this keeps the link full, and is
#: what a contact holds in memory at most, twice: once on its way, once on the way to the disk.
CREDIT_BYTES: Final = 8 * MIB
#: Bundle bytes handed to a link ahead of what it has sent: what it sends in so long, from the first to the last of
#: these. Little, so that what is urgent overtakes on a slow link; enough to keep a fast one full.
SEND_AHEAD_S: Final = 0.1
SEND_AHEAD_FIRST_BYTES: Final = 8 * KIB
SEND_AHEAD_BYTES: Final = 1 * MIB

#: Silence after which a PING is sent, and after which the contact counts as lost.
PING_AFTER_S: Final = 5.0
DEAD_AFTER_S: Final = 15.0
#: A peer has this long to finish TLS and say HELLO.
HANDSHAKE_S: Final = 10.0
#: Two contacts between one pair that open within this time came from both sides dialling at once; later, the new one
#: means that the peer has lost the old one.
DUPLICATE_WINDOW_S: Final = 3.0

#: The longest delay to an office that a node can tell, and what it tells while it does not know: half a year, the
#: lifetime of a bundle.
AWAY_S_MAX: Final = 180 * 24 * 3600
#: Rows of hearsay in one contact: journals and devices that hold some of them. Some 30 bytes each, and they fit into
#: one frame.
HEARD_MAX: Final = 1024
#: Ranges in each row.
HEARD_RANGES_MAX: Final = 16

#: A node whose bundles gain less than those that come waits for the peer, but no longer than this for some of them.
HOLD_S: Final = 5.0

# --- dialling ---------------------------------------------------------------------------------------------------

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0
#: For an address of which we only know that somebody was met there once; there may be many of them.
BACKOFF_REMEMBERED_MAX_S: Final = 600.0
#: The device with the higher id waits this long for the other to dial.
POLITE_S: Final = 1.0
DIAL_TIMEOUT_S: Final = 10.0
#: Contacts in a crowd that one device dials, besides one that keeps the crowd together. Up to so many and one more in a
#: place all are in contact with all; a hundred have two dozen contacts each instead of 99.
DIALLED_MAX: Final = 12
#: Addresses remembered of peers met before; the oldest is forgotten.
REMEMBERED_MAX: Final = 64

# --- the store --------------------------------------------------------------------------------------------------

#: Free disk that is never used: the operating system of an officer's laptop needs it. On a small disk 5 % of it.
FLOOR_BYTES: Final = 256 * MIB
FLOOR_SHARE: Final = 0.05
#: Bundles of others that a node carries.
FOREIGN_QUOTA_BYTES: Final = 8 * GIB
#: A gateway stays where it is, has a larger disk, and is where what many carry comes together.
GATEWAY_QUOTA_BYTES: Final = 64 * GIB
#: A foreign bundle is discarded when its age exceeds the lifetime that its source gave it. Half a year: longer than
#: any device stays away from every colleague.
LIFETIME_S: Final = 180 * 24 * 3600
LIFETIME_S_MAX: Final = 10 * 365 * 24 * 3600
#: After a write has failed nothing is fetched for so long: a broken disk must not keep the air busy for nothing.
STORE_REST_S: Final = 60.0
#: Own bundles that the office has signed for are kept this long, in case it has to ask again.
KEEP_RECEIPTED_S: Final = 7 * 24 * 3600

# --- what a peer may make us remember ---------------------------------------------------------------------------

#: Journals that one contact may list. A fleet of 500 devices that start daily for a month stays below.
PEER_JOURNALS_MAX: Final = 16 * 1024
#: Ranges of numbers in all of them together: a journal has a few, so this is a lie or a flood. Some 20 MB.
PEER_RANGES_MAX: Final = 128 * 1024
#: Journals that one device may sign for: an office that starts each day and writes to it has these in ten years.
DEVICE_JOURNALS_MAX: Final = 4096
#: Ranges in one receipt of a device: what the office writes to one person has a gap or two. With the journals above,
#: the most that one device can make all others remember is some 40 MB.
DEVICE_RANGES_MAX: Final = 64
#: Numbers that a peer may take back, or ask for though it has asked already, without a reason: at once, besides what
#: there is to ask for, and in a second. Twenty bytes name them all, and each takes us a microsecond or two.
ASKED_AGAIN_MAX: Final = 64 * KIB
ASKED_AGAIN_PER_S: Final = 4 * KIB
#: Contacts at once; more are refused. A crowd on one Wi-Fi, with both directions colliding.
CONTACTS_MAX: Final = 256
#: A contact that owes bundles and has sent neither one nor a good piece of one for so long is no longer waited for if
#: another has them. A bundle takes minutes on a weak link; what comes more slowly than this does not come.
STALL_S: Final = 20.0
STALL_BYTES: Final = 8 * KIB
#: Nor is one of which nothing at all has been heard for so long: longer than a bad round trip.
HUSH_S: Final = 4.0
#: Fewest bundles worth taking over from another contact; less arrives before the request would.
TAKE_OVER_MIN: Final = 4
#: A member that broke the protocol is left alone for so long: its fault may be over after a restart.
SHUN_S: Final = 60.0
#: Between two rounds of what can wait: expiry, and letting go of own bundles that are long delivered.
HOUSEKEEPING_S: Final = 600.0

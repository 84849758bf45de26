"""The sink that needs nothing else: each message becomes a folder.

    DIR/<date>/<source name>/<key with ':' as '-'>/        its files under their own names, and message.json
    DIR/held/<date>/<source name>/<key with ':' as '-'>/   the same for what an operator has to decide on
    DIR/.incoming/<key with ':' as '-'>/                   being written; nobody else's business

<date> is the UTC date on which the message was received. A folder appears whole or not at all: it is written aside,
every file and the folder itself are flushed, then it is renamed to its place, then the folders above are flushed.

Exactly once for each key: what stands in its place was whole when it was renamed. It may have been renamed by a process
that died before it could flush the folders above, so they are flushed before it counts as taken. It is looked for
under every date, since a bundle that had to be fetched again makes the message a later one. Who moves a folder away
before the office has signed for it (it does so within a moment) and then loses power may get it a second time: the key
in message.json says so.

What the system needs stays free: a message that would leave less than the floor waits. The floor is the store's, or
5 % of this disk where that is less, and a little for the store itself.

Names come from elsewhere. `core.message` has checked them; here each is created new (O_EXCL), without following links,
relative to an open folder, and never with a separator in it. Citizens' data: folders are 0700, files 0600.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from meshnode.core.limits import FLOOR_SHARE, KIB, MIB
from meshnode.core.message import MANIFEST_NAME, Manifest
from meshnode.core.words import say
from meshnode.office.sinks import Envelope, Never, NotNow
from meshnode.office.sinks.listing import listing

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
INCOMING: Final = ".incoming"
HELD: Final = "held"

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: What a file system answers to a name that it cannot take: no time will change that.
_NAME_REFUSED: Final = frozenset({errno.EEXIST, errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG})
#: What a file system answers that cannot flush folders, as some network shares do.
_NO_FLUSH: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSUP})
#: What a file takes besides its bytes, and a message besides its files: the ends of blocks, names, message.json.
_FILE_BYTES: Final = 8 * KIB
_MESSAGE_BYTES: Final = 64 * KIB
#: What the store, probably on the same disk, may need to let go of what was taken: its log.
STORE_BYTES: Final = 12 * MIB
#: The last millisecond of the year 9999, where dates end.
_RECEIVED_MS_MAX: Final = 253_402_300_799_999


class DirectorySink:
    """Takes messages into the folder `root`, which is made if it is not there.

    Only at first: a folder that goes away later is a disk that was unmounted, so messages wait until it is back.
    """

    def __init__(self, root: Path, floor_bytes: Callable[[], int] = lambda: 0) -> None:
        """Takes away what a crash left in .incoming. What does not work now is tried again at `begin`."""
        self._root = root
        self._floor_bytes = floor_bytes
        self._prepared = False
        with contextlib.suppress(NotNow):
            self._prepare()

    def _prepare(self) -> None:
        if self._prepared:
            return
        with _disk(self._root):
            _make_folders(self._root)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._root / INCOMING)
        self._prepared = True

    def begin(self, envelope: Envelope, manifest: Manifest) -> DirectoryDelivery | None:
        """As `Sink.begin`."""
        name = _component(envelope.key.replace(":", "-"))
        source = _component(envelope.source)
        self._prepare()
        with _disk(self._root):
            taken = self._find(source, name)
            if taken is not None:
                _flush_up(taken.parent, self._root)
                return None
            self._check_room(manifest)
            incoming = self._root / INCOMING
            _make_folder(incoming)
            aside = incoming / name
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(aside)
            os.mkdir(aside, FOLDER_MODE)
            top = self._root if envelope.held is None else self._root / HELD
            place = top / _date(envelope.received_ms) / source / name
            return DirectoryDelivery(self._root, aside, place, envelope, manifest)

    def _check_room(self, manifest: Manifest) -> None:
        """Raises NotNow, if the message would go below the floor. Raises OSError."""
        disk = shutil.disk_usage(self._root)
        if not (floor_bytes := min(self._floor_bytes(), int(disk.total * FLOOR_SHARE))):
            return
        floor_bytes += STORE_BYTES
        needed_bytes = manifest.files_size + len(manifest.files) * _FILE_BYTES + _MESSAGE_BYTES
        if disk.free - needed_bytes < floor_bytes:
            raise NotNow(
                say(
                    "{folder} has too little space for a message of {size_bytes} bytes: {free_mib} MiB are free,"
                    " and {floor_mib} MiB have to stay free",
                    folder=self._root,
                    size_bytes=manifest.files_size,
                    free_mib=disk.free // MIB,
                    floor_mib=floor_bytes // MIB,
                )
            )

    def _find(self, source: str, name: str) -> Path | None:
        """The folder of a message that was taken before, whatever its date. Raises OSError."""
        for top in (self._root, self._root / HELD):
            try:
                dates = os.listdir(top)
            except FileNotFoundError:
                if top == self._root:
                    raise
                continue
            for date in filter(_DATE.fullmatch, dates):
                place = top / date / source / name
                try:
                    if stat.S_ISDIR(os.stat(place, follow_symlinks=False).st_mode):
                        return place
                except (FileNotFoundError, NotADirectoryError):
                    continue
        return None


class DirectoryDelivery:
    """One message on its way: written in `aside`, to become `place`. As `Delivery`."""

    def __init__(self, root: Path, aside: Path, place: Path, envelope: Envelope, manifest: Manifest) -> None:
        self._root = root
        self._aside = aside
        self._place = place
        self._envelope = envelope
        self._manifest = manifest
        self._digests: list[str] = []
        self._hash = hashlib.sha256()
        self._file: int | None = None
        self._folder: int | None = os.open(aside, _FOLDER_FLAGS)

    def write(self, index: int, data: bytes | memoryview) -> None:
        """As `Delivery.write`."""
        with _disk(self._root):
            self._advance(index)
            assert self._file is not None
            self._hash.update(data)
            _write_all(self._file, data)

    def commit(self) -> None:
        """As `Delivery.commit`."""
        assert self._folder is not None
        with _disk(self._root):
            self._advance(len(self._manifest.files) - 1)
            self._finish_file()
            self._file = self._create(MANIFEST_NAME)
            _write_all(self._file, listing(self._envelope, self._manifest, self._digests))
            self._flush_file()
            self._close()
            _flush(self._aside)
            for folder in reversed(_below(self._place.parent, self._root)):
                _make_folder(folder)
            os.rename(self._aside, self._place)
            _flush_up(self._place.parent, self._root)
            _flush(self._aside.parent)

    def abort(self) -> None:
        """As `Delivery.abort`."""
        with contextlib.suppress(OSError):
            self._close()
        shutil.rmtree(self._aside, ignore_errors=True)

    def _advance(self, index: int) -> None:
        """Open file `index`; those before it are finished, and empty if nothing was written to them."""
        while self._file is None or len(self._digests) < index:
            self._finish_file()
            self._file = self._create(self._manifest.files[len(self._digests)].name)
            self._hash = hashlib.sha256()

    def _create(self, name: str) -> int:
        try:
            return os.open(_component(name), _FILE_FLAGS, FILE_MODE, dir_fd=self._folder)
        except OSError as error:
            if error.errno not in _NAME_REFUSED:
                raise
            number = len(self._digests) + 1
            wrong = say("the disk takes no file of the name that its file {number} has", number=number)
            raise Never(wrong) from error

    def _finish_file(self) -> None:
        if self._file is not None:
            self._flush_file()
            self._digests.append(self._hash.hexdigest())

    def _flush_file(self) -> None:
        assert self._file is not None
        os.fsync(self._file)
        file, self._file = self._file, None
        os.close(file)

    def _close(self) -> None:
        open_ones = [descriptor for descriptor in (self._file, self._folder) if descriptor is not None]
        self._file = self._folder = None
        for descriptor in open_ones:
            os.close(descriptor)


def _component(name: str) -> str:
    """`name`, if it is one component of a path. Raises Never."""
    if not name or name in (".", "..") or any(letter in name for letter in "/\\\0"):
        raise Never("it has a name that is a path")
    return name


def _date(wall_ms: int) -> str:
    moment = datetime.fromtimestamp(min(max(wall_ms, 0), _RECEIVED_MS_MAX) // 1000, UTC)
    return moment.strftime("%Y-%m-%d")


@contextlib.contextmanager
def _disk(root: Path) -> Iterator[None]:
    """Trouble of the disk is over some day. The sentence names the folder only: file names may name people."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise NotNow(say("{path} cannot be written: {problem}", path=root, problem=why)) from error


def _make_folder(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, FOLDER_MODE)


def _make_folders(folder: Path) -> None:
    """Make a folder and those above it, durably. A process may have made them and died before it could flush, so all
    above are flushed; one that may not be read was not made by us."""
    if folder.parent == folder:
        return
    _make_folders(folder.parent)
    if not folder.is_dir():
        _make_folder(folder)
    with contextlib.suppress(PermissionError):
        _flush(folder.parent)


def _below(folder: Path, root: Path) -> list[Path]:
    """`folder` and those above it up to `root`, which is not among them."""
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(root) and parent != root)]


def _flush_up(folder: Path, root: Path) -> None:
    """Make what was put into `folder` durable, and each folder on the way to it."""
    for changed in [*_below(folder, root), root]:
        _flush(changed)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
    finally:
        os.close(descriptor)


def _write_all(file: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]

"""The unit by which systemd runs a node: what stands in it, where it lies, and whose it is.

Two kinds. The machine's own service is for a gateway, an office, or a device that several people use: it runs as the
user `meshnode`, with the home /var/lib/meshnode, and sees nothing else of the machine. An officer's own service runs as
that officer, from login on (or from boot, with lingering).

The first line of a unit that was written here has a digest of the rest. So a unit of somebody else, and one that was
changed by hand, are known, and are not written over before a person has said so. What stands in between @ signs in the
templates beside this module is filled in here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from meshnode import __version__
from meshnode.app.files import PUBLIC, check_replaceable, read_optional, trouble, write_file
from meshnode.app.passphrase import CREDENTIAL
from meshnode.core.errors import LocalError
from meshnode.core.limits import KIB

UNIT: Final = "meshnode.service"
USER: Final = "meshnode"
SYSTEM_HOME: Final = Path("/var/lib/meshnode")
SYSTEM_FOLDER: Final = Path("etc/systemd/system")
#: Where a package has put its own unit.
PACKAGED: Final = (Path("usr/lib/systemd/system"), Path("lib/systemd/system"))
#: The machine's users keep these to themselves; a unit with ProtectHome does not see them.
PRIVATE_FOLDERS: Final = (Path("/home"), Path("/root"), Path("/run/user"))
UNIT_SIZE_MAX: Final = 256 * KIB

_TEMPLATES: Final = Path(__file__).parent / "units"
_MARK: Final = re.compile(
    r"# Written by meshnode \S+; change it with `systemctl [a-z -]*edit [^`]*`\. ([0-9a-f]{64})\n"
)
#: What systemd reads in a word otherwise than it stands there (systemd.syntax(7), systemd.service(5)).
_SPECIAL: Final = re.compile(r"[^A-Za-z0-9/._+:,@=-]")


class UnitOfOther(LocalError):
    """{path} was not written by meshnode: look at what it does, then use --replace, which keeps it as {kept}; nothing
    was changed."""


class UnitEdited(LocalError):
    """{path} was changed by hand since meshnode wrote it: move the changes into `systemctl edit meshnode`, which
    survives upgrades, then use --replace, which keeps it as {kept}; nothing was changed."""


class UnitOfPackage(LocalError):
    """The package has brought a unit, {path}: run `systemctl enable --now meshnode`, and change it with `systemctl edit
    meshnode`; with --replace one in {folder} takes its place."""


class ProgramOutOfReach(LocalError):
    """The service runs as the user meshnode, who cannot reach the program {path}: install it for the whole machine, as
    in /opt, or use --user."""


class BadUnitPath(LocalError):
    """{path} cannot stand in a unit of systemd: use a path without colons, and without what cannot be shown."""


class Standing(Enum):
    """What is where a unit belongs."""

    ABSENT = "absent"
    OURS = "ours"
    EDITED = "edited"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Unit:
    """Where a unit lies, and what is to stand in it."""

    path: Path
    text: str

    def standing(self) -> Standing:
        """Whose the file is that lies there now. Raises FileTrouble."""
        return standing(self.path)

    def install(self, *, replace: bool) -> Path | None:
        """Write it; where what was there before is kept, if that was not as we wrote it. `replace`: a person has agreed
        to that. Raises UnitOfOther, UnitEdited or FileTrouble; then nothing was changed."""
        found = self.standing()
        kept = self._aside() if found in (Standing.OTHER, Standing.EDITED) else None
        if kept is not None and not replace:
            raise (UnitOfOther if found is Standing.OTHER else UnitEdited)(path=self.path, kept=kept)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            check_replaceable(self.path)
            if kept is not None:
                os.replace(self.path, kept)
        except OSError as error:
            raise trouble(self.path, error, "written") from None
        write_file(self.path, self.text.encode(), PUBLIC)
        return kept

    def _aside(self) -> Path:
        number = 1
        while os.path.lexists(kept := self.path.with_name(f"{self.path.name}.old-{number}")):
            number += 1
        return kept

    def remove(self) -> bool:
        """Take it away; whether there was one. Raises UnitOfOther or UnitEdited, FileTrouble."""
        found = self.standing()
        if found is Standing.ABSENT:
            return False
        if found is not Standing.OURS:
            raise (UnitOfOther if found is Standing.OTHER else UnitEdited)(path=self.path, kept=self._aside())
        try:
            self.path.unlink()
        except OSError as error:
            raise trouble(self.path, error, "removed") from None
        return True


def standing(path: Path) -> Standing:
    """Whose unit this is. Raises FileTrouble."""
    data = read_optional(path, UNIT_SIZE_MAX)
    if data is None:
        return (
            Standing.OTHER if os.path.lexists(path) else Standing.ABSENT
        )  # a link to nowhere: masked by somebody
    mark, _, body = data.partition(b"\n")
    found = _MARK.fullmatch(mark.decode("utf-8", "replace") + "\n")
    if found is None:
        return Standing.OTHER
    return Standing.OURS if hashlib.sha256(body).hexdigest() == found[1] else Standing.EDITED


def system_unit(
    program: list[str], home: Path, passphrase: Path | None, root: Path = Path("/"), user: str = USER
) -> Unit:
    """The machine's own service. `root`: of the system that it is for. Raises BadUnitPath."""
    text = _fill("system.service", program, home, passphrase)
    text = text.replace("@USER@", user).replace("@STATE@", _state(home))
    return Unit(root / SYSTEM_FOLDER / UNIT, _marked(text, "edit meshnode"))


def user_unit(program: list[str], home: Path, passphrase: Path | None, folder: Path | None = None) -> Unit:
    """The service of whoever runs this; `folder`: of that user's units. Raises BadUnitPath."""
    text = _fill("user.service", program, home, passphrase)
    return Unit((folder or user_folder()) / UNIT, _marked(text, "--user edit meshnode"))


def user_folder() -> Path:
    """Where a user's own units are (systemd.unit(5))."""
    configuration = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(configuration) if os.path.isabs(configuration) else Path.home() / ".config"
    return base / "systemd" / "user"


def packaged_unit(root: Path) -> Path | None:
    """The unit that a package has brought, if one has."""
    return next((root / folder / UNIT for folder in PACKAGED if (root / folder / UNIT).exists()), None)


def this_program() -> list[str]:
    """How to start this meshnode, without a shell and wherever the service starts."""
    beside = Path(sys.executable).with_name("meshnode")
    if os.access(beside, os.X_OK):
        return [str(beside)]
    if (found := shutil.which("meshnode")) and Path(sys.argv[0]).name == "meshnode":
        return [os.path.abspath(found)]
    return [sys.executable, "-m", "meshnode"]


def check_reach(*programs: Path) -> None:
    """Raises ProgramOutOfReach if one of these, or what it is a link to, is in a folder that only its user sees."""
    for path in programs:
        for place in (path, Path(os.path.realpath(path))):
            if _is_private(place):
                raise ProgramOutOfReach(path=place)


def systemd_runs() -> bool:
    """Whether systemd runs this machine (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def _fill(template: str, program: list[str], home: Path, passphrase: Path | None) -> str:
    credential = "" if passphrase is None else f"LoadCredential={CREDENTIAL}:{_plain(passphrase)}\n"
    text = (_TEMPLATES / template).read_text("utf-8").replace("@CREDENTIAL@\n", credential)
    text = text.replace("@PROGRAM@", " ".join(map(_argument, program)))
    text = text.replace("@HOME@", _argument(str(home)))
    return text.replace("@HOME_PATH@", _plain(home))


def _state(home: Path) -> str:
    """What of the disk the service may write, and how much of the users' folders it sees."""
    if home == SYSTEM_HOME:
        return "StateDirectory=meshnode\nStateDirectoryMode=0700\nProtectHome=true"
    if not _is_private(home):
        return f"ReadWritePaths={_word(home)}\nProtectHome=true"
    return f"ProtectHome=tmpfs\nBindPaths={_word(home)}"


def _is_private(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in PRIVATE_FOLDERS)


def _plain(path: Path) -> str:
    """A path that takes the rest of its line. Raises BadUnitPath."""
    text = str(path)
    if ":" in text or not text.isprintable():
        raise BadUnitPath(path=repr(text))
    return text.replace("%", "%%")


def _word(path: Path) -> str:
    """One word of a line of several. Raises BadUnitPath."""
    plain = _plain(path)
    if not _SPECIAL.search(plain):
        return plain
    quoted = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def _argument(text: str) -> str:
    """One word of a command, in which a dollar sign is special too. Raises BadUnitPath."""
    return _word(Path(text)).replace("$", "$$") if text.startswith("/") else text


def _marked(text: str, edit: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"# Written by meshnode {__version__}; change it with `systemctl {edit}`. {digest}\n{text}"

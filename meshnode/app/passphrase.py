"""The passphrase of a node's own keys, if they have one: in a file, never in an argument or a variable.

A service gets it as the systemd credential CREDENTIAL (systemd.exec(5), LoadCredential), everybody else names the file
in FILE_VARIABLE. When there is one, `meshnode init` encrypts the keys that it makes, and all who need a key read it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from meshnode.app.files import read_file, read_optional
from meshnode.core.errors import EmptyPassphrase, FileTrouble
from meshnode.core.words import say

FILE_VARIABLE: Final = "MESHNODE_PASSPHRASE_FILE"
CREDENTIAL: Final = "meshnode-passphrase"
PASSPHRASE_SIZE_MAX: Final = 1023  # what OpenSSL takes


def read_passphrase(path: Path) -> bytes:
    """The passphrase in a file: its content without the line's end. Raises EmptyPassphrase or FileTrouble."""
    passphrase = read_file(path, PASSPHRASE_SIZE_MAX + 2)
    passphrase = passphrase.removesuffix(b"\n").removesuffix(b"\r")
    if not passphrase:
        raise EmptyPassphrase(path=path)
    if len(passphrase) > PASSPHRASE_SIZE_MAX:
        wrong = say("is too large: more than {limit_bytes} bytes", limit_bytes=PASSPHRASE_SIZE_MAX)
        raise FileTrouble(path=path, problem=wrong)
    return passphrase


def node_passphrase() -> bytes | None:
    """The passphrase of the keys in this node's home, if one is given. Raises EmptyPassphrase or FileTrouble."""
    if named := os.environ.get(FILE_VARIABLE):
        return read_passphrase(Path(named))
    credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / CREDENTIAL
    there = read_optional(credential, PASSPHRASE_SIZE_MAX + 2) is not None
    return read_passphrase(credential) if there else None

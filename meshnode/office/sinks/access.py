"""How the office shows an HTTP server who it is, and how it knows the server: the files of `[office.http]`."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from meshnode.core.limits import MIB
from meshnode.core.words import say
from meshnode.office.sinks import BadSinkFile, HttpFiles
from meshnode.office.sinks.saying import why

#: All authorities of the world are 250 KiB.
_FILE_SIZE_MAX: Final = MIB
#: What a header can carry, and then some: RFC 6750 has fewer characters.
_TOKEN: Final = re.compile(r"[!-~]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Access:
    """What the files hold: headers of each request, with the token, and how to do TLS."""

    headers: dict[str, str] = field(repr=False)
    tls: ssl.SSLContext


def read_access(home: Path, files: HttpFiles) -> Access:
    """What is in the files; relative ones are inside `home`. Raises BadSinkFile."""
    headers = {"User-Agent": "meshnode", "Accept-Encoding": "identity"}
    if files.token_file is not None:
        path = home / files.token_file
        token = _read("token_file", path).decode("utf-8", "replace").strip()
        if not _TOKEN.fullmatch(token):
            raise BadSinkFile(
                key="token_file", path=path, problem="does not hold a token: one word in one line"
            )
        headers["Authorization"] = f"Bearer {token}"
    return Access(headers, _read_tls(home, files))


def _read_tls(home: Path, files: HttpFiles) -> ssl.SSLContext:
    """TLS that checks the server, by the authorities of `ca_file` only if there is one. Raises BadSinkFile."""
    authorities = None
    if files.ca_file is not None:
        authorities = home / files.ca_file
        _read("ca_file", authorities)
    try:
        context = ssl.create_default_context(cafile=authorities)
    except (ssl.SSLError, ValueError):
        raise BadSinkFile(key="ca_file", path=authorities, problem="holds no certificate in PEM") from None
    if files.certificate_file is None:
        return context
    certificate, key = home / files.certificate_file, None
    _read("certificate_file", certificate)
    if files.key_file is not None:
        key = home / files.key_file
        _read("key_file", key)
    try:
        context.load_cert_chain(certificate, key, _no_passphrase)
    except (ssl.SSLError, ValueError):
        raise BadSinkFile(
            key="certificate_file",
            path=certificate,
            problem="is no certificate in PEM with its key, unencrypted, in the same file or in `key_file`",
        ) from None
    return context


def _no_passphrase() -> str:
    """Otherwise OpenSSL asks for one on the terminal."""
    raise ValueError


def _read(key: str, path: Path) -> bytes:
    """The content of a file, which says by its error that it can be read. Raises BadSinkFile."""
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_SIZE_MAX + 1)
    except FileNotFoundError:
        raise BadSinkFile(key=key, path=path, problem="does not exist") from None
    except OSError as error:
        raise BadSinkFile(
            key=key, path=path, problem=say("cannot be read: {problem}", problem=why(error))
        ) from None
    if len(data) > _FILE_SIZE_MAX:
        wrong = say("has more than {limit_bytes} bytes", limit_bytes=_FILE_SIZE_MAX)
        raise BadSinkFile(key=key, path=path, problem=wrong)
    return data

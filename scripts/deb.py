"""A Debian package of this checkout: the program and all libraries that it needs, in a virtual environment of its own.

Debian has some of the libraries, and too old ones. So the package brings them: /usr/lib/meshnode is a virtual
environment on the system's Python, which is why a package fits one release of Debian or Ubuntu. The libraries are those
that are installed beside the Python that runs this, as `scripts/venv` has them; nothing is downloaded. What dpkg puts
there stays as it is, so the compiled modules come along, and are not checked against their sources.

The same checkout and the same libraries give the same bytes: times are SOURCE_DATE_EPOCH, or else that of the newest
commit.
"""

from __future__ import annotations

import argparse
import compileall
import gzip
import hashlib
import importlib.metadata
import os
import py_compile
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path
from typing import Final

from click.shell_completion import get_completion_class
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from meshnode.app.cli import main as command
from meshnode.app.service import SYSTEM_HOME, UNIT, system_unit

ROOT: Final = Path(__file__).resolve().parents[1]
PYTHON: Final = f"python3.{sys.version_info.minor}"
PLACE: Final = Path("usr/lib/meshnode")
COMPLETIONS: Final = {
    "bash": "usr/share/bash-completion/completions/meshnode",
    "zsh": "usr/share/zsh/vendor-completions/_meshnode",
    "fish": "usr/share/fish/vendor_completions.d/meshnode.fish",
}
#: Of a library, what running it does not need.
NOT_NEEDED: Final = re.compile(
    r"(^|/)(__pycache__|tests|_tests)/|\.(pyc|pyi|pyx|pxd|c|h)$|/(RECORD|INSTALLER|REQUESTED)$"
)

_LICENCES: Final = ("License-Expression", "License")

STARTER: Final = f"""\
#!/{PLACE}/bin/python3 -I
from meshnode.app.cli import main

main(prog_name="meshnode")
"""
CONTROL: Final = """\
Package: meshnode
Version: {version}
Architecture: {architecture}
Maintainer: The meshnode authors <meshnode@localhost>
Depends: {python}, passwd, init-system-helpers, libc6 (>= {libc})
Section: net
Priority: optional
Installed-Size: {size_kib}
Description: carries sealed records to the office where there is no internet
 Officers of a civil registry record people where there is no internet. Their
 devices swap the sealed records when they meet, and whoever first reaches the
 office delivers for all. This package runs a node as a service of the machine.
"""


def libraries() -> list[Distribution]:
    """All that meshnode needs to run, installed beside this Python; by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    todo = [(Requirement(text), "") for text in project["dependencies"]]
    seen: set[tuple[str, str]] = set()
    found: dict[str, Distribution] = {}
    while todo:
        wanted, of_extra = todo.pop()
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": of_extra}):
            continue
        name = canonicalize_name(wanted.name)
        found[name] = importlib.metadata.distribution(name)
        for extra in {"", *wanted.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                todo += [(Requirement(text), extra) for text in found[name].requires or []]
    return [found[name] for name in sorted(found)]


def version_of(source: Path) -> str:
    """The version that a checkout has, in Debian's order: 1.0rc1 is older than 1.0."""
    text = (source / "meshnode" / "__init__.py").read_text()
    match = re.search(r'^__version__ = "([0-9][0-9a-z.+]*)"$', text, re.MULTILINE)
    if match is None:
        raise SystemExit(f"deb: no version in {source}/meshnode/__init__.py")
    return re.sub(r"(?<=\d)\.?(a|b|rc|dev)", r"~\1", match[1])


def time_of(source: Path) -> int:
    """The time that everything in the package gets, in seconds since 1970."""
    if said := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(said)
    asked = subprocess.run(
        ["git", "-C", str(source), "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False
    )
    return int(asked.stdout) if asked.returncode == 0 and asked.stdout.strip() else 0


def stage_libraries(work: Path) -> Path:
    """The libraries, compiled, in a folder; of the same versions only once in the same `work`."""
    found = libraries()
    versions = f"{PYTHON} {[(library.name, library.version) for library in found]}"
    site = work / f"libraries-{hashlib.sha256(versions.encode()).hexdigest()[:16]}"
    if site.exists():
        return site
    making = work / "libraries.making"
    shutil.rmtree(making, ignore_errors=True)
    for library in found:
        for file in library.files or ():
            name = file.as_posix()
            if not name.startswith("..") and not NOT_NEEDED.search(name):
                put(making / name, Path(str(file.locate())).read_bytes())
    compile_all(making)
    os.replace(making, site)
    return site


def compile_all(folder: Path) -> None:
    """Compile all modules as if they lay where they are going to."""
    site = f"/{PLACE}/lib/{PYTHON}/site-packages"
    good = compileall.compile_dir(
        folder,
        quiet=1,
        maxlevels=20,
        stripdir=str(folder),
        prependdir=site,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not good:
        raise SystemExit("deb: a module could not be compiled")


def stage(root: Path, source: Path, work: Path) -> None:
    """The files of the package, as they are going to lie."""
    site = root / PLACE / "lib" / PYTHON / "site-packages"
    program = work / "program"
    shutil.rmtree(program, ignore_errors=True)
    shutil.copytree(
        source / "meshnode",
        program / "meshnode",
        ignore=shutil.ignore_patterns("__pycache__", "*.po", "*.pot"),
    )
    compile_all(program)
    for part in (stage_libraries(work), program):
        shutil.copytree(part, site, dirs_exist_ok=True, copy_function=os.link)
    python = root / PLACE / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.symlink_to(f"/usr/bin/{PYTHON}")
    put(root / PLACE / "pyvenv.cfg", b"home = /usr/bin\ninclude-system-site-packages = false\n")
    put(root / "usr/bin/meshnode", STARTER.encode(), 0o755)
    put(
        root / "usr/lib/systemd/system" / UNIT,
        system_unit(["/usr/bin/meshnode"], SYSTEM_HOME, None).text.encode(),
    )
    for shell, path in COMPLETIONS.items():
        complete = get_completion_class(shell)
        assert complete is not None
        put(root / path, complete(command, {}, "meshnode", "_MESHNODE_COMPLETE").source().encode() + b"\n")
    documents = root / "usr/share/doc/meshnode"
    put(documents / "copyright", copyright_text(source).encode())
    put(documents / "changelog.gz", gzip.compress((source / "CHANGELOG.md").read_bytes(), 9, mtime=0))
    for name in ("README.md", "SECURITY.md", "docs/operations/install.md"):
        if (source / name).exists():
            put(documents / Path(name).name, (source / name).read_bytes())
    if (manual := source / "docs" / "meshnode.1").exists():
        put(root / "usr/share/man/man1/meshnode.1.gz", gzip.compress(manual.read_bytes(), 9, mtime=0))


def copyright_text(source: Path) -> str:
    """Whose work is in the package, and on what terms; the libraries' own words lie beside them."""
    lines = [
        "The libraries below /usr/lib/meshnode, whose licences lie in their *.dist-info folders there:\n"
    ]
    for library in libraries():
        said = next((found[0] for key in _LICENCES if (found := library.metadata.get_all(key))), "")
        lines.append(
            f"  {library.metadata['Name']} {library.version}: {said.splitlines()[0] if said else 'see there'}"
        )
    return "\n".join([*lines, "\nmeshnode itself:\n", (source / "LICENSE").read_text()])


def put(path: Path, data: bytes, mode: int = 0o644) -> None:
    """A file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def libc_of(site: Path) -> str:
    """The oldest C library that all compiled modules run on, by the tags of their wheels."""
    tags = "\n".join(path.read_text() for path in site.glob("*.dist-info/WHEEL"))
    return f"2.{max(int(minor) for minor in re.findall(r'manylinux_2_([0-9]+)_', tags) or ['17'])}"


def files_below(root: Path) -> Iterator[Path]:
    """Every file and folder, in an order that is always the same."""
    for path in sorted(root.rglob("*")):
        if path.relative_to(root).parts[0] != "DEBIAN":
            yield path


def describe(root: Path, source: Path) -> str:
    """What dpkg is told of the package, and does; its version."""
    size = sum(path.lstat().st_size for path in files_below(root) if path.is_file())
    architecture = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    version = version_of(source)
    control = CONTROL.format(
        version=version,
        architecture=architecture,
        python=PYTHON,
        libc=libc_of(root / PLACE / "lib" / PYTHON / "site-packages"),
        size_kib=size // 1024,
    )
    put(root / "DEBIAN/control", control.encode())
    for script in ("postinst", "prerm", "postrm"):
        put(root / "DEBIAN" / script, (ROOT / "scripts/debian" / script).read_bytes(), 0o755)
    sums = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(root)}\n"
        for path in files_below(root)
        if path.is_file() and not path.is_symlink()
    ]
    put(root / "DEBIAN/md5sums", "".join(sums).encode())
    return f"meshnode_{version}_{architecture}.deb"


def build(source: Path, out: Path, work: Path, compress: str) -> Path:
    """The package, in the folder `out`."""
    root = work / "root"
    shutil.rmtree(root, ignore_errors=True)
    stage(root, source, work)
    name = describe(root, source)
    for path in (root, *root.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
        elif not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", f"-Z{compress}", "--build", str(root), str(out / name)],
        env=os.environ | {"SOURCE_DATE_EPOCH": str(time_of(source))},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    shutil.rmtree(root)
    return out / name


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build", metavar="DIR", help="where to put it")
    parser.add_argument(
        "--source", type=Path, default=ROOT, metavar="DIR", help="another checkout of the same"
    )
    parser.add_argument("--compress", default="xz", choices=["xz", "zstd", "gzip", "none"])
    arguments = parser.parse_args()
    if not Path(f"/usr/bin/{PYTHON}").exists():
        raise SystemExit(
            f"deb: this Python is {PYTHON}, and the system has no /usr/bin/{PYTHON}: the package needs it"
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    work = arguments.out / "work"
    work.mkdir(exist_ok=True)
    print(build(arguments.source.resolve(), arguments.out, work, arguments.compress))


if __name__ == "__main__":
    main()

"""Sentences for people: all are marked, all are translated, and each reader gets the language that is theirs."""

from __future__ import annotations

import http.client
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import trio

from meshnode.app.language import INDONESIAN, catalogue, of_browser, of_locale
from meshnode.core.errors import BadSubmission, FileTrouble, MeshnodeError, NoNode, RemoteError, sentence_of
from meshnode.core.words import Catalogue, Clause, Words, count, reading, say
from tests.app.fleets import Fleet, Node, command, environment
from tests.app.unmarked import Unmarked, unmarked

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "meshnode"
NOT_JSON: Final = "its description is not JSON"
#: What the control interface is given as a message: a description of 8 bytes that is none.
NONSENSE: Final = b"\0\0\0\x08nonsense"

#: Texts for people that stay as they are: in which module, how their code begins, and why.
AS_THEY_ARE: Final = {
    ("meshnode/app/cli/__init__.py", "f'meshnode: {error}'"): "the name of the program",
    ("meshnode/app/cli/service.py", "f'meshnode: {error}'"): "the name of the program",
    ("meshnode/app/cli/simulate.py", "f'meshnode: {text}'"): "the name of the program",
    ("meshnode/app/cli/simulate.py", 'f"meshnode simulate --contacts {'): "a command, to be typed as it is",
    ("meshnode/app/cli/web.py", "f'<!doctype html>"): "a page of one link, with the name of the program",
}


def indonesian() -> Catalogue:
    found = catalogue(INDONESIAN)
    assert found is not None
    return found


def in_indonesian(sentence: str, **fields: object) -> str:
    """A sentence as the catalogue has it, and that it is another one than the English."""
    translated = indonesian().gettext(sentence)
    assert translated != sentence, f"not in the catalogue: {sentence}"
    return translated.format(**fields)


# --- the catalogue is whole ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def collector() -> ModuleType:
    """scripts/words.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("words_collector", ROOT / "scripts" / "words.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entries(collector: ModuleType) -> set[tuple[str, str]]:
    """(for one, for many or "") of what is in the Indonesian catalogue."""
    ids = [message.id for message in collector.read(INDONESIAN) if message.id]
    return {(it, "") if isinstance(it, str) else (it[0], it[1]) for it in ids}


def test_the_catalogue_has_every_sentence_and_no_other(collector: ModuleType) -> None:
    said = set(collector.sentences())
    assert len(said) > 500
    had = entries(collector)
    assert sorted(said - had) == [], "run scripts/words, and translate what it adds"
    assert sorted(had - said) == [], "run scripts/words, which takes these away"


def test_every_sentence_is_translated(collector: ModuleType) -> None:
    assert collector.missing(collector.read(INDONESIAN)) == []


def test_what_a_node_reads_is_made_of_the_catalogue(collector: ModuleType) -> None:
    path = collector.po_path(INDONESIAN).with_suffix(".mo")
    assert path.read_bytes() == collector.mo_bytes(collector.read(INDONESIAN)), "run scripts/words"


# --- every sentence is marked --------------------------------------------------------------------------------------


def is_screen(path: Path) -> bool:
    """Whether a module is there to make texts for people."""
    return path.is_relative_to(PACKAGE / "app" / "cli") or path.is_relative_to(PACKAGE / "app" / "doctor")


def test_every_sentence_is_marked(collector: ModuleType) -> None:
    errors = {error.__name__ for error in collector._errors()}
    wrong, as_they_are = [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for each in unmarked(path.read_text(), errors, is_screen=is_screen(path)):
            excepted = [it for it in AS_THEY_ARE if it[0] == name and each.code.startswith(it[1])]
            as_they_are.update(excepted)
            if not excepted:
                wrong.append(f"{name}:{each.line}: {each.code}")
    assert not wrong, "\n".join(["mark these with say or count:", *wrong])
    assert as_they_are == set(AS_THEY_ARE), "an exception that is none any more"


UNMARKED: Final = """
def show(name, n, problem, flag):
    click.echo("Nothing is here.")
    click.echo(f"{name} is here.", err=True)
    click.echo("Here is " + name)
    click.echo("{} is here".format(name))
    look.style(f"{n} of them", bold=True)
    click.prompt("The passphrase")
    raise click.UsageError("It needs a name")
    raise BadConfig(path=name, problem=f"`{name}` is wrong")
    raise BadConfig(path=name, problem="has " + name)
    raise BadConfig(path="what was given", problem="is wrong")
    raise BadConfig(path=name, problem="is a file" if flag else f"is {name} or so")
    wrong = f"{name} is wrong"
    raise BadConfig(path=name, problem=wrong)
    raise NotNow(f"{name} is away")
    raise RemoteError("public key", "is wrong")
    bad("code", "All is wrong.", say("Do it again."))
    say(f"{name} is here")
    say(problem)
    count("{n} here", problem, n)
    return f"{n} are here"
"""
MARKED: Final = '''
def show(name, n, problem, words):
    """A sentence, which is the help of a command."""
    click.echo(say("Nothing is here."))
    click.echo(count("{n} is here", "{n} are here", n), err=True)
    click.echo(json.dumps({"a key": n}, indent=2))
    click.echo(f"\\r{words}", nl=False)
    raise click.UsageError(str(say("It needs a name")))
    raise BadConfig(path=name, problem="is wrong")
    raise BadConfig(path=f"{name}/{n}", problem=say("{name} is wrong", name=name))
    raise NotNow("it is away")
    raise NotNow(Clause(problem))
    raise RemoteError("document.name", "is wrong")
    raise RemoteError(say("public key"), "is wrong")
    raise ValueError("a fault of ours, which nobody reads")
    log.info(f"{name} is here, says the log")
    names.count("a b")
    answer.say(words)
    return ", ".join(words)
'''


def test_what_is_not_marked_is_found() -> None:
    lines = UNMARKED.splitlines()
    harmless = {0, 1, lines.index('    wrong = f"{name} is wrong"')}
    found = unmarked(UNMARKED, {"BadConfig", "NotNow", "RemoteError"}, is_screen=True)
    assert {each.line - 1 for each in found} == set(range(len(lines))) - harmless
    assert Unmarked(3, "'Nothing is here.'") in found


def test_what_is_marked_is_left_alone() -> None:
    assert unmarked(MARKED, {"BadConfig", "NotNow", "RemoteError"}, is_screen=True) == []


# --- one sentence, many readers ------------------------------------------------------------------------------------


def test_an_error_is_read_in_the_language_of_its_reader() -> None:
    with reading(indonesian()):
        error = BadSubmission(problem=NOT_JSON)
    assert str(error) == "The message was not taken: its description is not JSON."
    with reading(indonesian()):
        assert str(error) == in_indonesian(sentence_of(BadSubmission), problem=in_indonesian(NOT_JSON))
        with reading(None):
            assert str(error) == "The message was not taken: its description is not JSON."
    assert str(error) == "The message was not taken: its description is not JSON."


def test_what_stands_in_a_sentence_is_translated_too() -> None:
    large = say("is too large: more than {limit_bytes} bytes", limit_bytes=7)
    inner = FileTrouble(path="a.json", problem=large)
    error = BadSubmission(problem=Clause(inner))
    assert str(error) == "The message was not taken: a.json is too large: more than 7 bytes."
    with reading(indonesian()):
        said = in_indonesian(large.one, limit_bytes=7)
        assert str(error) == in_indonesian(sentence_of(BadSubmission), problem=f"a.json {said}")


@pytest.mark.parametrize("denied", ["permission denied", "Permission denied"])
def test_what_the_system_says_is_translated_too(denied: str) -> None:
    words = say("cannot be read: {problem}", problem=denied)
    with reading(indonesian()):
        assert str(words) == in_indonesian("cannot be read: {problem}", problem=in_indonesian(denied))


def test_a_number_has_its_form() -> None:
    def taken(n: int) -> Words:
        return count("{n} bundle taken", "{n} bundles taken", n)

    assert [str(taken(n)) for n in (0, 1, 2)] == ["0 bundles taken", "1 bundle taken", "2 bundles taken"]
    with reading(indonesian()):
        form = indonesian().ngettext("{n} bundle taken", "{n} bundles taken", 1)
        assert "taken" not in form
        assert [str(taken(n)) for n in (0, 1, 2)] == [form.format(n=n) for n in (0, 1, 2)]


def test_braces_in_a_field_are_text() -> None:
    error = RemoteError("document.name", say("is {item}", item="{problem} {}"))
    assert str(error) == "document.name is {problem} {}."


def test_every_error_has_a_sentence() -> None:
    assert issubclass(NoNode, MeshnodeError)
    assert str(NoNode(home="/home/siti")).startswith("There is no node in /home/siti: ")


async def test_a_language_is_a_task_s_own_and_follows_it_into_threads() -> None:
    words, there = say(NOT_JSON), trio.Event()
    said: dict[str, list[str]] = {}

    async def read(name: str, of: Catalogue | None) -> None:
        with reading(of):
            if len(said) == 1:
                there.set()
            said[name] = [str(words)]
            await there.wait()
            said[name] += [str(words), await trio.to_thread.run_sync(str, words)]

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "english", None)
            nursery.start_soon(read, "indonesian", indonesian())
    assert said == {"english": [NOT_JSON] * 3, "indonesian": [in_indonesian(NOT_JSON)] * 3}


# --- the daemon ----------------------------------------------------------------------------------------------------


class Asked:
    """A message that is posted to a daemon bit by bit, by whoever reads this language."""

    def __init__(self, node: Node, accept: str) -> None:
        host, port, token = node.door()
        self._connection = http.client.HTTPConnection(host, port, timeout=20)
        self._connection.putrequest("POST", "/v1/messages")
        self._connection.putheader("Authorization", f"Bearer {token}")
        self._connection.putheader("Accept-Language", accept)
        self._connection.putheader("Content-Length", str(len(NONSENSE)))
        self._connection.endheaders(NONSENSE[:6])

    def answer(self) -> str:
        """What the daemon says once it has the rest."""
        try:
            self._connection.send(NONSENSE[6:])
            response = self._connection.getresponse()
            assert response.status == 422
            answer: dict[str, Any] = json.loads(response.read())
            return str(answer["error"])
        finally:
            self._connection.close()


def test_each_request_is_answered_in_its_language(tmp_path: Path) -> None:
    english = "The message was not taken: its description is not JSON."
    other = in_indonesian(sentence_of(BadSubmission), problem=in_indonesian(NOT_JSON))
    with Fleet(tmp_path) as fleet:
        ana, siti = fleet.enroll("ana"), fleet.enroll("siti")
        config = siti.home / "config.toml"
        config.write_text(f'language = "id"\n{config.read_text()}')
        fleet.start(ana, siti)
        # All are under way before the first is answered, and they are answered in another order than they came.
        accepts = ["id", "en", "de, id;q=0.5, en;q=0.4", "", "id"]
        asked = [Asked(ana, accept) for accept in accepts]
        assert [each.answer() for each in asked[::-1]] == [other, english, other, english, other]
        # What is set in config.toml holds whatever a program asks for.
        assert [Asked(siti, accept).answer() for accept in ("en", "id", "")] == [other] * 3
        assert NOT_JSON not in ana.log() + siti.log()


# --- the command line ----------------------------------------------------------------------------------------------


def ran(home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command(home), *words],
        env=environment() | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_speaks_the_reader_s_language(tmp_path: Path) -> None:
    told = ran(tmp_path, "--help", LANGUAGE="id")
    assert told.returncode == 0
    text = " ".join(told.stdout.split())
    for sentence in (
        "Carry sealed records from device to device until they reach the office.",
        "Find out why nobody is met or nothing delivered.",
        "Show this message and exit.",  # of click
        "Usage:",
        "Options",
        "Commands",
    ):
        assert in_indonesian(sentence) in text
        assert sentence not in text
    assert "Usage:" in ran(tmp_path, "--help").stdout


def test_an_error_speaks_the_reader_s_language(tmp_path: Path) -> None:
    home = tmp_path / "none"
    said = in_indonesian(sentence_of(NoNode), home=home)
    for variables in (
        {"LANGUAGE": "id"},
        {"LANG": "id_ID.UTF-8"},
        {"LANG": "en_US.UTF-8", "LC_ALL": "in_ID"},
    ):
        told = ran(home, "status", **variables)
        assert (told.returncode, told.stderr) == (1, f"meshnode: {said}\n")
    assert ran(home, "status").stderr == f"meshnode: {NoNode(home=home)}\n"


@pytest.mark.parametrize(("locale", "language"), [("en", "id"), ("id", "en")])
def test_config_wins_over_the_locale(tmp_path: Path, locale: str, language: str) -> None:
    (tmp_path / "config.toml").write_text(f'language = "{language}"\n')
    with reading(catalogue(language)):
        said = str(NoNode(home=tmp_path))
    assert ran(tmp_path, "status", LANGUAGE=locale).stderr == f"meshnode: {said}\n"


def test_a_config_that_is_wrong_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('language = "klingon"\n')
    assert ran(tmp_path, "--help", LANGUAGE="id").returncode == 0


def test_the_command_line_needs_no_collector(tmp_path: Path) -> None:
    code = "import sys, meshnode.app.cli, meshnode.app.language; print('babel' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "False\n"


# --- which language ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("", None),
        ("id", "id"),
        ("en", "en"),
        ("id-ID", "id"),
        ("ID-id", "id"),
        ("in", "id"),  # as it was until 1989
        ("*", None),
        ("de", None),
        ("de, id", "id"),
        ("su-ID, id;q=0.1", "id"),
        ("idx, en-GB;q=0.1", "en"),
        ("id, en", "id"),
        ("en, id", "en"),
        ("en;q=0.8, id;q=0.9", "id"),
        ("en-US,en;q=0.9,id;q=0.8", "en"),
        ("id;q=0.5, en;q=0.5", "id"),
        ("en ; q=0.2 , id ; q=0.3", "id"),
        ("en;Q=0.2, id;Q=0.3", "id"),
        ("en;q=0.001, id;q=0.000", "en"),
        ("id;q=0", None),
        ("id;q=0, en", "en"),
        ("id;q=much, en;q=0.1", "en"),
        (",, ,id,", "id"),
    ],
)
def test_the_language_of_a_browser(accept: str, language: str | None) -> None:
    assert of_browser(accept) == language


@pytest.mark.parametrize(
    ("environ", "language"),
    [
        ({}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "en_GB.UTF-8"}, "en"),
        ({"LANG": "id_ID.UTF-8"}, "id"),
        ({"LANG": "id"}, "id"),
        ({"LANG": "in_ID"}, "id"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "id_ID.UTF-8"}, "id"),
        ({"LANG": "id_ID.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ({"LANG": "id_ID.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "id_ID.UTF-8", "LC_ALL": "", "LC_MESSAGES": ""}, "id"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "id"}, "id"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "en_US.UTF-8", "LANGUAGE": "id:en"}, "id"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "su:id:en"}, "id"),  # Sundanese is what many here speak
        ({"LANG": "id_ID.UTF-8", "LANGUAGE": "su"}, "id"),
        ({"LANG": "id_ID.UTF-8", "LANGUAGE": ""}, "id"),
        ({"LANG": "id_ID.UTF-8", "LANGUAGE": "en"}, "en"),
    ],
)
def test_the_language_of_a_locale(environ: dict[str, str], language: str) -> None:
    assert of_locale(environ) == language

"""config.toml: defaults that hold, and refusals that name file, key and what is allowed."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.app.addresses import Address, parse_address
from meshnode.app.config import (
    Config,
    OfficeConfig,
    StoreConfig,
    UplinkConfig,
    default_text,
    parse_config,
    read_config,
)
from meshnode.core.errors import BadAddress, BadConfig, FileTrouble
from meshnode.core.limits import FLOOR_BYTES, FOREIGN_QUOTA_BYTES, GATEWAY_QUOTA_BYTES, MIB
from meshnode.office.sinks import HttpFiles

PATH = Path("/home/node/config.toml")


def test_without_a_file_there_are_defaults(tmp_path: Path) -> None:
    config = read_config(tmp_path / "config.toml")
    assert config == Config()
    assert (str(config.listen), str(config.control)) == ("0.0.0.0:7766", "127.0.0.1:7767")
    assert (config.discovery, config.peers) == (True, ())
    assert config.store == StoreConfig(foreign_quota_bytes=None, floor_bytes=None)
    assert [config.store.quota_bytes(role) for role in ("officer", "office", "gateway")] == [
        FOREIGN_QUOTA_BYTES,
        FOREIGN_QUOTA_BYTES,
        GATEWAY_QUOTA_BYTES,
    ]
    assert StoreConfig(foreign_quota_bytes=5).quota_bytes("gateway") == 5
    assert config.office.directory(Path("/home/node")) == Path("/home/node/inbox")


def test_the_default_text_says_the_defaults() -> None:
    assert parse_config(default_text(), PATH) == Config()
    # also when every key in it is uncommented; the floor then no longer depends on the disk
    spoken = re.sub(r"^#(?=[a-z_]+ = )", "", default_text(), flags=re.MULTILINE)
    spoken, http, files = spoken.partition("[office.http]\n")
    assert spoken.count(" = ") == 17
    assert parse_config(spoken, PATH) == Config(
        language="id",  # by default that of the locale
        store=StoreConfig(FOREIGN_QUOTA_BYTES, FLOOR_BYTES),
        uplink=UplinkConfig(metered_bytes_a_day=100 * MIB),  # by default there is no limit
    )
    # these have no default; what stands there are examples
    assert files.count(" = ") == 4
    examples = parse_config(http + files, PATH).office.http
    assert None not in (
        examples.token_file,
        examples.ca_file,
        examples.certificate_file,
        examples.key_file,
    )


def test_every_key_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        'listen = "[::]:0"\ncontrol = "[::1]:0"\ndiscovery = false\nlanguage = "en"\n'
        'peers = ["10.0.0.7:7766", "gateway.example:1", "[fe80::1%wlan0]:65535", "10.0.0.7:7766"]\n'
        "[store]\nforeign_quota_bytes = 0\nfloor_bytes = 1_000\n"
        '[office]\nsink = "directory:/srv/records"\n'
        '[uplink]\ninterfaces = ["wlan*", "eth0", "eth0"]\nmetered = []\nmetered_bytes_a_day = 0\n'
    )
    assert read_config(path) == Config(
        listen=Address("::", 0),
        control=Address("::1", 0),
        discovery=False,
        language="en",
        peers=(Address("10.0.0.7", 7766), Address("gateway.example", 1), Address("fe80::1%wlan0", 65535)),
        store=StoreConfig(foreign_quota_bytes=0, floor_bytes=1000),
        office=OfficeConfig(sink="directory:/srv/records"),
        uplink=UplinkConfig(interfaces=("wlan*", "eth0"), metered=(), metered_bytes_a_day=0),
    )
    assert read_config(path).office.directory(tmp_path) == Path("/srv/records")


def test_an_office_that_posts_to_a_server(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        '[office]\nsink = "https://registry.example:8443/messages?office=1"\n'
        '[office.http]\ntoken_file = "token"\nca_file = "/etc/ca.pem"\n'
        'certificate_file = "a.crt"\nkey_file = "a.key"\n'
    )
    office = read_config(path).office
    assert office.sink == "https://registry.example:8443/messages?office=1"
    assert office.http == HttpFiles("token", "/etc/ca.pem", "a.crt", "a.key")
    assert office.directory(tmp_path) is None
    assert parse_config('[office]\nsink = "http://[::1]"', PATH).office.http == HttpFiles()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "colour = 1",
            "`colour` is not a key; there are listen, control, discovery, peers, language, log, [store], [office],"
            " [uplink], [metrics], [outbox], [kinds]",
        ),
        ("[store]\nquota = 1", "`store.quota` is not a key; there are foreign_quota_bytes, floor_bytes"),
        ("[office]\nlisten = 1", "`office.listen` is not a key; there are sink, [office.http]"),
        ("[colour]", "`colour` is not a key"),
        ("store = 1", "`store` must be a table, [store]"),
        ("office = []", "`office` must be a table, [office]"),
        ("listen = 7766", '`listen` must be text, "HOST:PORT"'),
        ('listen = "7766"', '`listen` must be "HOST:PORT" or "[IPv6]:PORT" with a port from 0 to 65535, not'),
        ('listen = "0.0.0.0:65536"', "`listen` must be"),
        ('control = "0.0.0.0:7767"', "`control` must be an address that only this machine reaches"),
        ('control = "[::]:7767"', "not [::]:7767"),
        ('control = "localhost:7767"', "as 127.0.0.1 or [::1], not localhost:7767"),
        ("discovery = 1", "`discovery` must be true or false"),
        ('language = "jv"', '`language` must be "id" or "en"'),
        ("language = 1", '`language` must be "id" or "en"'),
        ('discovery = "true"', "`discovery` must be true or false"),
        ('peers = "10.0.0.7:7766"', "`peers` must be a list"),
        ('peers = ["10.0.0.7:0"]', '`peers` must be "HOST:PORT" or "[IPv6]:PORT" with a port from 1'),
        ("peers = [1]", '`peers` must be text, "HOST:PORT"'),
        ("[store]\nforeign_quota_bytes = -1", "`store.foreign_quota_bytes` must be a whole number of bytes"),
        ("[store]\nforeign_quota_bytes = true", "`store.foreign_quota_bytes` must be a whole number"),
        ("[store]\nforeign_quota_bytes = 1.5", "`store.foreign_quota_bytes` must be a whole number"),
        ('[store]\nfloor_bytes = "5%"', "`store.floor_bytes` must be a whole number of bytes, 0 or more"),
        ("[office]\nsink = 1", "`office.sink` must be text"),
        (
            "[uplink]\nproxy = 1",
            "`uplink.proxy` is not a key; there are interfaces, metered, metered_bytes_a_day",
        ),
        ('[uplink]\ninterfaces = "wlan0"', "`uplink.interfaces` must be a list of names or patterns"),
        ("[uplink]\nmetered = [1]", "`uplink.metered` must be a list of names or patterns"),
        ('[uplink]\nmetered = [""]', "`uplink.metered` must be a list of names or patterns"),
        (
            "[uplink]\nmetered_bytes_a_day = -1",
            "`uplink.metered_bytes_a_day` must be a whole number of bytes",
        ),
        (
            '[office]\nsink = "directory:"',
            '`office.sink` must be "directory:PATH", "http://HOST/PATH" or "https://HOST/PATH"',
        ),
        ('[office]\nsink = "ftp://x/"', '`office.sink` must be "directory:PATH", "http://'),
        ('[office]\nsink = "https://"', "`office.sink` must name a host"),
        ('[office]\nsink = "https://me:secret@x/"', "`office.sink` must be a URL without a password"),
        ('[office]\nsink = "https://x/#a"', "`office.sink` must be a URL without '#'"),
        ("[office]\nhttp = 1", "`office.http` must be a table, [office.http]"),
        (
            "[office.http]\ntoken = 'x'",
            "`office.http.token` is not a key; there are token_file, ca_file, certificate_file, key_file",
        ),
        ("[office.http]\ntoken_file = 1", "`office.http.token_file` must be the path of a file"),
        ("[office.http]\nca_file = ''", "`office.http.ca_file` must be the path of a file"),
        ("[office.http]\nca_file = true", "`office.http.ca_file` must be the path of a file"),
        ("[office.http]\ncertificate_file = ['a']", "`office.http.certificate_file` must be the path"),
        ("[office.http]\nkey_file = 'a'", "`office.http.key_file` needs `office.http.certificate_file` too"),
        ("listen = \n", "not TOML: Invalid value (at line 1, column 10)"),
        ("discovery = true\ndiscovery = true\n", "not TOML: Cannot overwrite a value (at line 2"),
    ],
)
def test_what_is_wrong_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(BadConfig) as refusal:
        parse_config(text, PATH)
    assert says in str(refusal.value)
    assert str(refusal.value).startswith(f"{PATH}: ")
    assert refusal.value.exit_code == 1


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"# one\n# \xff\n")
    with pytest.raises(BadConfig, match=r"not TOML: not UTF-8 \(at line 2\)"):
        read_config(path)


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(FileTrouble, match="is a folder"):
        read_config(tmp_path)


@given(st.text(max_size=60))
def test_any_text_is_a_config_or_refused(text: str) -> None:
    with contextlib.suppress(BadConfig):
        assert isinstance(parse_config(text, PATH), Config)


values = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.booleans().map(lambda flag: str(flag).lower()),
    st.text("abc:[]0123.", max_size=12).map(repr),
    st.sampled_from(["[]", "[[]]", "{}", "{ a = 1 }", "1979-05-27", "[1, 'a:1']"]),
)


@given(st.sampled_from(["listen", "control", "discovery", "peers", "store", "office"]), values)
def test_a_wrong_value_of_any_type_names_its_key(key: str, value: str) -> None:
    try:
        config = parse_config(f"{key} = {value}", PATH)
    except BadConfig as refusal:
        assert f"{PATH}: `{key}" in str(refusal)  # noqa: PT017
    else:
        assert isinstance(config, Config)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("office.example:65535", ("office.example", 65535)),
        ("localhost:7766", ("localhost", 7766)),
        ("x.:80", ("x.", 80)),
        ("[::1]:7766", ("::1", 7766)),
        ("[fe80::1%wlan0]:7766", ("fe80::1%wlan0", 7766)),
        ("a:00080", ("a", 80)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address
    assert parse_address(str(parse_address(text))) == address


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "a:-1",
            "a:+1",
            "a: 1",
            "a:1 ",
            "a:٣",
            "a b:1",
            "a:1:2",
        ),
        *(
            "::1:7766",
            "fe80::1:7766",
            "[::1]",
            "[::1]7766",
            "[]:1",
            "[127.0.0.1]:1",
            "[::1:7766",
            "::1]:7766",
        ),
        *("10.0.0.256:1", "10.0.0:1", "1:1", "http://a:1", "a/b:1", "-a:1", "a-:1", "ä:1", "a" * 254 + ":1"),
        *("[::1%]:1", "[::1%a b]:1", "a:999999", "a\n:1", "a:1\n"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BadAddress) as refusal:
        parse_address(text)
    assert refusal.value.exit_code == 2
    assert repr(text) in str(refusal.value)


def test_port_0_only_where_it_means_any() -> None:
    assert parse_address("a:0", port_min=0) == ("a", 0)
    with pytest.raises(BadAddress, match="port from 1 to 65535"):
        parse_address("a:0")


@given(st.text("a0.:[]%-1", max_size=20) | st.text(max_size=20))
def test_any_text_is_an_address_that_reads_back_or_refused(text: str) -> None:
    try:
        address = parse_address(text)
    except BadAddress:
        return
    assert parse_address(str(address)) == address

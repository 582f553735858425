"""Routers' records and multiaddrs, good and hostile: which become URLs, and which never do."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnc_async.gateways.providers import (
    GATEWAY_PROTOCOL,
    MAX_RECORD_BYTES,
    Provider,
    RecordLines,
    is_local_url,
    is_loopback_url,
    parse_address,
    parse_answer,
    parse_record,
    reach,
    same_place,
)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("/dns/gw.example/tcp/443/https", "https://gw.example"),
        ("/dns4/gw.example/tcp/443/tls/http", "https://gw.example"),
        ("/dns6/gw.example/tcp/8443/https", "https://gw.example:8443"),
        ("/dns/GW.Example/https", "https://gw.example"),
        ("/dns/gw.example/tls/http/", "https://gw.example"),
        ("/ip4/1.1.1.1/tcp/443/https", "https://1.1.1.1"),
        ("/ip6/2606:4700:0::1111/tcp/8443/tls/http", "https://[2606:4700::1111]:8443"),
        ("/dns/gw.example/tcp/443/https/p2p/12D3KooW", "https://gw.example"),
        ("/dns/gw.example/tcp/80/https", "https://gw.example:80"),
        ("/dns/xn--bcher-kva.example/https", "https://xn--bcher-kva.example"),
        ("https://gw.example", "https://gw.example"),
        ("https://GW.example:443/", "https://gw.example"),
        ("https://[2606:4700:0:0::1111]:8443", "https://[2606:4700::1111]:8443"),
    ],
)
def test_addresses_of_public_gateways(address: str, url: str) -> None:
    """Every form in which they are announced."""
    assert parse_address(address, local=False) == Provider(url)
    assert parse_address(address, local=True) == Provider(url)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("/ip4/127.0.0.1/tcp/8080/http", "http://127.0.0.1:8080"),
        ("/ip4/192.168.1.5/http", "http://192.168.1.5"),
        ("/ip4/100.64.0.9/tcp/80/http", "http://100.64.0.9"),
        ("/ip6/::1/tcp/8080/http", "http://[::1]:8080"),
        ("/ip6/fd00::5/tcp/443/https", "https://[fd00::5]"),
        ("/dns/localhost/tcp/8080/http", "http://127.0.0.1:8080"),
        ("http://10.0.0.1:8080/", "http://10.0.0.1:8080"),
        ("/ip4/10.0.0.1/tcp/443/https", "https://10.0.0.1"),
    ],
)
def test_local_addresses(address: str, url: str) -> None:
    """Only where they are permitted."""
    assert parse_address(address, local=True) == Provider(url)
    assert parse_address(address, local=False) is None


def test_another_name_in_the_certificate() -> None:
    """It is kept where it is not the host's own."""
    found = parse_address("/ip4/1.1.1.1/tcp/443/tls/sni/GW.example/http", local=False)
    assert found == Provider("https://1.1.1.1", "gw.example")
    same = parse_address("/dns/gw.example/tcp/443/tls/sni/gw.example/http", local=False)
    assert same == Provider("https://gw.example")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/",
        "gw.example",
        "/dns/gw.example",
        "/dns/gw.example/tcp/443",
        "/dns/gw.example/tcp/80/http",  # plain, and who knows where
        "/ip4/1.1.1.1/tcp/80/http",
        "http://gw.example",
        "/dns/gw.example/tcp/443/tls/ws",
        "/dns/gw.example/tcp/443/wss",
        "/dns/gw.example/tcp/443/https/ws",
        "/dns/gw.example/tcp/443/tls/http/http-path/a%2Fb",
        "/dns/gw.example/udp/443/quic-v1/http",
        "/dns/gw.example/tcp/443/tls/sni//http",
        "/dns/gw.example/tcp/443/tls/sni/1.2.3.4/http",
        "/dns/gw.example/tcp/443/tls/sni/a\r\nb/http",
        "/dnsaddr/gw.example/https",
        "/dns/gw.example/tcp/0/https",
        "/dns/gw.example/tcp/65536/https",
        "/dns/gw.example/tcp/4٤3/https",
        "/dns/user@gw.example/https",
        "/dns/gw.example?x/https",
        "/dns/gw.example#/https",
        "/dns/gw.example\n/https",
        "/dns/１２７.0.0.1/https",  # noqa: RUF001 - a library may fold it to 127.0.0.1
        "/dns/127.1/https",
        "/dns/0x7f000001/https",
        "/dns/2130706433/https",
        "/dns/0177.0.0.1/https",
        f"/dns/{'a' * 64}.example/https",
        f"/dns/{'a.' * 130}example/https",
        "/dns/-a.example/https",
        "/ip4/gw.example/tcp/443/https",
        "/ip4/::1/tcp/443/https",
        "/ip6/1.1.1.1/tcp/443/https",
        "/ip4/01.1.1.1/tcp/443/https",
        "/ip6/2606:4700::1%eth0/tcp/443/https",
        "/ip6zone/eth0/ip6/fe80::1/tcp/443/https",
        "https://gw.example/a/path",
        "https://gw.example/?q",
        "https://user:secret@gw.example",
        "https://gw.example:0",
        "https://gw.example:99999",
        "https://[::1",
        "ftp://gw.example",
        "magnet:?xt=urn:btih:0",
        "https://",
        "/ip4/169.254.169.254/tcp/80/http",
        "/ip4/169.254.169.254/tcp/443/https",
        "/ip4/0.0.0.0/tcp/8080/http",
        "/ip6/::/tcp/8080/http",
        "/ip4/224.0.0.1/tcp/443/https",
    ],
)
def test_what_is_no_gateway(address: str) -> None:
    """Wherever it comes from."""
    assert parse_address(address, local=False) is None
    assert parse_address(address, local=True) is None


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("8.8.8.8", "public"),
        ("2620:fe::9", "public"),
        ("::ffff:8.8.8.8", "public"),
        ("64:ff9b::808:808", "public"),
        ("127.0.0.1", "local"),
        ("127.255.0.1", "local"),
        ("10.1.2.3", "local"),
        ("172.31.255.255", "local"),
        ("192.168.0.1", "local"),
        ("100.64.0.1", "local"),
        ("::1", "local"),
        ("fd12::1", "local"),
        ("::ffff:127.0.0.1", "local"),
        ("::ffff:10.0.0.1", "local"),
        ("64:ff9b::a00:1", "local"),  # by a NAT64 it is 10.0.0.1
        ("169.254.169.254", "refused"),
        ("::ffff:169.254.169.254", "refused"),
        ("64:ff9b::a9fe:a9fe", "refused"),
        ("2002:7f00:1::", "refused"),  # 6to4 for 127.0.0.1
        ("2002:808:808::", "refused"),
        ("fe80::1", "refused"),
        ("fe80::1%eth0", "refused"),
        ("fec0::1", "refused"),
        ("0.0.0.0", "refused"),  # noqa: S104 - judged, not bound
        ("::", "refused"),
        ("::7f00:1", "refused"),
        ("224.0.0.1", "refused"),
        ("ff0e::1", "refused"),
        ("255.255.255.255", "refused"),
        ("240.0.0.1", "refused"),
        ("198.18.0.1", "refused"),
        ("192.0.2.1", "refused"),
        ("2001:db8::1", "refused"),
        ("2001::1", "refused"),
        ("64:ff9b:1::1", "refused"),
        ("2620:fe::9%x", "refused"),
        ("gw.example", "refused"),
        ("", "refused"),
    ],
)
def test_reach(address: str, where: str) -> None:
    """Each kind of address, also where one stands for another."""
    assert reach(address) == where


def test_urls_of_this_machine() -> None:
    """A number tells; a name does not."""
    assert [is_local_url(url) for url in ("http://127.0.0.1:5", "http://[fd00::1]", "http://10.0.0.1")] == [True] * 3
    assert [is_local_url(url) for url in ("http://router", "http://1.1.1.1", "http://")] == [False] * 3
    assert [is_loopback_url(url) for url in ("http://127.0.0.1:5", "http://10.0.0.1", "http://gw")] == [
        True,
        False,
        False,
    ]


def test_one_place_written_in_several_ways() -> None:
    """The port of the scheme, a slash at the end and the case of the host do not count; a path does."""
    assert same_place("https://Gw.example/") == same_place("https://gw.example:443")
    assert same_place("https://gw.example/a") != same_place("https://gw.example")
    assert same_place("https://gw.example") != same_place("http://gw.example")


HOST = st.one_of(
    st.sampled_from(
        ["gw.example", "localhost", "127.1", "1.1.1.1", "10.0.0.1", "::1", "2606:4700::1", "fe80::1%25e", "a@b"]
    ),
    st.ip_addresses().map(str),
    st.text(max_size=12),
)
WORD = st.sampled_from(
    [
        "dns",
        "dns4",
        "ip4",
        "ip6",
        "tcp",
        "443",
        "0",
        "tls",
        "sni",
        "http",
        "https",
        "ws",
        "p2p",
        "Qm",
        "",
        "/",
        "gw.example",
    ]
)
ADDRESS = st.one_of(
    st.text(max_size=60),
    st.lists(st.one_of(WORD, HOST), max_size=8).map(lambda words: "/" + "/".join(words)),
    st.builds("/{}/{}/tcp/{}/{}".format, WORD, HOST, st.integers(-1, 70_000), WORD),
    st.builds("{}://{}{}".format, st.sampled_from(["http", "https", "HTTPS"]), HOST, st.text(max_size=5)),
)


@given(ADDRESS, st.booleans())
def test_any_text_is_a_clean_url_or_none(text: str, local: bool) -> None:
    """Whatever it is: no exception, and if there is a URL, it is one that may be asked, and nothing but a host."""
    found = parse_address(text, local=local)
    if found is None:
        return
    parts = urlsplit(found.url)
    assert found.url.isascii()
    assert (parts.path, parts.query, parts.fragment, parts.username) == ("", "", "", None)
    host = parts.hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        assert parts.scheme == "https"
        assert not host.rpartition(".")[2].isdecimal()
    else:
        where = reach(host)
        assert where == "public" or (local and where == "local")
        assert parts.scheme == "https" or where == "local"
    assert parse_address(found.url, local=local) == Provider(found.url)


@given(st.ip_addresses())
def test_reach_agrees_with_the_registry(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Nothing that Python calls private, and that stands for no other address, is public."""
    if address.is_private and getattr(address, "ipv4_mapped", None) is None:
        assert reach(str(address)) != "public"


def peer(*addresses: object, **fields: object) -> dict[str, object]:
    return {"Schema": "peer", "ID": "12D3", "Addrs": list(addresses), "Protocols": [GATEWAY_PROTOCOL]} | fields


HTTPS = "/dns/gw.example/tcp/443/https"


@pytest.mark.parametrize(
    "record",
    [
        peer(HTTPS),
        peer(HTTPS, Schema="generic"),
        peer("https://gw.example", Schema="generic", ID="did:key:z6M"),
        peer(HTTPS, Protocols=["transport-bitswap", "Transport-IPFS-Gateway-HTTP"]),
        peer(HTTPS, Protocols=[]),
        peer(HTTPS, Protocols=None),
        {"Schema": "peer", "Addrs": [HTTPS]},
        peer("/ip4/1.1.1.1/udp/4001/quic-v1", 7, None, HTTPS, HTTPS, ID=None, Extra={"a": []}),
    ],
)
def test_records_of_gateways(record: object) -> None:
    """Known schemas, with the protocol or none."""
    assert parse_record(record, local=False) == [Provider("https://gw.example")]


@pytest.mark.parametrize(
    "record",
    [
        None,
        7,
        "peer",
        [HTTPS],
        {},
        peer(HTTPS, Schema="bitswap"),
        peer(HTTPS, Schema=["peer"]),
        peer(HTTPS, Protocols=["transport-bitswap"]),
        peer(HTTPS, Protocols=GATEWAY_PROTOCOL),
        peer(HTTPS, Protocols=[7]),
        peer(Addrs=HTTPS),
        peer(Addrs={HTTPS: 1}),
        peer(Addrs=None),
        peer("/ip4/127.0.0.1/tcp/80/http"),
        peer(*["/ip4/1.1.1.1/tcp/4001"] * 64, HTTPS),
    ],
)
def test_other_records(record: object) -> None:
    """Of other schemas, for other protocols, of other shapes, or with more addresses than anybody has."""
    assert parse_record(record, local=False) == []


def test_the_best_addresses_of_a_record() -> None:
    """Two at most: HTTPS first, names before numbers."""
    record = peer("/ip4/127.0.0.1/tcp/1/http", "/ip6/2606::1/tcp/443/https", "/ip4/1.1.1.1/tcp/443/https", HTTPS)
    urls = [provider.url for provider in parse_record(record, local=True)]
    assert urls == ["https://gw.example", "https://1.1.1.1"]


def test_whole_answers() -> None:
    """Go writes an empty list as null."""
    assert parse_answer(b'{"Providers": [1, {"a": 2}], "More": 3}') == [1, {"a": 2}]
    assert parse_answer(b'{"Providers": null}') == []
    assert parse_answer(b"{}") == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b'{"Providers": 7}', b'{"Providers": [', b"\xff", b"[" * 100_000, b"9" * 5000]
)
def test_answers_that_are_none(body: bytes) -> None:
    """One kind of error for all of them."""
    with pytest.raises(ValueError, match="it is not"):
        parse_answer(body)


RECORDS = [peer(HTTPS), {"Schema": "x", "text": "zwei\nZeilen, ü"}, 7]
BODY = b"\n".join(json.dumps(record, ensure_ascii=False).encode() for record in RECORDS)


@given(st.lists(st.integers(0, len(BODY))), st.sampled_from([b"", b"\n", b"\r\n\n"]))
def test_lines_wherever_they_are_cut(cuts: list[int], end: bytes) -> None:
    """The same records from any pieces."""
    lines, places = RecordLines(), [0, *sorted(cuts), len(BODY)]
    found = []
    for start, stop in itertools.pairwise(places):
        found += lines.feed(BODY[start:stop])
    found += [*lines.feed(end), *lines.close()]
    assert found == RECORDS


def test_lines_byte_by_byte() -> None:
    """One at a time."""
    lines, found = RecordLines(), []
    for byte in BODY:
        found += lines.feed(bytes([byte]))
    assert [*found, *lines.close()] == RECORDS


@pytest.mark.parametrize("end", range(1, len(BODY) - 1))
def test_an_answer_that_is_cut_off(end: int) -> None:
    """What came whole stands; what did not is an error, not a record."""
    lines = RecordLines()
    found = list(lines.feed(BODY[:end]))
    with contextlib.suppress(ValueError):
        found += lines.close()
    assert found == RECORDS[: BODY.count(b"\n", 0, end + 1)]


def test_lines_that_are_too_long() -> None:
    """Ended or not, before they are parsed."""
    for data in (b"1" * (MAX_RECORD_BYTES + 1), b'"' + b" " * MAX_RECORD_BYTES + b'"\n'):
        with pytest.raises(ValueError, match=f"over {MAX_RECORD_BYTES} bytes"):
            list(RecordLines().feed(data))
    assert list(RecordLines().feed(b'"' + b" " * (MAX_RECORD_BYTES - 2) + b'"\n')) == [" " * (MAX_RECORD_BYTES - 2)]


@pytest.mark.parametrize("line", [b"{", b"\xff", b"[" * 30_000, b"error: timed out"])
def test_a_line_that_is_no_record(line: bytes) -> None:
    """Records before it stand."""
    come = RecordLines().feed(b"1\n" + line + b"\n2\n")
    assert next(come) == 1
    with pytest.raises(ValueError, match="it is not JSON"):
        next(come)

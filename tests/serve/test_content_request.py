"""What a client may ask for, and what is said to it when it may not. No sockets."""

from __future__ import annotations

import pytest

from dnc_async.ipld.cid import Cid
from dnc_async.serve.accept import UnsatisfiableError, byte_range, etag_matches, media_ranges, only_if_cached
from dnc_async.serve.answers import etag
from dnc_async.serve.content_request import (
    CAR,
    IPNS_RECORD,
    RAW,
    ContentRequest,
    EntityBytes,
    RefusalError,
    parse_path,
    parse_request,
)

V1 = "bafybeiaysi4s6lnjev27ln5icwm6tueaw2vdykrtjkwiphwekaywqhcjze"
PATH = f"/ipfs/{V1}"


def ask(path: str = PATH, accept: str | None = None, **query: str) -> ContentRequest:
    return parse_request(path, {name.replace("_", "-"): value for name, value in query.items()}, accept)


def refusal(path: str = PATH, accept: str | None = None, **query: str) -> tuple[int, str]:
    with pytest.raises(RefusalError) as caught:
        ask(path, accept, **query)
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize(
    ("accept", "query", "expected"),
    [
        (None, "raw", "raw"),
        (None, "car", "car"),
        (RAW, None, "raw"),
        (CAR, None, "car"),
        (RAW, "car", "car"),
        (CAR, "raw", "raw"),
        ("text/html", "raw", "raw"),
        (f"text/html, {CAR};q=0.5, {RAW};q=0.8", None, "raw"),
        (f"{CAR}; version=2, {RAW}; q=0.1", None, "raw"),
        (f"{RAW}; q=0, {CAR}", None, "car"),
        (RAW.upper(), None, "raw"),
    ],
)
def test_the_url_decides_before_the_accept_header(accept: str | None, query: str | None, expected: str) -> None:
    assert ask(accept=accept, **({"format": query} if query else {})).format == expected


@pytest.mark.parametrize(
    ("accept", "query", "status"),
    [
        (None, {}, 400),
        ("*/*", {}, 400),
        ("", {}, 400),
        ("text/html", {}, 406),
        ("application/json, text/html", {}, 406),
        (f"{CAR}; version=2", {}, 406),
        (f"{CAR}; order=bfs", {}, 406),
        (f"{CAR}; dups=maybe", {}, 406),
        (None, {"format": "tar"}, 406),
        (None, {"format": "dag-json"}, 406),
        (None, {"format": "nonsense"}, 400),
        (None, {"format": "ipns-record"}, 400),
        (IPNS_RECORD, {}, 400),
        (None, {"format": "car", "car-version": "2"}, 400),
        (None, {"format": "car", "car-order": "bfs"}, 400),
        (None, {"format": "car", "car-dups": "x"}, 400),
        (None, {"format": "car", "dag-scope": "half"}, 400),
        (None, {"format": "car", "entity-bytes": "5"}, 400),
        (None, {"format": "car", "entity-bytes": "*:5"}, 400),
        (None, {"format": "car", "entity-bytes": "0x1:5"}, 400),
    ],
)
def test_what_is_not_served_is_refused(accept: str | None, query: dict[str, str], status: int) -> None:
    with pytest.raises(RefusalError) as caught:
        parse_request(PATH, query, accept)
    assert caught.value.status == status


def test_a_refusal_says_what_would_work() -> None:
    assert refusal() == (400, "this gateway serves verifiable responses only: ask for ?format=raw or ?format=car")
    assert refusal(format="car", car_dups="x") == (400, "no such CAR: dups=x is not served, dups=y is")
    assert refusal(f"{PATH}/a", format="raw")[1].endswith("ask for ?format=car to follow a path")
    assert refusal("/ipfs/nonsense", format="raw")[0] == 400


@pytest.mark.parametrize(
    ("accept", "query", "dups"),
    [
        (f"{CAR}; dups=y", {}, True),
        (f"{CAR}; dups=n", {}, False),
        (CAR, {}, False),
        (f"{CAR}; dups=n", {"format": "car", "car-dups": "y"}, True),
        (f"{CAR}; order=unk", {"format": "car", "car-order": "dfs"}, False),
        (f'{CAR}; version=1; order=dfs; dups="y"', {"format": "car"}, True),
        (f"{CAR};dups=y", {"format": "raw"}, False),
    ],
)
def test_car_parameters_of_the_url_win(accept: str, query: dict[str, str], *, dups: bool) -> None:
    assert parse_request(PATH, query, accept).dups is dups


def test_entity_bytes_implies_the_scope_entity() -> None:
    for scope in ("all", "block", "entity"):
        found = ask(format="car", dag_scope=scope, entity_bytes="0:*")
        assert found.scope == "entity"
        assert found.entity_bytes == EntityBytes(0, None)
    assert ask(format="car").scope == "all"


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("0:*", 1026, (0, 1026)),
        ("0:0", 1026, (0, 1)),
        ("512:1023", 1026, (512, 1024)),
        ("512:-256", 1026, (512, 771)),
        ("-5:*", 1026, (1021, 1026)),
        ("-9999:*", 1026, (0, 1026)),
        ("-9999:-3", 1026, (0, 1024)),
        ("1000:5000", 1026, (1000, 1026)),
        ("5:4", 1026, (5, 5)),
        ("-1:-3", 1026, (1025, 1025)),
        ("0:*", 0, (0, 0)),
        ("7:9", 0, (7, 7)),
    ],
)
def test_entity_bytes_are_clamped_to_the_entity(text: str, size: int, expected: tuple[int, int]) -> None:
    assert EntityBytes.parse(text).resolve(size) == expected
    assert str(EntityBytes.parse(text)) == text


@pytest.mark.parametrize("text", ["1026:*", "5000:6000", "-9999:-2000", "0:-2000"])
def test_entity_bytes_outside_of_the_entity_are_refused(text: str) -> None:
    with pytest.raises(RefusalError) as caught:
        EntityBytes.parse(text).resolve(1026)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("raw", "segments", "slash"),
    [
        ("", (), False),
        ("/", (), True),
        ("/a/b", ("a", "b"), False),
        ("/a/b/", ("a", "b"), True),
        ("/a//b/./c", ("a", "b", "c"), False),
        ("/a%2F..%2Fplain%2Etxt", ("plain.txt",), False),
        ("/a%2Fb.txt", ("a", "b.txt"), False),
        ("/Portugal%252C%2bEspa%c3%b1a", ("Portugal%2C+España",), False),
        ("/gr%f6/%FF", ("gr\udcf6", "\udcff"), False),
        ("/a?format=car", ("a",), False),
    ],
)
def test_a_path_is_decoded_once(raw: str, segments: tuple[str, ...], *, slash: bool) -> None:
    assert parse_path(PATH + raw) == (Cid.parse(V1), segments, slash)


@pytest.mark.parametrize("raw", [f"{PATH}/..", f"{PATH}/%2e%2e/x", "/ipfs/", f"{PATH}{'/a' * 1025}"])
def test_a_path_that_cannot_be_is_refused(raw: str) -> None:
    with pytest.raises(RefusalError) as caught:
        parse_path(raw)
    assert caught.value.status == 400


def test_paths_are_shown_decoded_and_encoded() -> None:
    found = ask(f"{PATH}/sub%20dir/file!'()*~.txt/", format="car")
    assert found.content_path == f"{PATH}/sub dir/file!'()*~.txt/"
    assert found.encoded_path == "/sub%20dir/file%21%27%28%29%2A~.txt/"


def test_each_car_has_an_etag_of_its_own() -> None:
    asks = [ask(format="car", dag_scope=scope) for scope in ("block", "entity", "all")]
    asks += [ask(format="car", entity_bytes=text) for text in ("0:*", "0:5")]
    asks += [ask(format="car", car_dups="y"), ask(f"{PATH}/a", format="car"), ask(f"{PATH}/a%2520b", format="car")]
    tags = [etag(found) for found in asks]
    assert len(set(tags)) == len(tags)
    assert all(tag.startswith('W/"') and tag.endswith('"') for tag in tags)
    assert etag(ask(format="car", accept=f"{CAR}; dups=y")) == etag(ask(format="car", car_dups="y"))
    assert etag(ask(format="raw")) == f'"{V1}.raw"'


def test_a_format_from_the_header_alone_is_negotiated() -> None:
    assert ask(accept=RAW).negotiated
    assert ask(accept=CAR).negotiated
    assert not ask(format="raw").negotiated
    assert not ask(format="car").negotiated
    assert ask(format="car", accept=f"{CAR}; dups=y").negotiated
    assert not ask(format="car", accept=f"{CAR}; dups=y", car_dups="n").negotiated


def test_media_ranges_come_in_the_order_of_their_weight() -> None:
    assert media_ranges("") == []
    assert media_ranges("a/b;q=0.1, c/d;x=1;q=0.9,, e/f;q=0, g/h;q=odd") == [
        ("g/h", {}),
        ("c/d", {"x": "1"}),
        ("a/b", {}),
    ]


@pytest.mark.parametrize(
    ("header", "matches"),
    [(None, False), ('"x"', True), ('W/"x"', True), ('"y", W/"x"', True), ("*", True), ('"y"', False), ("x", False)],
)
def test_if_none_match_compares_weakly(header: str | None, *, matches: bool) -> None:
    assert etag_matches(header, '"x"') is matches
    assert etag_matches(header, 'W/"x"') is matches


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-4", (0, 5)),
        ("bytes=4-", (4, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=5-100", (5, 10)),
        ("Bytes = 5 - 6", (5, 7)),
        ("bytes=0-1,3-4", None),
        ("bytes=6-5", None),
        ("bytes=-", None),
        ("lines=1-2", None),
        ("bytes=a-b", None),
    ],
)
def test_a_range_is_one_range_or_everything(header: str | None, expected: tuple[int, int] | None) -> None:
    assert byte_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=-0", "bytes=10-20"])
def test_a_range_without_a_byte_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(UnsatisfiableError):
        byte_range(header, 10)


def test_only_if_cached_is_a_word_of_its_own() -> None:
    assert only_if_cached("max-age=0, Only-If-Cached")
    assert not only_if_cached("max-age=0")
    assert not only_if_cached(None)

"""Which Host headers a server answers to."""

from __future__ import annotations

import pytest

from dnc_async.serve.hosts import AllowedHosts


@pytest.mark.parametrize(
    "header",
    [
        "localhost",
        "LocalHost:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.9.9.9",
        "[::1]",
        "[::1]:8080",
        "a.localhost",
        "localhost.:80",
    ],
)
def test_a_local_server_answers_to_local_names(header: str) -> None:
    assert AllowedHosts("127.0.0.1", "127.0.0.1").allow([header])
    assert AllowedHosts("::1", "localhost").allow([header])


@pytest.mark.parametrize(
    "header", ["example.com", "example.com:8080", "127.0.0.1.example.com", "192.0.2.1", "[2001:db8::1]:80", ""]
)
def test_a_local_server_answers_to_no_other_name(header: str) -> None:
    assert not AllowedHosts("127.0.0.1", "127.0.0.1").allow([header])
    assert not AllowedHosts("127.0.0.1", "127.0.0.1").allow(["localhost", header])


def test_names_that_the_user_allows_are_answered() -> None:
    hosts = AllowedHosts("127.0.0.1", "my-host", ["Data.Example.org", "[2001:db8::1]"])
    for header in ("data.example.org:443", "my-host", "localhost", "[2001:db8::1]:80"):
        assert hosts.allow([header])
    assert not hosts.allow(["other.example.org"])


def test_a_request_without_the_header_is_answered() -> None:
    assert AllowedHosts("127.0.0.1", "127.0.0.1").allow([])


def test_a_server_for_others_answers_to_any_name_until_some_are_allowed() -> None:
    assert AllowedHosts("0.0.0.0", "0.0.0.0").allow(["anything.example"])  # noqa: S104 - not bound
    hosts = AllowedHosts("192.0.2.1", "192.0.2.1", ["data.example.org"])
    for header in ("data.example.org", "192.0.2.1:8080", "[2001:db8::1]", "localhost"):
        assert hosts.allow([header])
    assert not hosts.allow(["anything.example"])

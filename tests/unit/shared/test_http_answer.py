"""What a listener answers to a head: everything that may be in one, without a socket."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http_answer import SECURITY_HEADERS, HostRule, Query, Refusal, Reply, Routes, answer
from tests.support.http_peers import body_of, head, status_of


def _asked(query: Query) -> Reply:
    return Reply(body=json.dumps([query.path, query.rest, dict(query.parameters), query.accept]).encode())


def _broken(_query: Query) -> Reply:
    raise RuntimeError("/secret/path")


def _framed(_query: Query) -> Reply:
    return Reply(headers={"Content-Security-Policy": "default-src 'self'"})


ROUTES: Routes = {"/": _asked, "/jobs/*": _asked, "/jobs/heart/*": _asked, "/broken": _broken, "/framed": _framed}


def said(request: bytes, hosts: HostRule = HostRule.LOOPBACK) -> bytes:
    return answer(request, routes=ROUTES, hosts=hosts)


def headers_of(reply: bytes) -> dict[str, str]:
    lines = reply.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines)


def test_every_answer_has_the_security_headers_and_ends_the_connection() -> None:
    for request in (head(), head("/none"), head("/broken"), head(host="evil.example"), b"nonsense\r\n\r\n"):
        found = headers_of(said(request))
        assert SECURITY_HEADERS.items() <= found.items()
        assert found["Connection"] == "close"
        assert int(found["Content-Length"]) == len(body_of(said(request)))
    assert headers_of(said(head("/framed")))["Content-Security-Policy"] == "default-src 'self'"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", ["/", "", {}, ""]),
        ("/?a=1&b=&a=2", ["/", "", {"a": "2", "b": ""}, ""]),
        ("/jobs/lungs", ["/jobs/lungs", "lungs", {}, ""]),
        ("/jobs/heart/1?x=%2F", ["/jobs/heart/1", "1", {"x": "/"}, ""]),
        ("/jobs/a/../b", ["/jobs/a/../b", "a/../b", {}, ""]),
        ("/jobs/", ["/jobs/", "", {}, ""]),
    ],
)
def test_paths_go_to_their_handlers(path: str, expected: list[object]) -> None:
    assert json.loads(body_of(said(head(path)))) == expected


@pytest.mark.parametrize("path", ["/none", "/jobs", "/jobsx/1", "/broken/more", "/..", "/%2F"])
def test_what_has_no_route_is_not_found(path: str) -> None:
    assert status_of(said(head(path))) == 404


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:9466", "127.0.0.1", "127.0.0.1:1", "127.8.9.1", "[::1]", "[::1]:9466"],
)
def test_names_of_loopback_are_answered(host: str) -> None:
    assert status_of(said(head(host=host))) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:9466", "localhost.evil.example", "localhost.", "127.0.0.1.evil.example",
        "10.0.0.1", "[::2]", "::1:80", "0.0.0.1", "", "localhost:80:80", "localhost:x", "localhost@evil.example",
        "[::1%evil.example]", "127.0.0.1]", "[[127.0.0.1]]",
    ],
)  # fmt: skip
def test_any_other_name_is_misdirected_on_loopback_alone(host: str) -> None:
    assert status_of(said(head(host=host))) == 421
    assert status_of(said(head(host=host), HostRule.ANY)) == 200


@pytest.mark.parametrize("host", ["coordinator", "coordinator:9464", "10.0.0.1:9464", "[fd00::1]:9464", "localhost"])
def test_an_internal_network_asks_by_address_or_by_a_name_without_a_dot(host: str) -> None:
    assert status_of(said(head(host=host), HostRule.INTERNAL)) == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9464", "10.0.0.1.evil.example", "localhost.", "1.2.3"])
def test_a_name_that_somebody_may_own_is_misdirected_on_an_internal_network(host: str) -> None:
    assert status_of(said(head(host=host), HostRule.INTERNAL)) == 421


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-origin", 200), ("none", 200)])
def test_a_page_of_another_site_has_nothing_asked_for(site: str, status: int) -> None:
    assert status_of(said(head(more=f"Sec-Fetch-Site: {site}\r\n"))) == status


def test_a_request_has_one_host() -> None:
    for hosts in HostRule:
        assert status_of(said(b"GET / HTTP/1.1\r\n\r\n", hosts)) == 400
        assert status_of(said(head(more="Host: localhost\r\n"), hosts)) == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "PRI"])
def test_only_looking_is_allowed(method: str) -> None:
    refused = said(head(method=method))
    assert status_of(refused) == 405
    assert headers_of(refused)["Allow"] == "GET, HEAD"


def test_a_head_is_answered_without_its_body() -> None:
    whole, bare = said(head("/jobs/1")), said(head("/jobs/1", method="HEAD"))
    assert bare + body_of(whole) == whole
    assert body_of(whole)


def test_a_bug_leaves_none_of_its_text() -> None:
    broken = said(head("/broken"))
    assert status_of(broken) == 500
    assert b"secret" not in broken
    assert b"RuntimeError" not in broken


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"", 400),
        (b"\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),  # HTTP/0.9
        (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"GET / FTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"\xff\xfe\xfd\r\n\r\n", 400),
        (head(more="".join(f"X-{n}: 1\r\n" for n in range(200))), 431),
        (head("/?" + "&".join(f"a{n}=1" for n in range(100))), 400),
        (head(more="Expect: 100-continue\r\n"), 200),
    ],
)
def test_what_is_no_request_gets_a_short_text(request_: bytes, status: int) -> None:
    refused = said(request_)
    assert status_of(refused) == status
    assert len(body_of(refused)) < 200


@pytest.mark.parametrize("accept", ["text/plain\r\n X-Split: 1", "t\x00", "text/\xe9"])
def test_a_header_that_is_no_plain_line_reaches_no_handler(accept: str) -> None:
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: " + accept.encode("latin-1") + b"\r\n\r\n"
    assert json.loads(body_of(said(request)))[3] == ""
    assert json.loads(body_of(said(head(more="Accept: text/plain; version=1\r\n"))))[3] == "text/plain; version=1"


def test_a_handler_may_refuse() -> None:
    def refusing(_query: Query) -> Reply:
        raise Refusal(HTTPStatus.NOT_FOUND, "no such job")

    assert body_of(answer(head(), routes={"/": refusing}, hosts=HostRule.ANY)) == b"no such job\n"


@given(st.binary(max_size=300), st.sampled_from([b"", b"GET ", b"GET / HTTP/1.1\r\nHost: localhost\r\n"]))
def test_any_bytes_have_an_answer(rest: bytes, start: bytes) -> None:
    assert said(start + rest).startswith(b"HTTP/1.1 ")

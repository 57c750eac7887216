"""Tests of which addresses are visited."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spellings import BAD_HOSTS, BAD_URLS, GOOD_HOSTS, INTERNAL

from picpik_async._addresses import AddressRules, redirected, shown_url
from picpik_async._config import Secret

PUBLIC = AddressRules(local=False)
LOCAL = AddressRules(local=True)


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_public_hosts(host: str) -> None:
    """Names and public addresses are visited over https, on any port."""
    for rules in (PUBLIC, LOCAL):
        assert rules.problem(Secret(f"https://{host}/1.png?a=%20#b")) is None
        assert rules.problem(Secret(f"HTTPS://{host.upper()}:8443")) is None


@pytest.mark.parametrize("host", BAD_HOSTS, ids=ascii)
def test_internal_hosts(host: str) -> None:
    """No spelling of an internal address is visited."""
    for rules in (PUBLIC, LOCAL):
        assert rules.problem(Secret(f"https://{host}/1.png"))
        assert rules.problem(Secret(f"http://{host}/1.png"))


@pytest.mark.parametrize("url", BAD_URLS, ids=ascii)
def test_odd_urls(url: str) -> None:
    """What is not plainly https is not visited, and not quoted."""
    for rules in (PUBLIC, LOCAL):
        problem = rules.problem(Secret(url))
        assert problem
        assert "canary" not in problem


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "127.3.2.1"])
def test_this_machine(host: str) -> None:
    """This machine is visited only while the service runs on it, and then even without TLS."""
    for scheme in ("http", "https"):
        url = Secret(f"{scheme}://{host}:8000/1.png")

        assert LOCAL.problem(url) is None
        assert f"its host {host.strip('[]')} is this machine" == PUBLIC.problem(url)


@pytest.mark.parametrize(
    ("hosts", "proxied", "host", "words"),
    [
        pytest.param({"CDN.example"}, False, "cdn.EXAMPLE", None, id="listed"),
        pytest.param({"cdn.example"}, False, "cdn.example.", None, id="with a final dot"),
        pytest.param({"cdn.example"}, True, "cdn.example", None, id="listed, by proxy"),
        pytest.param({"cdn.example"}, False, "a.cdn.example", "is not in Dialect.result_hosts", id="sibling"),
        pytest.param({"cdn.example"}, True, "other.example", "is not in Dialect.result_hosts", id="other, by proxy"),
        pytest.param((), True, "cdn.example", "which must be given where a proxy looks up names", id="no list"),
        pytest.param({"10.0.0.1"}, True, "10.0.0.1", "not a public address", id="internal, by proxy"),
        pytest.param({"localhost"}, True, "localhost", "this machine", id="this machine, by proxy"),
    ],
)
def test_listed_hosts(hosts: set[str], proxied: bool, host: str, words: str | None) -> None:
    """A list of hosts bounds what is visited, and a proxy makes it mandatory."""
    problem = AddressRules(local=False, hosts=hosts, proxied=proxied).problem(Secret(f"https://{host}/"))

    assert (words is None) == (problem is None)
    assert (words or "") in (problem or "")


@pytest.mark.parametrize("address", INTERNAL)
def test_sockets_to_internal_addresses(address: str) -> None:
    """No socket connects to an internal address; to this machine only while the service runs on it."""
    loopback = address.startswith("127.") or address in {"::1", "::ffff:127.0.0.1"}

    assert not PUBLIC.admits(address)
    assert loopback == LOCAL.admits(address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "2606:4700::1%eth0"]
)
def test_sockets_to_public_addresses(address: str) -> None:
    """A socket may connect to a public address."""
    assert PUBLIC.admits(address)


@given(st.ip_addresses(v=6))
def test_only_global_unicast(ip: ipaddress.IPv6Address) -> None:
    """Of IPv6 only what is assigned to public networks is reached."""
    assert ip in ipaddress.ip_network("2000::/3") or ip.ipv4_mapped or not PUBLIC.admits(str(ip))


@given(st.text())
def test_any_text(text: str) -> None:
    """Whatever stands there is judged without an error, and never reaches this machine."""
    PUBLIC.problem(Secret(text))
    PUBLIC.problem(Secret(f"https://{text}/"))
    assert not PUBLIC.admits(text) or ipaddress.ip_address(text.partition("%")[0]).is_global


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/2.png", "https://cdn.example/2.png"),
        ("2.png?b", "https://cdn.example/a/2.png?b"),
        ("//other.example/2.png", "https://other.example/2.png"),
        ("http://other.example/", "http://other.example/"),
        ("file:///etc/passwd", "file:///etc/passwd"),
        ("", None),
        ("https://[::1", None),
    ],
)
def test_redirects(location: str, target: str | None) -> None:
    """A redirect leads where a browser would go, or nowhere."""
    found = redirected(Secret("https://cdn.example/a/1.png?a"), Secret(location))

    assert target == (found and found.reveal())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@example.com:8443/a/1.png?signature=x#y", "https://example.com/a/1.png"),
        ("https://[::1", "(not an address)"),
        ("data:image/png;base64,iVBORw0KGgo", "(not an address)"),
        ("https:opaque", "(not an address)"),
        ("//cdn.example/x", "(not an address)"),
        ("https://cdn.example/x;signature=secret?a", "https://cdn.example/x"),
        ("https://cdn.example/\x1b[2J\u202e", "https://cdn.example/\\x1b[2J\\u202e"),
    ],
)
def test_shown_address(url: str, shown: str) -> None:
    """What is shown of an address has no query, no user and no fragment."""
    assert shown == shown_url(Secret(url))

"""Which addresses of results are visited: decided on their text first, and again on what each socket is to connect to.

The text alone does not tell where a name leads, and the socket alone does not tell what a proxy would fetch.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit, urlunsplit

import attrs

from picpik_async._config import Secret, is_loopback
from picpik_async.errors import legible

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

__all__ = ["AddressRules", "redirected", "shown_url"]

IPAddress: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"

# The whole of what is accepted, so that no two parsers can read an address in two ways: no user, no backslash, no
# Unicode that some library turns into digits, no zone.
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?:[/?#].*)?",
    re.ASCII | re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LARGEST_PORT: Final = 65535

_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
# What leads elsewhere although `is_global` says yes: 6to4 and its relays, Teredo and its siblings, documentation.
_ELSEWHERE: Final = tuple(map(ipaddress.ip_network, ("2002::/16", "192.88.99.0/24", "2001::/23", "3fff::/20")))


def _lower(hosts: Iterable[str]) -> frozenset[str]:
    return frozenset(map(str.lower, hosts))


@attrs.frozen(kw_only=True)
class AddressRules:
    """Https to public addresses; if the service runs on this machine, also to this machine, even without TLS.

    Attributes:
        local: the service runs on this machine.
        hosts: the only hosts of results; empty allows any.
        proxied: a proxy looks up the names, so that nobody here sees where they lead.
    """

    local: bool
    hosts: frozenset[str] = attrs.field(default=frozenset(), converter=_lower)
    proxied: bool = False

    def problem(self, url: Secret) -> str | None:
        """Why *url* is not visited, in words that quote no more than its host; None if it may be."""
        found = _URL.fullmatch(url.reveal()) if url.reveal().isprintable() else None
        if found is None or not 0 < int(found["port"] or 443) <= _LARGEST_PORT:
            return "it must be https:// and a plain host, without a user"
        host = found["host"].lower().strip("[]").rstrip(".")
        return self._problem_of_host(host, is_tls=found["scheme"].lower() == "https")

    def _problem_of_host(self, host: str, *, is_tls: bool) -> str | None:
        shown = legible(host, limit=100)
        if host not in self.hosts and (self.hosts or self.proxied):
            behind = ", which must be given where a proxy looks up names" if self.proxied else ""
            return f"its host {shown} is not in Dialect.result_hosts{behind}"
        if is_loopback(host):
            return None if self.local else f"its host {shown} is this machine"
        if not is_tls:
            return f"it must be https, and is plain http to {shown}"
        if _is_literal(host) and not is_public(host):
            return f"its host {shown} is not a public address"
        return None

    def admits(self, address: str) -> bool:
        """Whether a socket may connect to the IP address that is *address*, zone or not."""
        ip = _parse(address.partition("%")[0])
        return ip is not None and (is_public(address) or (self.local and ip.is_loopback))


def is_public(address: str) -> bool:
    """Whether *address* is an IP address, spelled the usual way, of a machine that all the world can reach."""
    ip = _parse(address)
    if ip is None or not ip.is_global or ip.is_multicast or any(ip in network for network in _ELSEWHERE):
        return False
    return ip.version == 4 or ip in _GLOBAL_UNICAST  # noqa: PLR2004 - the version of IP


def _parse(address: str) -> IPAddress | None:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def _is_literal(host: str) -> bool:
    """Whether *host* is an address rather than a name, for whoever reads octal, hexadecimal and short ones, too."""
    return ":" in host or _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def redirected(url: Secret, location: Secret) -> Secret | None:
    """Where *location* leads from *url*; None if it is no address."""
    try:
        return Secret(urljoin(url.reveal(), location.reveal())) if location.reveal() else None
    except ValueError:
        return None


def shown_url(url: Secret) -> str:
    """*url* without its query, user and fragment, which may hold secrets; others than of http and https may be secret."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url.reveal())
        if parts.scheme in {"http", "https"} and parts.hostname:
            path = parts.path.partition(";")[0]
            return legible(urlunsplit((parts.scheme, parts.hostname, path, "", "")))
    return "(not an address)"

"""Fetching a picture by URL without becoming somebody's way into the local network.

Every hop of a redirect is checked anew: http or https, no user name, a host all of whose addresses are public.
The socket is then opened to one of the very addresses that were checked, so a name that answers differently the
second time (DNS rebinding) changes nothing. Bytes and time are bounded, and so are redirects. Proxies from the
environment are not used: behind one, no address could be checked.
"""

import contextlib
import http.client
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from dalr.errors import DataError, one_line, shortened
from dalr.files import hash_bytes, write_atomically

MAX_BYTES = 20_000_000
MAX_SECONDS = 20.0
MAX_REDIRECTS = 5
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def cache_root() -> Path:
    """Where dalr keeps what it can make again: `$DALR_CACHE`, or `~/.cache/dalr`."""
    named = os.environ.get("DALR_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "dalr"


def is_public(address: str) -> bool:
    """True for an address of the open internet; False for loopback, private, link-local, shared, multicast and
    reserved ones, also when they are wrapped in an IPv6 address (mapped, 6to4, Teredo, NAT64)."""
    try:
        ip: Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner: Address | None = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not (
        ip.is_private or ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local or ip.is_unspecified
    )


def fetch_image(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    max_seconds: float = MAX_SECONDS,
    max_redirects: int = MAX_REDIRECTS,
    allowed: Callable[[str], bool] = is_public,
) -> bytes:
    """The bytes behind an http(s) URL.

    Args:
        url: where to begin; up to `max_redirects` redirects are followed, each checked like the first.
        max_bytes: bound on the body; a longer one is refused as soon as it is known to be longer.
        max_seconds: bound on everything together, however slowly the server drips (the lookup of a name itself
            is bounded by the system's resolver alone).
        allowed: the check of an IP address; a test on loopback hands in its own.

    Raises DataError with the reason: scheme, address, status, size, time, or what the connection said.
    """
    deadline = time.monotonic() + max_seconds
    for _ in range(max_redirects + 1):
        status, location, body = _get(url, max_bytes, deadline, allowed)
        if status in _REDIRECTS:
            if not location:
                raise DataError(f"{shortened(url)}: redirects (HTTP {status}) without saying where")
            url = urljoin(url, location)
            continue
        if status != 200:
            raise DataError(f"{shortened(url)}: the server answered HTTP {status}")
        if not body:
            raise DataError(f"{shortened(url)}: the server sent nothing (0 bytes)")
        return body
    raise DataError(f"{shortened(url)}: more than {max_redirects} redirects")


def fetched_file(url: str, allowed: Callable[[str], bool] = is_public) -> Path:
    """A local copy of the picture behind `url`, fetched at most once and kept below `cache_root()`."""
    path = cache_root() / "fetched" / hash_bytes(url.encode())
    if not path.is_file():
        write_atomically(path, fetch_image(url, allowed=allowed))
    return path


def _get(url: str, max_bytes: int, deadline: float, allowed: Callable[[str], bool]) -> tuple[int, str | None, bytes]:
    secure, host, port, target = _parts(url)
    peer = _checked_peer(url, host, port, allowed)
    left = deadline - time.monotonic()
    if left <= 0:
        raise _too_slow(url)
    # The last one is the live one: TLS takes the plain socket over.
    sockets = [socket.socket(peer[0], socket.SOCK_STREAM)]
    # A socket's timeout bounds one read; a server that drips a byte a second is bounded by this clock.
    watchdog = threading.Timer(left, _hang_up, [sockets])
    watchdog.daemon = True
    watchdog.start()
    try:
        sockets[0].settimeout(left)
        sockets[0].connect(peer[1])
        if secure:
            context = ssl.create_default_context()
            wrapped = context.wrap_socket(sockets[0], server_hostname=host, do_handshake_on_connect=False)
            sockets.append(wrapped)
            wrapped.do_handshake()
        answer = _exchange(sockets[-1], url, host, port, target, secure, max_bytes)
    except (OSError, http.client.HTTPException, ValueError, DataError) as error:
        if time.monotonic() >= deadline or isinstance(error, TimeoutError):
            raise _too_slow(url) from None
        if isinstance(error, DataError):
            raise
        detail = one_line(error)
        raise DataError(f"{shortened(url)}: cannot be fetched ({detail})") from None
    finally:
        watchdog.cancel()
        sockets[-1].close()
    if time.monotonic() >= deadline:
        # A body of undeclared length that the clock cut off looks whole.
        raise _too_slow(url)
    return answer


def _exchange(
    connection: socket.socket, url: str, host: str, port: int, target: str, secure: bool, max_bytes: int
) -> tuple[int, str | None, bytes]:
    client = http.client.HTTPConnection(host, port)
    client.sock = connection
    default = 443 if secure else 80
    name = f"[{host}]" if ":" in host else host
    headers = {
        "Host": name if port == default else f"{name}:{port}",
        "User-Agent": "dalr",
        "Accept": "image/*",
        # A compressed body could unfold beyond the byte limit; pictures are compressed already.
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    client.request("GET", target, headers=headers)
    with contextlib.closing(client.getresponse()) as response:
        if response.status != 200:
            return response.status, response.getheader("Location"), b""
        if (response.getheader("Content-Encoding") or "identity").lower() != "identity":
            raise DataError(f"{shortened(url)}: the server insists on a compressed body")
        if response.length is not None and response.length > max_bytes:
            raise DataError(f"{shortened(url)}: {response.length:,} bytes; at most {max_bytes:,} are fetched")
        expected = response.length
        body = response.read(max_bytes + 1)
        if len(body) > max_bytes:
            raise DataError(f"{shortened(url)}: more than {max_bytes:,} bytes")
        if expected is not None and len(body) < expected:
            raise DataError(f"{shortened(url)}: the connection ended after {len(body):,} of {expected:,} bytes")
        return 200, None, body


def _parts(url: str) -> tuple[bool, str, int, str]:
    """(https?, host, port, path with query) of a URL that may be fetched."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError:
        raise DataError(f"{shortened(url)}: is not a valid URL") from None
    if scheme not in ("http", "https"):
        raise DataError(f"{shortened(url)}: only http and https are fetched, not '{scheme}'")
    if not host:
        raise DataError(f"{shortened(url)}: names no host")
    if parts.username is not None or parts.password is not None:
        raise DataError(f"{shortened(url)}: a user name or password in a URL is refused")
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    if any(ord(c) <= 32 or ord(c) >= 127 for c in target):
        from urllib.parse import quote

        target = quote(target, safe="/?&=%:@!$'()*+,;~-._")
    try:
        host = host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError:
        raise DataError(f"{shortened(url)}: is not a valid URL") from None
    return scheme == "https", host, port or (443 if scheme == "https" else 80), target


def _checked_peer(
    url: str, host: str, port: int, allowed: Callable[[str], bool]
) -> tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]:
    """The family and socket address to connect to, its IP checked; one address that is not allowed refuses all."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise DataError(f"{shortened(url)}: the host '{host}' is not known") from None
    for *_, address in found:
        if not allowed(str(address[0])):
            raise DataError(f"{shortened(url)}: leads to {address[0]}, which is not a public address")
    family, _, _, _, address = found[0]
    return family, address


def _hang_up(sockets: list[socket.socket]) -> None:
    with contextlib.suppress(OSError):
        # The plain socket's own shutdown: TLS's would take the session away from under the reading thread.
        socket.socket.shutdown(sockets[-1], socket.SHUT_RDWR)


def _too_slow(url: str) -> DataError:
    return DataError(f"{shortened(url)}: took longer than the time limit")

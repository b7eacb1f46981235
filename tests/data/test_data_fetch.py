"""Invariants of fetching by URL, against a real HTTP server on loopback (which the default check must refuse):

- only http and https, only public addresses, in every notation; every hop of a redirect is checked;
- the socket goes to the very address that was checked: a name that answers otherwise next time changes nothing;
- bytes are bounded with and without a declared length, time is bounded however slowly the server drips;
- what went wrong is said: status, cut body, nothing sent, too many redirects.
"""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from data_samples import encoded, picture

from dalr.data.fetch import fetch_image, fetched_file, is_public
from dalr.data.images import open_image, resolve_image
from dalr.errors import DataError

PHOTO = encoded(picture(7))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        name = self.path.split("?")[0].strip("/")
        getattr(self, f"give_{name.split('/')[0]}", self.give_missing)(name)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        for key, value in headers.items():
            if value:
                self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def give_photo(self, name: str) -> None:
        self.answer(200, PHOTO)

    def give_missing(self, name: str) -> None:
        self.answer(404, b"no")

    def give_empty(self, name: str) -> None:
        self.answer(200)

    def give_hops(self, name: str) -> None:
        left = int(name.split("/")[1])
        self.answer(302, Location=f"/hops/{left - 1}" if left else "/photo")

    def give_elsewhere(self, name: str) -> None:
        target = {
            "private": "http://10.1.2.3/photo", "file": "file:///etc/passwd", "metadata": "http://169.254.169.254/",
            "nowhere": "", "other": f"http://127.0.0.2:{self.server.server_port}/photo",  # type: ignore[attr-defined]
        }[name.split("/")[1]]  # fmt: skip
        self.answer(307, Location=target)

    def give_large(self, name: str) -> None:
        self.answer(200, bytes(5_000))

    def give_endless(self, name: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"3e8\r\n" + bytes(1_000) + b"\r\n")
        except OSError:
            self.close_connection = True

    def give_cut(self, name: str) -> None:
        self.answer(200, PHOTO[:100], Content_Length=str(len(PHOTO)))
        self.close_connection = True

    def give_gzip(self, name: str) -> None:
        self.answer(200, bytes(50), Content_Encoding="gzip")

    def give_drip(self, name: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "10000")
        self.end_headers()
        self.drip()

    def give_dripclose(self, name: str) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.drip()

    def give_dripheader(self, name: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        self.drip()

    def drip(self) -> None:
        try:
            for _ in range(200):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    instance = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.daemon_threads = True
    instance.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=instance.serve_forever, daemon=True).start()
    yield instance
    instance.shutdown()
    instance.server_close()


@pytest.fixture
def base(server: http.server.ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def loopback(address: str) -> bool:
    return address == "127.0.0.1"


def test_a_picture_arrives_whole(base: str) -> None:
    assert fetch_image(f"{base}/photo?size=ä ö", allowed=loopback) == PHOTO
    assert fetch_image(f"{base}/hops/3", allowed=loopback) == PHOTO


def test_loopback_is_refused_by_default_in_every_notation(server: http.server.ThreadingHTTPServer) -> None:
    asked = len(server.asked)  # type: ignore[attr-defined]
    port = server.server_port
    hosts = [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "[::ffff:127.0.0.1]",
        "0",
    ]
    for host in hosts:
        with pytest.raises(DataError, match=r"not a public address|not known"):
            fetch_image(f"http://{host}:{port}/photo")
    assert len(server.asked) == asked, "no request may have been sent"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
        "fec0::1", "ff02::1", "::ffff:10.0.0.1", "2002:0a00:0001::", "64:ff9b::10.0.0.1", "2001:db8::1", "not-an-ip",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "only http and https"), ("ftp://example.com/a.jpg", "only http and https"),
        ("gopher://127.0.0.1/", "only http and https"), ("http:///a.jpg", "names no host"),
        ("http://user:word@example.com/a.jpg", "user name"), ("http://exa mple.com:99999/", "not a valid|not known"),
        ("http://[::1/", "not a valid"),
    ],
)  # fmt: skip
def test_urls_that_are_not_tried(url: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        fetch_image(url)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("elsewhere/private", "10.1.2.3, which is not a public address"), ("elsewhere/file", "only http and https"),
        ("elsewhere/metadata", "169.254.169.254, which is not"), ("elsewhere/other", "127.0.0.2, which is not"),
        ("elsewhere/nowhere", "without saying where"), ("hops/9", "more than 5 redirects"), ("nothing", "HTTP 404"),
        ("empty", "nothing"), ("cut", "after 100 of"), ("gzip", "compressed"),
    ],
)  # fmt: skip
def test_what_a_server_may_not_do(base: str, path: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        fetch_image(f"{base}/{path}", allowed=loopback)


def test_bytes_are_bounded(base: str) -> None:
    with pytest.raises(DataError, match="5,000 bytes; at most 4,999"):
        fetch_image(f"{base}/large", allowed=loopback, max_bytes=4_999)
    assert len(fetch_image(f"{base}/large", allowed=loopback, max_bytes=5_000)) == 5_000
    with pytest.raises(DataError, match="more than 20,000 bytes"):
        fetch_image(f"{base}/endless", allowed=loopback, max_bytes=20_000)


@pytest.mark.parametrize("path", ["drip", "dripclose", "dripheader"])
def test_time_is_bounded_as_a_whole(base: str, path: str) -> None:
    start = time.perf_counter()
    with pytest.raises(DataError, match="longer than the time limit"):
        fetch_image(f"{base}/{path}", allowed=loopback, max_seconds=0.6)
    assert time.perf_counter() - start < 3, "each byte comes within any timeout of its own; only the sum is bounded"


def test_a_silent_tls_server_is_bounded_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.perf_counter()
        with pytest.raises(DataError, match="longer than the time limit"):
            fetch_image(f"https://127.0.0.1:{silent.getsockname()[1]}/", allowed=loopback, max_seconds=0.5)
        assert time.perf_counter() - start < 3


def test_https_needs_a_real_certificate_and_says_so(base: str) -> None:
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch_image(base.replace("http", "https") + "/photo", allowed=loopback)


def test_a_name_that_changes_its_answer_gains_nothing(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The resolver is the one thing here that cannot be real: it answers with the server once, then with the
    # address an attacker wants reached.
    answers = ["127.0.0.1", "10.9.9.9", "10.9.9.9"]
    real = socket.getaddrinfo
    asked: list[str] = []

    def rebinding(host: str, *args: object, **options: object) -> object:
        if host == "rebind.example":
            asked.append(host)
            return real(answers[len(asked) - 1], *args, **options)  # type: ignore[arg-type]
        return real(host, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    url = base.replace("127.0.0.1", "rebind.example") + "/photo"
    assert fetch_image(url, allowed=loopback) == PHOTO
    assert len(asked) == 1, "the name is looked up once a hop; the checked address is the one connected to"
    with pytest.raises(DataError, match=r"10\.9\.9\.9"):
        fetch_image(url, allowed=loopback)


def test_one_private_address_among_several_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def mixed(host: str, port: int, **options: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("93.184.215.14", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", mixed)
    with pytest.raises(DataError, match=r"10\.0\.0\.1"):
        fetch_image("http://mixed.example/a.jpg")


def test_a_fetched_picture_is_kept(base: str, tmp_path: Path, server: http.server.ThreadingHTTPServer) -> None:
    url = f"{base}/photo?kept"
    asked = len(server.asked)  # type: ignore[attr-defined]
    path = fetched_file(url, loopback)
    assert open_image(path).size == (40, 30)
    assert resolve_image(tmp_path, url, allow_urls=True) == path
    assert len(server.asked) == asked + 1  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="allow_urls=true"):
        resolve_image(tmp_path, url)

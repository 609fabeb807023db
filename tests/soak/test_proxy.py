"""The proxy behaves as a network that breaks: each direction by itself, and never with a gap in what it delivers."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.soak.proxy import HOST, Direction, Proxy
from tests.support import eventually

pytestmark = pytest.mark.timeout(30)


class Echo:
    """A server that remembers what it was sent, and sends it back."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self.received = bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                connection = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the other side is gone
            while some := connection.recv(1024):
                self.received += some
                connection.sendall(some)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def proxy(server: Echo) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    client = socket.create_connection((HOST, proxy.port), timeout=5)
    client.sendall(b"hello")
    assert client.recv(5) == b"hello"
    return client


def nothing_comes(client: socket.socket) -> bool:
    client.settimeout(0.3)
    try:
        return client.recv(100) is None
    except TimeoutError:
        return True
    finally:
        client.settimeout(5)


def is_reset(proxy: Proxy) -> bool:
    """Whether a new connection is; it may be noticed as early as in the call that connects."""
    try:
        with socket.create_connection((HOST, proxy.port), timeout=5) as client:
            client.recv(10)
    except ConnectionResetError:
        return True
    return False


def test_bytes_pass_and_an_end_is_passed_on(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert proxy.connections == 1
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""
    eventually(lambda: proxy.connections == 0)


def test_a_reset_is_seen_as_one_and_new_connections_pass(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    with connect(proxy):
        pass


def test_what_is_stalled_waits_and_comes_late_in_order(proxy: Proxy, server: Echo) -> None:
    with connect(proxy) as client:
        proxy.stall([Direction.DOWN])
        client.sendall(b"one")
        assert nothing_comes(client)
        assert server.received == b"helloone"
        client.sendall(b"two")
        proxy.heal()
        found = b""
        while len(found) < 6:
            found += client.recv(10)
        assert found == b"onetwo"


def test_stalled_upwards_the_server_hears_nothing(proxy: Proxy, server: Echo) -> None:
    with connect(proxy) as client:
        proxy.stall([Direction.UP])
        client.sendall(b"one")
        assert nothing_comes(client)
        assert server.received == b"hello"
        proxy.heal()
        assert client.recv(10) == b"one"


def test_a_connection_that_lost_bytes_is_reset_in_the_end(proxy: Proxy, server: Echo) -> None:
    with connect(proxy) as client, connect(proxy) as quiet:
        server.received.clear()
        proxy.swallow([Direction.UP])
        client.sendall(b"lost")
        assert nothing_comes(client)
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            client.recv(10)
        assert server.received == b""
        # One on which nothing was sent meanwhile is as good as before.
        quiet.sendall(b"whole")
        assert quiet.recv(10) == b"whole"


def test_or_it_stays_half_open_and_delivers_nothing_after_the_gap(proxy: Proxy, server: Echo) -> None:
    with connect(proxy) as client:
        proxy.swallow([Direction.DOWN])
        client.sendall(b"answer lost")
        eventually(lambda: server.received == b"helloanswer lost")
        assert nothing_comes(client)
        proxy.heal(reset_broken=False)
        client.sendall(b", heard")
        eventually(lambda: server.received == b"helloanswer lost, heard")
        assert nothing_comes(client)


def test_the_end_of_a_connection_is_swallowed_too(proxy: Proxy) -> None:
    client = connect(proxy)
    proxy.swallow()
    client.close()
    with pytest.raises(AssertionError):
        eventually(lambda: proxy.connections == 0, within=0.5)
    proxy.heal()
    eventually(lambda: proxy.connections == 0)


def test_refused_connections_end_at_once_until_it_heals(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    assert is_reset(proxy)
    proxy.heal()
    with connect(proxy):
        pass


def test_a_server_that_is_not_there_is_a_reset(server: Echo) -> None:
    with socket.create_server((HOST, 0)) as reserved:
        port = reserved.getsockname()[1]
    with Proxy(port) as proxy:
        assert is_reset(proxy)


def test_a_port_that_is_taken_is_said(server: Echo) -> None:
    with pytest.raises(OSError, match="in use"):
        Proxy(1, port=server.port)

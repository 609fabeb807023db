"""The proxy behaves like a faulty network. Each direction fails separately, and no bytes arrive after a gap."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.soak.proxy import HOST, Direction, Proxy
from tests.support import eventually

pytestmark = pytest.mark.timeout(30)


class Echo:
    """A server that records the bytes it receives, and sends them back."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self.received = bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed
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


def receives_nothing(client: socket.socket) -> bool:
    """Whether the client receives neither bytes nor the end of the connection for 0.3 s."""
    client.settimeout(0.3)
    try:
        return client.recv(100) is None
    except TimeoutError:
        return True
    finally:
        client.settimeout(5)


def is_reset(proxy: Proxy) -> bool:
    """Whether a new connection is reset, perhaps during the call that connects."""
    try:
        with socket.create_connection((HOST, proxy.port), timeout=5) as client:
            client.recv(10)
    except ConnectionResetError:
        return True
    return False


def test_bytes_and_the_end_of_a_connection_are_forwarded(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert proxy.connections == 1
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""
    eventually(lambda: proxy.connections == 0)


def test_a_reset_reaches_the_client_and_new_connections_pass(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    with connect(proxy):
        pass


def test_stalled_bytes_arrive_late_and_in_order(proxy: Proxy, server: Echo) -> None:
    with connect(proxy) as client:
        proxy.stall([Direction.DOWN])
        client.sendall(b"one")
        assert receives_nothing(client)
        assert server.received == b"helloone"
        client.sendall(b"two")
        proxy.heal()
        found = b""
        while len(found) < 6:
            found += client.recv(10)
        assert found == b"onetwo"


def test_the_server_receives_nothing_while_the_upward_direction_is_stalled(proxy: Proxy, server: Echo) -> None:
    with connect(proxy) as client:
        proxy.stall([Direction.UP])
        client.sendall(b"one")
        assert receives_nothing(client)
        assert server.received == b"hello"
        proxy.heal()
        assert client.recv(10) == b"one"


def test_a_connection_that_lost_bytes_is_reset_when_the_proxy_heals(proxy: Proxy, server: Echo) -> None:
    with connect(proxy) as client, connect(proxy) as quiet:
        server.received.clear()
        proxy.swallow([Direction.UP])
        client.sendall(b"lost")
        assert receives_nothing(client)
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            client.recv(10)
        assert server.received == b""
        # A connection that lost no bytes still works.
        quiet.sendall(b"whole")
        assert quiet.recv(10) == b"whole"


def test_a_connection_that_lost_bytes_can_stay_half_open_and_delivers_nothing(proxy: Proxy, server: Echo) -> None:
    with connect(proxy) as client:
        proxy.swallow([Direction.DOWN])
        client.sendall(b"answer lost")
        eventually(lambda: server.received == b"helloanswer lost")
        assert receives_nothing(client)
        proxy.heal(reset_broken=False)
        client.sendall(b", heard")
        eventually(lambda: server.received == b"helloanswer lost, heard")
        assert receives_nothing(client)


def test_the_end_of_a_connection_is_swallowed_too(proxy: Proxy) -> None:
    client = connect(proxy)
    proxy.swallow()
    client.close()
    with pytest.raises(AssertionError):
        eventually(lambda: proxy.connections == 0, within=0.5)
    proxy.heal()
    eventually(lambda: proxy.connections == 0)


def test_connections_are_reset_at_once_until_the_proxy_heals(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    assert is_reset(proxy)
    proxy.heal()
    with connect(proxy):
        pass


def test_a_connection_to_a_missing_server_is_reset(server: Echo) -> None:
    with socket.create_server((HOST, 0)) as reserved:
        port = reserved.getsockname()[1]
    with Proxy(port) as proxy:
        assert is_reset(proxy)


def test_a_taken_port_raises_an_error(server: Echo) -> None:
    with pytest.raises(OSError, match="in use"):
        Proxy(1, port=server.port)

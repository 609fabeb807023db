"""A TCP proxy that can reset, stall, swallow or refuse connections, each direction separately.

It behaves like a faulty network. Once a connection has lost bytes, it delivers no more bytes in that direction, because
TCP never delivers bytes after a gap. A reset sends a RST instead of closing the connection in an orderly way.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterable
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeVar

HOST = "127.0.0.1"
#: The maximum number of bytes to forward at once.
CHUNK = 64 * 1024
#: The time limit for a call to the proxy's thread, in seconds.
CALL_WITHIN = 10.0
#: SO_LINGER with a timeout of zero. Closing the socket then sends a RST.
RESET = struct.pack("ii", 1, 0)

Returned = TypeVar("Returned")


class Direction(StrEnum):
    """The direction of bytes: ``UP`` from the client to the server, ``DOWN`` back."""

    UP = "up"
    DOWN = "down"


BOTH: frozenset[Direction] = frozenset(Direction)


class _Link:
    """One connection, with a socket to the client and a socket to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.writers = (client, server)
        #: The directions in which bytes were lost.
        self.broken: set[Direction] = set()

    def reset(self) -> None:
        for writer in self.writers:
            connection = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):  # it is already closed
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


class Proxy:
    """Listens in front of a server on 127.0.0.1; closes at the end of a ``with`` block.

    All methods are thread-safe and take effect before they return.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        """Starts listening.

        Args:
            target: the port of the server, which need not run yet.
            port: the port to listen on; any free port by default.

        Raises:
            OSError: the port is taken.
        """
        self._target = target
        self._links: set[_Link] = set()
        self._flows: dict[Direction, asyncio.Event] = {}
        self._swallowed: frozenset[Direction] = frozenset()
        self._refuses = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy of {target}", daemon=True)
        self._thread.start()
        try:
            self._server = self._run(self._listen(port))
        except OSError:
            self._end_loop()
            raise
        self.port = int(self._server.sockets[0].getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return self._call(lambda: len(self._links))

    def reset(self) -> int:
        """Resets every connection on both sides; new ones pass. Returns the number of connections."""
        return self._call(self._reset)

    def stall(self, directions: Iterable[Direction] = BOTH) -> None:
        """Holds back bytes in these directions, and in no others, until :meth:`heal`. No bytes are lost."""
        stalled = frozenset(directions)

        def change() -> None:
            for direction, flow in self._flows.items():
                if direction in stalled:
                    flow.clear()
                else:
                    flow.set()

        self._call(change)

    def swallow(self, directions: Iterable[Direction] = BOTH) -> None:
        """Drops all bytes in these directions, and in no others, until :meth:`heal`."""
        swallowed = frozenset(directions)

        def change() -> None:
            self._swallowed = swallowed

        self._call(change)

    def refuse(self) -> None:
        """Resets every open and every new connection until :meth:`heal`."""

        def change() -> None:
            self._refuses = True
            self._reset()

        self._call(change)

    def heal(self, *, reset_broken: bool = True) -> None:
        """Forwards everything again.

        Args:
            reset_broken: reset the connections that lost bytes. Otherwise they stay half open, and deliver nothing in
                that direction until one side closes them.
        """

        def change() -> None:
            self._refuses, self._swallowed = False, frozenset()
            for link in list(self._links):
                if link.broken and reset_broken:
                    link.reset()
            for flow in self._flows.values():
                flow.set()

        self._call(change)

    def close(self) -> None:
        """Resets every connection and stops listening."""
        self._run(self._shut())
        self._end_loop()

    def _run(self, coroutine: Coroutine[Any, Any, Returned]) -> Returned:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CALL_WITHIN)

    def _call(self, change: Callable[[], Returned]) -> Returned:
        async def do() -> Returned:
            return change()

        return self._run(do())

    async def _listen(self, port: int) -> asyncio.Server:
        for direction in Direction:
            self._flows[direction] = asyncio.Event()
            self._flows[direction].set()
        return await asyncio.start_server(self._connected, HOST, port)

    async def _shut(self) -> None:
        self._server.close()
        self._reset()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_WITHIN)
        self._loop.close()

    def _reset(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the proxy closes
            try:
                if self._refuses:
                    raise ConnectionRefusedError
                from_server, to_server = await asyncio.open_connection(HOST, self._target)
            except OSError:
                _Link(writer, writer).reset()
                return
            link = _Link(writer, to_server)
            self._links.add(link)
            try:
                await asyncio.gather(
                    self._pump(reader, to_server, Direction.UP, link),
                    self._pump(from_server, writer, Direction.DOWN, link),
                )
            except OSError:  # one side reset the connection, so reset the other side too
                link.reset()
            finally:
                self._links.discard(link)
                for each in link.writers:
                    each.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction, link: _Link
    ) -> None:
        while data := await reader.read(CHUNK):
            await self._flows[direction].wait()
            if direction in self._swallowed:
                link.broken.add(direction)
            if direction not in link.broken:
                writer.write(data)
                await writer.drain()
        # Closing a connection is a message too.
        await self._flows[direction].wait()
        if direction in self._swallowed:
            link.broken.add(direction)
        if direction not in link.broken:
            writer.close()

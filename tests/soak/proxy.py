"""A TCP proxy whose connections can be reset, stalled, swallowed or refused, each direction by itself.

It behaves as a network does, not as a program in the way: a connection that lost bytes never delivers any more in that
direction, because TCP never delivers what comes after a gap; and a reset is a RST, not an orderly end.
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
#: Bytes that are passed on at once.
CHUNK = 64 * 1024
#: Seconds within which the proxy's own thread does what it is told.
OBEYS_WITHIN = 10.0
#: SO_LINGER with no time to linger: closing sends a RST.
RESET = struct.pack("ii", 1, 0)

Returned = TypeVar("Returned")


class Direction(StrEnum):
    """Where bytes go: ``UP`` from the client to the server, ``DOWN`` back."""

    UP = "up"
    DOWN = "down"


BOTH: frozenset[Direction] = frozenset(Direction)


class _Link:
    """One connection: the client's side and the server's."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.writers = (client, server)
        #: The directions in which bytes were lost.
        self.broken: set[Direction] = set()

    def reset(self) -> None:
        for writer in self.writers:
            connection = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):  # it has ended already
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


class Proxy:
    """Stands on a port of its own before a server on 127.0.0.1; as a context manager it is gone at the end.

    All methods may be called from any thread; what they say holds when they return.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        """Listen at once.

        Args:
            target: the port of the server; it need not be there yet.
            port: where to listen; any free port unless one is given.

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
            self._server = self._told(self._listen(port))
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
        """How many connections there are."""
        return self._at_once(lambda: len(self._links))

    def reset(self) -> int:
        """Ends every connection with a RST to both sides; new ones pass. How many there were."""
        return self._at_once(self._reset)

    def stall(self, directions: Iterable[Direction] = BOTH) -> None:
        """Lets bytes wait in these directions, and in no other, until :meth:`heal`; none is lost."""
        stalled = frozenset(directions)

        def change() -> None:
            for direction, flow in self._flows.items():
                if direction in stalled:
                    flow.clear()
                else:
                    flow.set()

        self._at_once(change)

    def swallow(self, directions: Iterable[Direction] = BOTH) -> None:
        """Loses all bytes in these directions, and in no other, until :meth:`heal`."""
        swallowed = frozenset(directions)

        def change() -> None:
            self._swallowed = swallowed

        self._at_once(change)

    def refuse(self) -> None:
        """Resets every connection, and each new one, until :meth:`heal`."""

        def change() -> None:
            self._refuses = True
            self._reset()

        self._at_once(change)

    def heal(self, *, reset_broken: bool = True) -> None:
        """Lets everything pass again.

        Args:
            reset_broken: resets the connections that lost bytes; else they stay half open, and deliver nothing in
                that direction for as long as their two sides keep them.
        """

        def change() -> None:
            self._refuses, self._swallowed = False, frozenset()
            for link in list(self._links):
                if link.broken and reset_broken:
                    link.reset()
            for flow in self._flows.values():
                flow.set()

        self._at_once(change)

    def close(self) -> None:
        """Ends every connection, and listens no more."""
        self._told(self._shut())
        self._end_loop()

    def _told(self, what: Coroutine[Any, Any, Returned]) -> Returned:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(OBEYS_WITHIN)

    def _at_once(self, change: Callable[[], Returned]) -> Returned:
        async def do() -> Returned:
            return change()

        return self._told(do())

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
        self._thread.join(OBEYS_WITHIN)
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
            except OSError:  # one side reset it, so the other one hears the same
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
        # The end of a connection is a message too.
        await self._flows[direction].wait()
        if direction in self._swallowed:
            link.broken.add(direction)
        if direction not in link.broken:
            writer.close()

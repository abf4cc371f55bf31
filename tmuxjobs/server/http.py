"""MCP over HTTP: who is let in, how much of the server a connection may take and for how long, and how it ends.

uvicorn bounds neither the time of a request nor connections, and at its limit of open files asyncio writes thousands of
tracebacks a second.
"""

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

import h11
import uvicorn
from fastmcp import FastMCP
from fastmcp.server.auth import AccessToken, TokenVerifier
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from tmuxjobs.errors import StateError
from tmuxjobs.jobs import Jobs
from tmuxjobs.server.address import Listener
from tmuxjobs.server.tools import build_server
from tmuxjobs.settings import Settings

logger = logging.getLogger(__name__)
HEADER_S: Final = 10.0
"""Seconds from a connection, or the last answer on it, to the last byte of a request's header."""
BODY_S: Final = 30.0
WRITE_S: Final = 30.0
"""How long a client may leave its answer unread."""
STRANGERS: Final = 32
"""Connections of one address that have not sent the token; beyond that the oldest makes room for a new one."""
MOST: Final = 512
"""The limit of all connections, and never more than half of the files that may be open."""
FAIR_S: Final = 0.25
"""Seconds that every connection has for its request before it must make room."""
TURN_S: Final = 0.01
LINGER_S: Final = 1.0
GRACE_S: Final = 2
END_S: Final = 8.0
LOG_S: Final = 60.0


class Counted(logging.Filter):
    """Logs an error once and counts its repetitions for LOG_S, so that they cannot fill a disk."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int, object], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = (record.pathname, record.lineno, record.exc_info and record.exc_info[0])
        shown_at, held = self._seen.get(kind, (0.0, 0))
        if record.created - shown_at < LOG_S:
            self._seen[kind] = (shown_at, held + 1)
            return False
        self._seen[kind] = (record.created, 0)
        if held:
            record.msg, record.args = f"{record.getMessage()} ({held} more like it since the last)", ()
        return True


class Connection(H11Protocol):
    """A connection: a stranger until a request on it has sent the token."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._enter, self.app = self.app, self._answer
        self.token: str | None = None
        self.arrived = self.since = self.loop.time()
        self._unread_since: float | None = None
        self._closing_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        near = [one for one in strangers(self.connections) if one.address == self.address]
        if len(near) > STRANGERS:
            drop_oldest(near)

    @property
    def address(self) -> str:
        return self.client[0] if self.client else ""

    def data_received(self, data: bytes) -> None:
        before = self.conn.their_state
        super().data_received(data)
        if self.conn.their_state is not before:
            self.since = self.loop.time()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.since = self.loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread_since = None

    def overdue(self, now: float) -> bool:
        """Whether its time is over; it has no limit only while a request is being answered."""
        if self.transport.is_closing():
            # Closing waits until what was written has been read.
            self._closing_since = self._closing_since or now
            return now - self._closing_since > HEADER_S
        if self._unread_since is not None:
            return now - self._unread_since > WRITE_S
        bounds = {h11.IDLE: HEADER_S, h11.SEND_BODY: BODY_S}
        return now - self.since > bounds.get(self.conn.their_state, float("inf"))

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        here.set(self)

        async def tell(message: Any) -> None:
            if message["type"] == "http.response.start" and self.token is None:
                # Closing while a body is still arriving would lose the answer too.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        while self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
                            await receive()
                message = message | {"headers": [*message.get("headers", ()), CLOSE_HEADER]}
            await send(message)

        await self._enter(scope, receive, tell)


def strangers(connections: Iterable[Any]) -> list[Connection]:
    return [one for one in connections if one.token is None and not one.transport.is_closing()]


def most() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if files == resource.RLIM_INFINITY else min(MOST, files // 2)


def drop_oldest(found: list[Connection]) -> None:
    """End the oldest if it has had FAIR_S; without that, a burst would push out connections before they are read."""
    oldest = min(found, key=lambda one: one.arrived, default=None)
    if oldest is not None and oldest.loop.time() - oldest.arrived >= FAIR_S:
        oldest.transport.abort()


here: ContextVar[Connection] = ContextVar("here")
"""The connection of the request that is being answered."""


class OneToken(TokenVerifier):
    """Lets in requests with the token that is in the file now."""

    def __init__(self, path: Path, value: Callable[[], str]) -> None:
        super().__init__()
        self._path = path
        self._value = value
        self._read: tuple[os.stat_result, str] | None = None

    async def verify_token(self, token: str) -> AccessToken | None:
        known = self.now()
        if known is None or not secrets.compare_digest(token.encode(), known.encode()):
            return None
        here.get().token = token
        return AccessToken(token=token, client_id="owner", scopes=[])

    def now(self) -> str | None:
        """The token; None, and a line in the log, when there is none that can be trusted."""
        try:
            facts = os.lstat(self._path)
            # Read at the start and only after a change: later no more files may be allowed to be opened.
            if self._read is None or _version(self._read[0]) != _version(facts):
                self._read = facts, self._value()
            return self._read[1]
        except (OSError, StateError) as error:
            logger.error("Nobody is let in: %s", error)
            return None


def _version(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_dev, facts.st_ino, facts.st_mode, facts.st_nlink, facts.st_ctime_ns


class Server(uvicorn.Server):
    """Checks its connections once a second, and ends within END_S whatever they do."""

    def __init__(self, config: uvicorn.Config, listener: Listener, verifier: OneToken) -> None:
        super().__init__(config)
        self._listener, self._verifier = listener, verifier
        self._signal: int | None = None
        self._accepting: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        self.servers = []  # asyncio's accept all that wait, read none meanwhile, and have no limit
        self._accepting = [asyncio.create_task(self._accept(one)) for one in self._listener.sockets]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self._accepting:
            task.cancel()
        await super().shutdown(sockets)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        connections: set[Any] = self.server_state.connections
        while True:
            while len(connections) >= most():
                drop_oldest(strangers(connections))
                await asyncio.sleep(TURN_S)
            try:
                one, _ = await loop.sock_accept(listener)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                logger.error("No more connections can be accepted now: %s", error.strerror)
                for waiting in strangers(connections):
                    drop_oldest([waiting])
                await asyncio.sleep(FAIR_S)
                continue
            with contextlib.suppress(OSError):  # it is gone already
                await loop.connect_accepted_socket(self._made, one)

    def _made(self) -> Connection:
        return Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0 and self.server_state.connections:
            now, token = asyncio.get_running_loop().time(), self._verifier.now()
            for one in list(self.server_state.connections):
                # End connections with an earlier token: a new one is made when others know the old one.
                if isinstance(one, Connection) and (one.overdue(now) or one.token not in (None, token)):
                    one.transport.abort()
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        yield
        # Not by leaving the loop, which would wait for the threads of tools that are still at work.
        self._die()

    def _end(self, number: int) -> None:
        if self._signal is not None:
            self._die()
        self._signal = number
        self.should_exit = True
        self._listener.leave()
        asyncio.get_running_loop().call_later(END_S, self._die)

    def _die(self) -> None:
        if self._signal is not None:
            signal.signal(self._signal, signal.SIG_DFL)
            signal.raise_signal(self._signal)


def serve_jobs(settings: Settings, listener: Listener) -> None:
    """Serve MCP over HTTP to clients that send the token, until SIGTERM or SIGINT comes; the jobs live on."""
    jobs = Jobs.open(settings)
    token = OneToken(jobs.token(), jobs.token_value)
    serve(build_server(settings), listener, token=token, names=settings.http_hosts or ())


def serve(server: FastMCP, listener: Listener, *, token: OneToken, names: Iterable[str] = ()) -> None:
    """Serve MCP on /mcp of the listener to clients that send the token, until SIGTERM or SIGINT comes.

    `names` are hosts, besides those of this machine's loopback and the one it listens on, that a request may name: a
    page in a browser could reach us under another name.
    """
    server.auth = token
    token.now()
    hosts = [*names, *([listener.host] if listener.host else [])]
    app = server.http_app(host_origin_protection=True, allowed_hosts=hosts)
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    logging.getLogger("fastmcp").setLevel(logging.ERROR)
    counted = Counted()
    for logger in (logging.getLogger(), logging.getLogger("fastmcp")):
        for handler in logger.handlers:
            handler.addFilter(counted)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",  # a connection that becomes a web socket would leave our bounds
        lifespan="on",
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    asyncio.run(Server(config, listener, token).serve(listener.sockets))

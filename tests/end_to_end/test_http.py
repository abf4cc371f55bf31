"""`serve --http`: the same tools over HTTP, for who brings the token, whatever others do on the same port."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from loaded import Loaded, Process
from mcp_types import Implementation
from support import Jobs, wait_until

from tmuxjobs import Settings
from tmuxjobs.server.http import MOST, STRANGERS

from .conftest import PROGRAM, Run

BOUNDS = {
    "requests": "HEADER_S = s.BODY_S = 1.0",
    "answers": "WRITE_S = 1.0",
    "no requests": "HEADER_S = 3600.0",
    "log": "LOG_S = 3600.0",
}
"""Some other than the real ones, which a test cannot wait for, or a busy machine may take longer than."""
CHANGED = "import tmuxjobs.server.http as s; from tmuxjobs.cli.main import main; s.{}; main()"
LAUNCH = {"real": PROGRAM} | {name: [sys.executable, "-c", CHANGED.format(bounds)] for name, bounds in BOUNDS.items()}
"""By an interpreter of their own; any other is forked from a process that has loaded the command."""
HALF = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n"


class Server:
    """The command, serving; `stderr` is what it has written there."""

    def __init__(
        self, where: str, *options: str, loaded: Loaded, bounds: str | None = None, files: int | None = None
    ) -> None:
        self._log = Path(os.environ["TMPDIR"]) / f"stderr-{where.rpartition(':')[2].rpartition('/')[2]}"
        self.where = where
        self.opened: list[socket.socket] = []
        line = ["serve", "--http", where, *options]
        argv = [*LAUNCH[bounds or "real"], *line]
        if files is not None:
            argv = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *argv]
        self.process: subprocess.Popen[bytes] | Process
        with self._log.open("wb") as log, open(os.devnull) as null:
            if bounds or files:
                self.process = subprocess.Popen(argv, stdin=null, stderr=log)
            else:
                fds = (null.fileno(), log.fileno(), log.fileno())
                self.process = loaded.start(line, env=os.environ, fds=fds, terminal=False)
        wait_until(lambda: self.answers() or self.process.poll() is not None, timeout=100)

    def answers(self) -> bool:
        with contextlib.suppress(OSError), self.connect() as one:
            one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return one.recv(9) == b"HTTP/1.1 "
        return False

    def connect(self) -> socket.socket:
        if self.where.startswith("unix:"):
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(30)
            try:
                one.connect(self.where.removeprefix("unix:"))
            except OSError:
                one.close()
                raise
            return one
        host, _, port = self.where.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout=30)

    def ask(self, request: str | bytes) -> bytes:
        """What comes back for those bytes until the server closes the connection."""
        with self.connect() as one:
            with contextlib.suppress(ConnectionError):  # it has answered and left before it had all
                one.sendall(request.encode() if isinstance(request, str) else request)
            return received(one)

    def flood(self, count: int, sent: bytes = HALF) -> list[socket.socket]:
        """So many connections that each have sent that much; open until the end."""
        for _ in range(count):
            one = socket.socket()
            self.opened.append(one)
            one.settimeout(30)
            with contextlib.suppress(OSError):  # it made room
                one.connect(("127.0.0.1", int(self.where.rpartition(":")[2])))
                one.sendall(sent)
        return self.opened[-count:]

    def leave(self) -> None:
        """Close what `flood` opened."""
        while self.opened:
            self.opened.pop().close()

    @property
    def stderr(self) -> str:
        return self._log.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit code; what is open then stays so until it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait(60)
            self.leave()


def received(one: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := one.recv(65536):
            answer += piece
    return answer


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def serve(isolated: Path, loaded: Loaded) -> Iterator[Callable[..., Server]]:
    """`serve()`, or `serve("unix:/x/y", bounds="answers")`: serves until the test ends."""
    with contextlib.ExitStack() as leaving:

        def start(where: str = "", *options: str, bounds: str | None = None, files: int | None = None) -> Server:
            started = Server(where or f"127.0.0.1:{free_port()}", *options, loaded=loaded, bounds=bounds, files=files)
            leaving.callback(started.end)
            assert started.process.poll() is None, started.stderr
            return started

        yield start


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve()


def token_file() -> Path:
    return Settings.load().state_dir / "http-token"


def token() -> str:
    assert token_file().stat().st_mode & 0o777 == 0o600
    return token_file().read_text().strip()


def client(server: Server, bearer: str | None = None, **about: Any) -> "Client[Any]":
    def made(**kwargs: Any) -> httpx2.AsyncClient:
        path = server.where.removeprefix("unix:")
        # Its own bound is 5 s, and a busy machine may take longer.
        return httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=path), **kwargs | {"timeout": 60})

    if server.where.startswith("unix:"):
        return Client(
            StreamableHttpTransport("http://localhost/mcp", auth=bearer or token(), httpx_client_factory=made)
        )
    return Client(StreamableHttpTransport(f"http://{server.where}/mcp", auth=bearer or token()), **about)


def request(
    method: str = "POST", *headers: str, path: str = "/mcp", host: str = "localhost", body: bytes = b""
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json", *headers]
    if method == "POST" and not any("-Length:" in line or "-Encoding:" in line for line in lines):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def bearer() -> str:
    return f"Authorization: Bearer {token()}"


def code(server: Server, sent: bytes) -> int:
    """The status of the answer."""
    with server.connect() as one:
        one.sendall(sent)
        answer = one.recv(65536)
    return int(answer.split()[1])


def posted(body: dict[str, Any], *headers: str) -> bytes:
    """A message of MCP as the owner sends it."""
    accept = "Accept: application/json, text/event-stream"
    return request("POST", bearer(), accept, *headers, body=json.dumps({"jsonrpc": "2.0"} | body).encode())


def opening() -> bytes:
    """A request that begins a session."""
    about = {"capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    return posted({"id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18"} | about})


def session(server: Server) -> str:
    """The header of a session that has begun."""
    with server.connect() as one:
        one.sendall(opening())
        lines = one.recv(65536).decode().split("\r\n")
    [header] = [line for line in lines if line.lower().startswith("mcp-session-id")]
    assert code(server, posted({"method": "notifications/initialized"}, header)) == 202
    return header


def calling(server: Server, tool: str, **arguments: Any) -> bytes:
    """A call of the tool in a session of its own."""
    params = {"name": tool, "arguments": arguments}
    return posted({"id": 2, "method": "tools/call", "params": params}, session(server))


async def use(server: Server, bearer: str | None = None) -> int:
    """The exit code that a job of a client's has."""
    async with client(server, bearer) as one:
        result = await one.call_tool("execute", {"command": "exit 3", "wait": 50})
    assert result.structured_content is not None
    exit_code: int = result.structured_content["exit_code"]
    return exit_code


async def test_who_has_the_token_uses_the_tools(serve: Callable[..., Server], jobs: Jobs) -> None:
    assert await use(serve(bounds="real")) == 3
    assert [job.exit_code for job in jobs.list().jobs] == [3]


WITHOUT = [
    [],
    ["Authorization: Bearer guess"],
    ["Authorization: Bearer"],
    ["Authorization: Bearer  {token}"],
    ["Authorization: Basic {token}"],
    ["Authorization: {token}"],
    ["Authorization: Bearer {token}x"],
    ["Authorization: Bearer \xff\xe9"],
    ["Authorization: Bearer guess", "Authorization: Bearer {token}"],
    ["X-Forwarded-For: 127.0.0.1", "Cookie: token={token}"],
]


def test_who_has_not_is_refused_and_sent_away(server: Server) -> None:
    for method in ("POST", "GET", "DELETE", "OPTIONS"):
        for headers in WITHOUT:
            answer = server.ask(request(method, *(one.format(token=token()) for one in headers)))
            assert answer.split()[1] == (b"405" if method == "OPTIONS" else b"401"), (method, headers)
            assert b"connection: close" in answer.lower()


MODERN = "2026-07-28"
TASK = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tasks/get",
    "params": {
        "taskId": "web-8c2m",
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
        },
    },
}


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "tasks/update"])
@pytest.mark.parametrize(
    ("name", "code"),
    [("web-8c2m", -32602), ("=?base64?d2ViLThjMm0=?=", -32602), ("api-1k3d", -32020), ("", -32020), (None, -32020)],
)
def test_header_must_name_the_task_that_is_asked_for(server: Server, method: str, name: str | None, code: int) -> None:
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method, "Authorization": f"Bearer {token()}"}
    headers |= {"Accept": "application/json, text/event-stream"} | ({} if name is None else {"Mcp-Name": name})
    answer = httpx2.post(f"http://{server.where}/mcp", headers=headers, json=TASK | {"method": method}, timeout=30)
    assert (answer.json()["error"]["code"], answer.status_code) == (code, 400)


async def test_client_with_another_token_reads_why_not(server: Server) -> None:
    with pytest.raises(Exception, match="error response"):
        await use(server, "x" * 43)
    answer = server.ask(request("POST", "Content-Length: 2000000", body=b"x" * 2_000_000))
    assert answer.split()[1] == b"401"


def test_scheme_is_read_as_the_standard_says(server: Server) -> None:
    """Its letters are of either kind: RFC 9110, section 11.1."""
    assert code(server, opening().replace(b"Authorization: Bearer", b"aUTHORIZATION: bEARER")) == 200


def test_page_that_a_browser_was_lured_to_is_refused(server: Server) -> None:
    assert code(server, request("POST", host="evil.example")) == 421
    assert code(server, request("POST", bearer(), host="evil.example")) == 421
    assert code(server, request("POST", bearer(), host="127.0.0.1.evil.example")) == 421
    assert code(server, request("POST", bearer(), "Origin: http://evil.example")) == 403


def test_host_that_was_set_may_be_named(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUXJOBS_HTTP_HOSTS", "build.example, 10.0.0.7")
    server = serve()
    assert code(server, request(host="build.example:80")) == 401
    assert code(server, request(host="10.0.0.7")) == 401
    assert code(server, request(host="evil.example")) == 421


@pytest.mark.parametrize("given", ["*", "*.example", "a b", "http://x", "build.example:80", ","])
def test_host_that_is_none_stops_the_start(run: Run, given: str) -> None:
    done = run("serve", env=os.environ | {"TMUXJOBS_HTTP_HOSTS": given})
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "TMUXJOBS_HTTP_HOSTS" in done.stderr


def test_address_that_others_reach_is_refused_unless_asked_for(run: Run, serve: Callable[..., Server]) -> None:
    for host in ("0.0.0.0", "[::]"):
        done = run("serve", "--http", f"{host}:{free_port()}")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "add --allow-remote" in done.stderr
    server = serve(f"0.0.0.0:{free_port()}", "--allow-remote")
    assert code(server, request(host=server.where.replace("0.0.0.0", "127.0.0.1"))) == 401
    assert code(server, request("POST", bearer(), host="evil.example")) == 421
    assert code(server, request("POST", bearer(), "Origin: http://evil.example")) == 403


@pytest.mark.parametrize(
    "given",
    ["8765", "localhost:", "localhost:http", ":80", "[::1]", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:٨٠", "",
     "a..b:80", "no such:80", f"{'x' * 300}:80", "unix:", "unix:~nosuchuser/x", "unix:/no/such/folder/x",
     "unix:/" + "x" * 200, "unix:/dev/null", "unix:/tmp/tmuxjobs-test.sock"],
)  # fmt: skip
def test_place_that_is_none_is_a_usage_error(run: Run, given: str) -> None:
    done = run("serve", "--http", given)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_remote_without_an_address_is_a_usage_error(run: Run) -> None:
    done = run("serve", "--allow-remote")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_loopback_is_served_under_each_name_and_a_taken_port_told(
    run: Run, serve: Callable[..., Server], host: str
) -> None:
    server = serve(f"{host}:{free_port()}")
    assert await use(server) == 3
    done = run("serve", "--http", server.where)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cannot be served on (Address already in use)" in done.stderr


def test_name_of_which_another_holds_one_address_is_refused(run: Run) -> None:
    """Clients may try that address first, and bring the token to whoever is there."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        if len({one[4][0] for one in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}) < 2:
            pytest.skip("localhost is one address here")
        done = run("serve", "--http", f"localhost:{port}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


# The token's file.

RACE = """
import sys
from pathlib import Path
from tmuxjobs import Jobs, Settings
settings = [Settings(state_dir=Path(folder)) for folder in sys.argv[1:]]
sys.stdin.read()
for one in settings:
    jobs = Jobs.open(one)
    jobs.token()
    print(jobs.token_value())
"""


def test_servers_that_start_at_once_have_one_token(tmp_path: Path) -> None:
    folders = [str(tmp_path / str(number)) for number in range(50)]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, *folders], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
    seen = set()
    for racer in racers:
        assert racer.stdout is not None
        seen.add(racer.stdout.read())
        racer.stdout.close()
        assert racer.wait(60) == 0
    [tokens] = seen
    assert len(set(tokens.split())) == len(folders)


def exposed(path: Path) -> None:
    path.write_text("x" * 43)
    path.chmod(0o644)


def holding(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)
        path.chmod(0o600)

    return write


def linked(path: Path) -> None:
    other = path.with_name("other")
    holding(b"x" * 43)(other)
    path.symlink_to(other)


def hard_linked(path: Path) -> None:
    linked(path)
    path.unlink()
    path.hardlink_to(path.with_name("other"))


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


SPOILT: dict[str, Callable[[Path], None]] = {
    "exposed": exposed,
    "empty": holding(b""),
    "short": holding(b"x" * 31),
    "binary": holding(bytes(range(256))),
    "two lines": holding(b"x" * 43 + b"\n" + b"x" * 43),
    "huge": holding(b"x" * 5_000_000),
}
STRANGE: dict[str, Callable[[Path], None]] = {
    "link": linked,
    "dangling link": lambda path: path.symlink_to("/no/such"),
    "second name": hard_linked,
    "FIFO": os.mkfifo,
    "folder": Path.mkdir,
    "socket": listening,
}


@pytest.mark.parametrize("kind", SPOILT | STRANGE)
def test_token_that_others_may_know_is_refused(run: Run, jobs: Jobs, kind: str) -> None:
    (SPOILT | STRANGE)[kind](token_file())
    for arguments in (["token"], ["serve", "--http", f"127.0.0.1:{free_port()}"]):
        done = run(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert str(token_file()) in done.stderr


@pytest.mark.parametrize("kind", SPOILT)
def test_spoilt_token_is_replaced_when_asked(run: Run, jobs: Jobs, kind: str) -> None:
    SPOILT[kind](token_file())
    assert run("token", "--new").stdout == f"{token_file()}\n"
    assert len(token()) == 43


@pytest.mark.parametrize("kind", STRANGE)
def test_what_we_did_not_make_stays_where_the_token_should_be(run: Run, jobs: Jobs, kind: str) -> None:
    STRANGE[kind](token_file())
    before = token_file().lstat()
    done = run("token", "--new")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert (token_file().lstat().st_ino, token_file().lstat().st_nlink) == (before.st_ino, before.st_nlink)


def test_half_written_token_of_one_that_was_killed_is_in_nobodys_way(run: Run, jobs: Jobs) -> None:
    holding(b"x")(token_file().with_name("http-token.new"))
    assert run("token").stdout == f"{token_file()}\n"
    assert len(token()) == 43
    assert not token_file().with_name("http-token.new").exists()


async def test_new_token_is_in_force_at_once(server: Server, run: Run) -> None:
    old = token()
    with server.connect() as stream:
        stream.sendall(request("GET", bearer(), session(server), "Accept: text/event-stream"))
        wait_until(lambda: b"text/event-stream" in stream.recv(65536))
        done = run("token", "--new")
        assert (done.returncode, done.stdout) == (0, f"{token_file()}\n")
        received(stream)  # ends
    assert old != token()
    assert code(server, request("POST", f"Authorization: Bearer {old}")) == 401
    assert await use(server) == 3


def test_server_whose_token_was_taken_away_or_exposed_lets_nobody_in(serve: Callable[..., Server]) -> None:
    server = serve(bounds="log")
    sent = opening()
    token_file().chmod(0o644)
    for _ in range(5):
        assert code(server, sent) == 401
    token_file().unlink()
    assert code(server, sent) == 401
    said = server.stderr.splitlines()[1:]
    assert len([line for line in said if line.startswith("Nobody is let in: ")]) == 1


def test_token_is_in_no_log(server: Server) -> None:
    for sent in (opening(), request("POST", bearer(), host="evil"), b"\xff" + opening(), request(path=f"/{token()}")):
        code(server, sent)
    assert server.end() == -signal.SIGTERM
    assert token() not in server.stderr


# Who takes too much.


def closed(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def files(server: Server) -> int:
    return psutil.Process(server.process.pid).num_fds()


def peers(server: Server) -> set[int]:
    """The ports at the other ends of its connections."""
    process = psutil.Process(server.process.pid)
    return {one.raddr.port for one in process.net_connections("tcp") if one.raddr}


@pytest.mark.parametrize("sent", [b"", HALF], ids=["silent", "half a header"])
async def test_owner_works_while_a_thousand_connections_are_slow(serve: Callable[..., Server], sent: bytes) -> None:
    server = serve(files=1024)
    await asyncio.to_thread(server.flood, 1019, sent)
    assert await use(server) == 3
    assert files(server) < MOST + 50
    assert len(server.stderr) < 1000


async def test_owner_works_while_others_connect_again_and_again(serve: Callable[..., Server]) -> None:
    server = serve(files=1024)
    over = threading.Event()

    def keep_on() -> None:
        while not over.is_set():
            server.flood(100, b"x")
            server.leave()

    attacker = threading.Thread(target=keep_on)
    attacker.start()
    try:
        for _ in range(3):
            assert await use(server) == 3
    finally:
        over.set()
        await asyncio.to_thread(attacker.join, 60)


def test_address_has_so_many_connections_without_the_token(serve: Callable[..., Server]) -> None:
    server = serve(bounds="no requests")
    opened = server.flood(STRANGERS)
    wait_until(lambda: code(server, request()) == 401 and closed(opened[0]))
    assert not closed(opened[-1])


def test_request_has_so_long_and_no_longer(serve: Callable[..., Server]) -> None:
    server = serve(bounds="requests")
    begun = request("POST", bearer(), "Content-Length: 100")
    slow = {
        "silent": b"",
        "header": begun[:40],
        "body of a stranger": request("POST", "Transfer-Encoding: chunked")[:-2] + b"\r\n5\r\nhel",
        "body": begun + b'{"jsonrpc"',
        "next header": opening() + begun[:40],
    }
    opened = {name: server.flood(1, sent)[0] for name, sent in slow.items()}
    trickling = server.flood(1, begun[:40])[0]
    trickled = threading.Thread(target=trickle, args=(trickling,))
    trickled.start()
    for one in opened.values():
        received(one)  # ends
    trickled.join(60)
    assert not trickled.is_alive()


def trickle(one: socket.socket) -> None:
    """A byte of a header now and then, until it is closed."""
    one.settimeout(0.1)
    while True:
        try:
            one.sendall(b"x")
            if one.recv(100) == b"":
                return
        except TimeoutError:
            continue
        except OSError:
            return


async def test_answer_that_nobody_reads_is_given_up(serve: Callable[..., Server], jobs: Jobs) -> None:
    server = serve(bounds="answers")
    job_id = jobs.execute("seq 100000").job_id
    await jobs.wait_async(job_id, timeout=100)
    # Each in a session of its own: in one, calls with the same id answer each other.
    calls = [calling(server, "output", job_id=job_id, max_bytes=400_000) for _ in range(3)]
    for sent in calls:
        one = socket.socket()
        server.opened.append(one)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", int(server.where.rpartition(":")[2])))
        one.sendall(sent)
    # Connections are accepted in their order: those above were before this one.
    assert await use(server) == 3
    ports = {one.getsockname()[1] for one in server.opened}
    await asyncio.to_thread(wait_until, lambda: not ports & peers(server))


STRANGE_REQUESTS = {
    "path": (request(path="/" + "x" * 70_000), b"404"),
    "host": (request(host="x" * 70_000), b"421"),
    "endless line": (b"POST /" + b"x" * 400_000, b"400"),
    "headers": (b"POST /mcp HTTP/1.1\r\n" + b"X: y\r\n" * 50_000 + b"\r\n", b"400"),
    "HTTP/1.0": (b"POST /mcp HTTP/1.0\r\nContent-Length: 0\r\n\r\n", b"421"),
    "no host": (b"POST /mcp HTTP/1.1\r\n\r\n", b"400"),
    "TLS": (b"\x16\x03\x01\x02\x00" + b"\0" * 200 + b"\r\n\r\n", b"400"),
    "web socket": (request("GET", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"), b"401"),
    "CONNECT": (request("CONNECT", path="localhost:1"), b"404"),
}


def test_strange_request_is_refused(server: Server) -> None:
    answers = {name: server.ask(sent).split()[1] for name, (sent, _) in STRANGE_REQUESTS.items()}
    assert answers == {name: status for name, (_, status) in STRANGE_REQUESTS.items()}
    assert server.stderr.count("\n") == 1


def test_body_is_bounded(server: Server) -> None:
    assert code(server, request("POST", bearer(), "Content-Length: 50000000")[:-2] + b"\r\n") == 413


def test_server_with_few_files_answers_and_fills_no_log(serve: Callable[..., Server]) -> None:
    server = serve(files=32)
    server.flood(200)
    for _ in range(3):
        assert code(server, request()) == 401
    assert len(server.stderr) < 1000


# A socket file.


async def test_tools_are_used_over_a_socket_file(serve: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "new" / "http.sock"
    server = serve(f"unix:{path}")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert await use(server) == 3
    assert code(server, request()) == 401
    assert server.end() == -signal.SIGTERM
    assert not path.exists()


def test_socket_of_a_dead_server_is_replaced_and_of_a_live_one_is_not(
    serve: Callable[..., Server], run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "http.sock"
    serve(f"unix:{path}").end(signal.SIGKILL)
    assert path.is_socket()
    server = serve(f"unix:{path}")
    done = run("serve", "--http", f"unix:{path}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    os.kill(server.process.pid, signal.SIGSTOP)
    done = run("serve", "--http", f"unix:{path}")
    os.kill(server.process.pid, signal.SIGCONT)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert code(server, request()) == 401


@pytest.mark.parametrize("made", [Path.touch, Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/no/such")])
def test_what_is_no_socket_stays(run: Run, tmp_path: Path, made: Callable[[Path], None]) -> None:
    path = tmp_path / "http.sock"
    made(path)
    before = path.lstat()
    done = run("serve", "--http", f"unix:{path}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert path.lstat() == before


def test_socket_is_not_put_where_others_may_replace_it(run: Run, tmp_path: Path) -> None:
    open_to_all = tmp_path / "all"
    below = open_to_all / "mine"
    below.mkdir(parents=True)
    open_to_all.chmod(0o777)
    (tmp_path / "link").symlink_to(below)
    for folder in (open_to_all, below, tmp_path / "link"):
        done = run("serve", "--http", f"unix:{folder}/http.sock")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert not (folder / "http.sock").exists()


def test_socket_that_another_put_there_stays_at_the_end(serve: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    server = serve(f"unix:{path}")
    path.rename(tmp_path / "old")
    listening(path)
    assert server.end() == -signal.SIGTERM
    assert path.is_socket()


# The end.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_ends_whatever_is_open(serve: Callable[..., Server], jobs: Jobs, number: int) -> None:
    server = serve()
    job_id = jobs.execute("cat").job_id
    server.flood(10, b"POST")
    server.flood(1, request("POST", bearer(), "Content-Length: 9")[:-2])
    for tool, more in (("wait", {"timeout": 50}), ("interact", {"input": "x", "wait": 50, "pattern": "never"})):
        server.flood(1, calling(server, tool, job_id=job_id, **more))
    wait_until(lambda: jobs.tail(job_id).stdout, lambda text: "x" in text)
    assert server.end(number) == -number
    assert jobs.status(job_id).status == "running"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_each_client_s_jobs_are_its_own(server: Server, jobs: Jobs, mode: Any) -> None:
    started: dict[str, str] = {}
    for name in ("one", "two"):
        async with client(server, mode=mode, client_info=Implementation(name=name, version="7")) as agent:
            answer = (await agent.call_tool("execute", {"command": "sleep 1000"})).structured_content or {}
            started[name] = answer["job_id"]
            mine = (await agent.call_tool("list", {"scope": "mine"})).structured_content or {}
            assert [job["job_id"] for job in mine["jobs"]] == [started[name]]
            assert ((await agent.call_tool("list")).structured_content or {})["total"] == len(started)
    callers = [jobs.host.store.read(job_id).job.caller for job_id in started.values()]
    assert [(one.kind, one.client, one.version) for one in callers] == [("agent", "one", "7"), ("agent", "two", "7")]

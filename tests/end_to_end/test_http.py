"""`serve --http`: the same tools over HTTP, for who brings the token."""

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from support import wait_until

from tmuxjobs import Jobs, Settings

TOKEN = "http-token"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def address(isolated: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "tmuxjobs", "serve", "--http", f"127.0.0.1:{port}"])
    wait_until(lambda: listens(port) or server.poll() is not None)
    yield f"http://127.0.0.1:{port}/mcp"
    server.send_signal(signal.SIGTERM)
    server.wait(20)


def token() -> str:
    path = Settings.load().state_dir / TOKEN
    assert path.stat().st_mode & 0o777 == 0o600
    return path.read_text().strip()


def refusal(address: str, **headers: str) -> int:
    request = urllib.request.Request(address, data=b"{}", headers={"Content-Type": "application/json"} | headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    caught.value.close()
    return caught.value.code


async def test_who_has_the_token_uses_the_tools(address: str, jobs: Jobs) -> None:
    async with Client(StreamableHttpTransport(address, auth=token())) as client:
        result = await client.call_tool("execute", {"command": "exit 3", "wait": 30})
    assert result.structured_content is not None
    assert result.structured_content["exit_code"] == 3
    assert [job.exit_code for job in jobs.list().jobs] == [3]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer guess"}])
def test_who_has_not_is_refused(address: str, headers: dict[str, str]) -> None:
    assert refusal(address, **headers) == 401


def test_page_that_a_browser_was_lured_to_is_refused(address: str) -> None:
    bearer = f"Bearer {token()}"
    assert refusal(address, Authorization=bearer, Host="evil.example") == 421
    assert refusal(address, Authorization=bearer, Origin="http://evil.example") == 403


@pytest.mark.parametrize("given", ["8765", "localhost:", "localhost:http", ":80"])
def test_address_that_is_none_is_a_usage_error(given: str) -> None:
    argv = [sys.executable, "-m", "tmuxjobs", "serve", "--http", given]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)

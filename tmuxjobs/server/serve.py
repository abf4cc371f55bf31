"""How the server is served: on stdio, or over HTTP."""

import asyncio
import os
import signal
import sys

from tmuxjobs.jobs import Jobs
from tmuxjobs.server import http
from tmuxjobs.server.address import Place
from tmuxjobs.server.http import OneToken
from tmuxjobs.server.tools import build_server


def serve(jobs: Jobs) -> None:
    """Serve MCP on stdio until standard input closes or SIGTERM or SIGINT comes; the jobs live on."""
    server = build_server(jobs)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # A thread blocks in a read of standard input: nothing but this ends the process at once.
            loop.add_signal_handler(number, os._exit, 128 + number)
        await server.run_async("stdio", show_banner=False, log_level="ERROR")

    asyncio.run(run())
    sys.stdout.flush()
    os._exit(0)


def serve_http(jobs: Jobs, place: Place) -> None:
    """Serve MCP over HTTP to who brings the token, until SIGTERM or SIGINT comes; the jobs live on."""
    http.serve(
        build_server(jobs), place, token=OneToken(jobs.token(), jobs.token_value), names=jobs.settings.http_hosts or ()
    )

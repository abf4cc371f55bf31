"""How the server is served on stdio; over HTTP it is by `http.py`, whose libraries nobody needs here."""

import asyncio
import os
import signal
import sys

from tmuxjobs.server.tools import build_server
from tmuxjobs.settings import Settings


def serve(settings: Settings) -> None:
    """Serve MCP on stdio until standard input closes or SIGTERM or SIGINT comes; the jobs live on."""
    server = build_server(settings)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # A thread blocks in a read of standard input: nothing but this ends the process at once.
            loop.add_signal_handler(number, os._exit, 128 + number)
        await server.run_async("stdio", show_banner=False, log_level="ERROR")

    asyncio.run(run())
    sys.stdout.flush()
    os._exit(0)

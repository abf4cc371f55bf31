"""Runs one small job the way an agent does: the real server over stdio, a real MCP client.

It uses your own tmux server and state folder, so that you can look at the job afterwards.
"""

import asyncio
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from fastmcp.exceptions import ToolError
from mcp import MCPError

from tmuxjobs.cli.clients import CLIENTS
from tmuxjobs.cli.streams import take_over
from tmuxjobs.hosts.local import own_environment

SERVER = Path(sys.executable).with_name("tmuxjobs")
COMMAND = "for i in 1 2 3; do echo step $i of 3; sleep 0.5; done; echo done"
PATIENCE_S = 60


async def call(client: Client[StdioTransport], tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    return result.structured_content or {}


async def run() -> int:
    # MCP clients hand on only a few variables; TMUX_TMPDIR, XDG_STATE_HOME and TMUXJOBS_* matter here.
    async with Client(StdioTransport(str(SERVER), ["serve"], env=own_environment()), timeout=PATIENCE_S) as client:
        print(f"\nYour agent would now call execute with: {COMMAND}\n")
        job = await call(client, "execute", command=COMMAND, name="quickstart")
        job_id, cursor, deadline = job["job_id"], 0, time.monotonic() + PATIENCE_S
        while True:
            # The status first: what is read after the end of a job is all of it.
            status = await call(client, "status", job_id=job_id)
            output = await call(client, "output", job_id=job_id, cursor=cursor)
            cursor = output["cursor"]
            print("".join(f"  {line}\n" for line in output.get("stdout", "").splitlines()), end="", flush=True)
            if status["status"] != "running" or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
    program = shlex.quote(str(SERVER))
    others = ", ".join(name for name in CLIENTS if name != "claude-code")
    print(f"""
Job {job_id}: {status["status"]}, exit code {status.get("exit_code")}

  its log            {job["log_path"]}
  see your jobs      {program} list
  watch or take over {job["attach"]}
  all jobs           {program} attach

Add tmuxjobs to your agent, for all your projects:

  {program} install claude-code --write

or {others}

To type `tmuxjobs` without its folder: `uv tool install .` or `pipx install .` here.
""")
    return 0 if status["status"] == "completed" else 1


if __name__ == "__main__":
    output = take_over()
    try:
        code = asyncio.run(run())
    except ToolError as error:
        sys.exit(f"tmuxjobs: the first job could not run: {error}")
    except MCPError as error:
        sys.exit(f"tmuxjobs: the server did not start or did not answer ({error}); its own message is above.")
    output.flush()
    sys.exit(f"tmuxjobs: this could not be printed: {output.error.strerror}." if output.error else code)

"""Every file of conf/ is loaded by what it is for, and says what the program does."""

import configparser
import json
import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Jobs, Tmux, ended, needs, server_of, wait_until

from tmuxjobs import Settings
from tmuxjobs.cli import commands
from tmuxjobs.cli.clients import CLIENTS, Client, entry, wanted
from tmuxjobs.contract import VERSION
from tmuxjobs.hosts.local import Host
from tmuxjobs.settings import ours

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("client", [client for client in CLIENTS if client != "claude-code"])
def test_client_sample_is_what_install_adds(client: Client) -> None:
    [path] = (CONF / "clients").glob(f"{client}.*")
    assert path.read_text() == wanted(client, ["tmuxjobs", "serve"]) + "\n"


@pytest.mark.parametrize("path", ["clients/claude-code.json", "claude-code/.mcp.json"])
def test_claude_codes_samples_start_the_server(path: str) -> None:
    servers = json.loads((CONF / path).read_text())["mcpServers"]
    assert servers == {"tmuxjobs": entry("claude-code", ["tmuxjobs", "serve"])}
    assert servers["tmuxjobs"]["alwaysLoad"] is True


def test_packages_are_of_this_version() -> None:
    assert PROJECT["version"] == VERSION
    for path in ("claude-code/.claude-plugin/plugin.json", "gemini/gemini-extension.json", "mcpb/manifest.json"):
        package = json.loads((CONF / path).read_text())
        found = (package["name"], package["version"], package["description"])
        assert found == (PROJECT["name"], PROJECT["version"], PROJECT["description"]), path
    bundle = tomllib.loads((CONF / "mcpb" / "pyproject.toml").read_text())["project"]
    assert bundle["dependencies"] == [f"{PROJECT['name']}=={PROJECT['version']}"]
    assert bundle["requires-python"] == PROJECT["requires-python"]


def test_marketplace_has_the_plugin() -> None:
    market = CONF / ".claude-plugin" / "marketplace.json"
    [plugin] = json.loads(market.read_text())["plugins"]
    folder = CONF / plugin["source"]
    assert json.loads((folder / ".claude-plugin" / "plugin.json").read_text())["name"] == plugin["name"]


async def test_skill_names_tools_and_parameters_that_there_are() -> None:
    [skill] = (CONF / "claude-code" / "skills").iterdir()
    text = (skill / "SKILL.md").read_text()
    assert text.startswith(f"---\nname: {skill.name}\ndescription: Use when ")
    tools = await server_of(Jobs(Host(Settings(), environ={}, cwd=ROOT))).list_tools()
    known = {tool.name: set(tool.parameters["properties"]) for tool in tools}
    calls = re.findall(r"`(\w+)\(([^`]*)\)`", text)
    assert len(calls) > 5
    for tool, arguments in calls:
        assert set(re.findall(r"(\w+)=", arguments)) <= known[tool], tool


def test_bundle_starts_the_server() -> None:
    ask = {"jsonrpc": "2.0", "id": 1, "method": "initialize"} | {
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    }
    argv = [sys.executable, str(CONF / "mcpb" / "serve.py")]
    done = subprocess.run(argv, input=json.dumps(ask) + "\n", capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["result"]["serverInfo"]["name"] == "tmuxjobs"


def test_registry_entry_is_the_package() -> None:
    entry = json.loads((CONF / "server.json").read_text())
    [package] = entry["packages"]
    assert (entry["version"], package["version"], package["identifier"]) == (*[PROJECT["version"]] * 2, PROJECT["name"])
    assert entry["description"] == PROJECT["description"]
    assert len(entry["description"]) <= 100
    assert f"mcp-name: {entry['name']} " in (ROOT / "README.md").read_text()
    assert {ours(name) for name in Settings.model_fields} >= {one["name"] for one in package["environmentVariables"]}
    assert [one["value"] for one in package["packageArguments"]] == ["serve"]


def test_bare_systems_are_made_by_name_alone() -> None:
    """It mounts and downloads: no test runs it, and without a name it does nothing."""
    done = subprocess.run(["sh", str(CONF / "fresh.sh")], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fresh.sh: usage: sudo sh conf/fresh.sh SUITE USER")


@pytest.fixture
def configured(isolated: Path, tmux: Tmux) -> Tmux:
    """A person's server with our lines in its configuration, twice as when it is reloaded."""
    (isolated / "home" / ".tmux.conf").write_text(f"source-file {shlex.quote(f'{CONF}/tmux.conf')}\n" * 2)
    tmux("new-session", "-d", "-s", "own")
    return tmux


def test_status_segment_counts_the_jobs(configured: Tmux, jobs: Jobs) -> None:
    def segment() -> str:
        shown = configured("display-message", "-p", "-t", "=own:", "#{T:status-right}")
        return re.sub(r"#\[[^]]*\]", "", shown)

    assert "running" not in segment()
    jobs.execute("sleep 1000")
    jobs.execute("sleep 1000")
    ended(jobs, jobs.execute("exit 3").job_id)
    assert "2 running 1 failed" in wait_until(segment, lambda text: "failed" in text)
    assert segment().count("running") == 1


def test_popup_runs_a_command_that_there_is(configured: Tmux) -> None:
    # Not by `list-keys J`, for which tmux 3.7 finds nothing.
    [line] = re.findall(r"-T prefix +J +(.*)", configured("list-keys", "-T", "prefix"))
    command = shlex.split(shlex.split(line)[-1])
    assert command[0] == "tmuxjobs"
    commands.app.parse_args(command[1:], exit_on_error=False, print_error=False)


@pytest.fixture
def run_server(isolated: Path, tmux: Tmux) -> Iterator[Callable[[list[str]], None]]:
    """Starts a tmux server the way systemd and launchd do, with no terminal."""
    started: list[subprocess.Popen[bytes]] = []

    def run(argv: list[str]) -> None:
        started.append(subprocess.Popen(["tmux", *argv[1:]], env=os.environ | {"TMUX_TMPDIR": str(isolated)}))
        wait_until(lambda: list(isolated.glob("tmux-*/default")))

    yield run
    for process in started:
        process.terminate()
        process.wait(60)


def units() -> dict[str, list[str]]:
    """{file: the command it starts}."""
    unit = configparser.ConfigParser()
    unit.read(CONF / "tmux.service")
    plist = plistlib.loads((CONF / "tmux.plist").read_bytes())
    return {"tmux.service": unit["Service"]["ExecStart"].split(), "tmux.plist": plist["ProgramArguments"]}


def test_systemd_takes_the_unit(isolated: Path) -> None:
    needs("systemd-analyze")
    # Its ExecStart must be there: with the tmux of this machine.
    unit = (CONF / "tmux.service").read_text()
    assert unit.count("/usr/bin/tmux") == 1
    (isolated / "tmux.service").write_text(unit.replace("/usr/bin/tmux", str(shutil.which("tmux"))))
    argv = ["systemd-analyze", "verify", "--user", "--man=no", str(isolated / "tmux.service")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["tmux.service", "tmux.plist"])
def test_unit_starts_a_server_in_which_jobs_run(
    name: str, run_server: Callable[[list[str]], None], jobs: Jobs, tmux: Tmux
) -> None:
    run_server(units()[name])
    wait_until(lambda: subprocess.run(["tmux", "display-message", "-p", "up"], capture_output=True).returncode == 0)
    pid = tmux("display-message", "-p", "#{pid}")
    assert ended(jobs, jobs.execute("exit 0").job_id).status == "completed"
    tmux("kill-session", "-t", "=mcp-jobs")
    assert tmux("display-message", "-p", "#{pid}") == pid

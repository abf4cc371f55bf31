"""The clients themselves read what `install` writes and what conf/ has, offline; each where it is on the PATH.

npm install --prefix /tmp/clients @anthropic-ai/claude-code @openai/codex @google/gemini-cli opencode-ai \
    @anthropic-ai/mcpb node@24
PATH=/tmp/clients/node_modules/.bin:$PATH .venv/bin/python -m pytest tests/end_to_end/test_clients.py
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tmuxjobs.cli.clients import Client

from .conftest import Run

CONF = Path(__file__).parents[2] / "conf"
PACKAGES = {
    "claude": "@anthropic-ai/claude-code",
    "codex": "@openai/codex",
    "gemini": "@google/gemini-cli",
    "mcpb": "@anthropic-ai/mcpb",
    "opencode": "opencode-ai",
}
LISTS: dict[Client, list[str]] = {
    "claude-code": ["claude", "mcp", "list"],
    "codex": ["codex", "mcp", "list"],
    "gemini": ["gemini", "mcp", "list"],
    "opencode": ["opencode", "mcp", "list"],
}
PATIENCE_S = 90
pytestmark = pytest.mark.timeout(300)
Ask = Callable[..., str]


@pytest.fixture
def ask(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """What a client says to a command line; the test is skipped where it is not installed, or not able to run."""
    # A client may refuse folders that it was not told to trust, and may look for a newer self.
    for name in ("GEMINI_CLI_TRUST_WORKSPACE", "DISABLE_AUTOUPDATER", "OPENCODE_DISABLE_AUTOUPDATE", "NO_COLOR"):
        monkeypatch.setenv(name, "true")
    monkeypatch.chdir(os.environ["HOME"])

    def call(*argv: str) -> str:
        if shutil.which(argv[0]) is None:
            pytest.skip(f"{argv[0]} is not installed: npm install -g {PACKAGES[argv[0]]}")
        said = subprocess.run([argv[0], "--version"], capture_output=True, text=True, timeout=PATIENCE_S, input="")
        if said.returncode:
            pytest.skip(f"{argv[0]} cannot run here: {(said.stderr.strip().splitlines() or ['?'])[-1]}")
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, input="y\ny\n")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


@pytest.mark.parametrize("client", LISTS)
def test_client_has_the_server_that_was_installed_until_it_is_taken_out(ask: Ask, run: Run, client: Client) -> None:
    assert "tmuxjobs" not in ask(*LISTS[client])
    done = run("install", client, "--write")
    assert done.returncode == 0, done.stderr
    assert "tmuxjobs" in ask(*LISTS[client])
    assert "already" in run("install", client, "--write").stdout
    assert run("install", client, "--uninstall").returncode == 0
    assert "tmuxjobs" not in ask(*LISTS[client])


@pytest.mark.parametrize(
    ("client", "add"),
    [
        ("claude-code", ["claude", "mcp", "add", "--scope", "user", "tmuxjobs", "--", "tmuxjobs", "serve"]),
        ("codex", ["codex", "mcp", "add", "tmuxjobs", "--", "tmuxjobs", "serve"]),
        ("gemini", ["gemini", "mcp", "add", "--scope", "user", "tmuxjobs", "tmuxjobs", "serve"]),
    ],
)
def test_entry_that_the_clients_own_command_made_is_brought_up_to_date(
    ask: Ask, run: Run, client: Client, add: list[str]
) -> None:
    ask(*add)
    done = run("install", client, "--write")
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["Changed", "in"]), done.stderr
    assert "tmuxjobs" in ask(*LISTS[client])
    assert "already" in run("install", client, "--write").stdout


def test_claude_code_takes_the_plugin_from_the_marketplace(ask: Ask) -> None:
    for folder in (CONF / "claude-code", CONF):
        assert "Validation passed" in ask("claude", "plugin", "validate", str(folder))
    ask("claude", "plugin", "marketplace", "add", str(CONF))
    ask("claude", "plugin", "install", "tmuxjobs@tmuxjobs")
    assert "plugin:tmuxjobs:tmuxjobs" in ask("claude", "mcp", "list")
    ask("claude", "plugin", "uninstall", "tmuxjobs@tmuxjobs")
    assert "plugin:tmuxjobs" not in ask("claude", "mcp", "list")


def test_gemini_takes_the_extension(ask: Ask) -> None:
    assert "successfully validated" in ask("gemini", "extensions", "validate", str(CONF / "gemini"))
    ask("gemini", "extensions", "install", str(CONF / "gemini"), "--consent")
    assert "tmuxjobs (from tmuxjobs)" in ask("gemini", "mcp", "list")
    ask("gemini", "extensions", "uninstall", "tmuxjobs")


def test_bundle_for_desktop_clients_is_valid_and_can_be_packed(ask: Ask, tmp_path: Path) -> None:
    assert "passes" in ask("mcpb", "validate", str(CONF / "mcpb" / "manifest.json"))
    ask("mcpb", "pack", str(CONF / "mcpb"), str(tmp_path / "tmuxjobs.mcpb"))
    assert (tmp_path / "tmuxjobs.mcpb").stat().st_size > 500


@pytest.mark.parametrize(
    ("sample", "place", "client"),
    [
        ("claude-code.json", ".claude.json", "claude-code"),
        ("codex.toml", ".codex/config.toml", "codex"),
        ("gemini.json", ".gemini/settings.json", "gemini"),
        ("opencode.json", "xdg-config/opencode/opencode.json", "opencode"),
    ],
)
def test_client_reads_its_sample(ask: Ask, sample: str, place: str, client: Client) -> None:
    (Path.home() / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(CONF / "clients" / sample, Path.home() / place)
    assert "tmuxjobs" in ask(*LISTS[client])

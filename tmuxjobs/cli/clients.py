"""Sets tmuxjobs up in an MCP client: what it wants where, and adding it there without touching anything else."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, assert_never, get_args

from tmuxjobs import files
from tmuxjobs.errors import InstallError
from tmuxjobs.files import Odd

Client = Literal["claude-code", "codex", "cursor", "gemini", "vscode"]
CLIENTS: tuple[Client, ...] = get_args(Client)
NAME = "tmuxjobs"
CONFIG_BYTES = 1 << 24


def server_command() -> list[str]:
    """The command by which a client starts the server: a full path, because clients often have a PATH of their own."""
    started = Path(sys.argv[0])
    found = str(started.absolute()) if started.name == NAME and started.is_file() else shutil.which(NAME)
    return [found, "serve"] if found else [sys.executable, "-m", NAME, "serve"]


def config_path(client: Client, home: Path, environ: Mapping[str, str]) -> Path | None:
    """The file in which the client keeps a person's servers; None when its own command must do it."""
    match client:
        case "claude-code":
            return None
        case "codex":
            return Path(environ.get("CODEX_HOME") or home / ".codex") / "config.toml"
        case "cursor":
            return home / ".cursor" / "mcp.json"
        case "gemini":
            return home / ".gemini" / "settings.json"
        case "vscode":
            config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
            folder = home / "Library" / "Application Support" if sys.platform == "darwin" else config
            return folder / "Code" / "User" / "mcp.json"
        case _:
            assert_never(client)


def wanted(client: Client, command: Sequence[str]) -> str:
    """What a person would paste: a shell command for Claude Code, else a piece of the client's file."""
    if client == "claude-code":
        return shlex.join(_claude("add", "--scope", "user", NAME, "--", *command))
    if client == "codex":
        # JSON's strings are TOML's too.
        words = ", ".join(json.dumps(word) for word in command[1:])
        return f"[mcp_servers.{NAME}]\ncommand = {json.dumps(command[0])}\nargs = [{words}]"
    return json.dumps(_entry(client, command), indent=2)


def _claude(*arguments: str) -> list[str]:
    return ["claude", "mcp", *arguments]


def _entry(client: Client, command: Sequence[str]) -> dict[str, Any]:
    server = {"command": command[0], "args": [*command[1:]]}
    return {"servers": {NAME: {"type": "stdio"} | server}} if client == "vscode" else {"mcpServers": {NAME: server}}


def write(client: Client, command: Sequence[str], home: Path, environ: Mapping[str, str]) -> str:
    """Add it to the client's configuration, once; what was done, in a sentence. Raises InstallError.

    An entry of that name that says something else, and a file that cannot be read, are left as they are.
    """
    path = config_path(client, home, environ)
    if path is None:
        return _by_command(command)
    # A link into someone's dotfiles stays a link.
    path = Path(os.path.realpath(path))
    try:
        text = _text_of(path)
        merged = _with_toml(text, command) if client == "codex" else _with_json(text, _entry(client, command))
    except (OSError, ValueError, Odd) as error:
        raise InstallError(f"{path} cannot be read ({error}); add this by hand:\n{wanted(client, command)}") from None
    if merged is None:
        raise InstallError(
            f"{path} already has another server '{NAME}'; it was left as it is. Wanted:\n{wanted(client, command)}"
        )
    if merged == text:
        return f"{path} has it already."
    try:
        _replace(path, merged)
    except OSError as error:
        raise InstallError(
            f"{path} cannot be written ({error}); add this by hand:\n{wanted(client, command)}"
        ) from None
    return f"Added to {path}; restart the client."


def _text_of(path: Path) -> str:
    """What is there, empty when nothing is; line ends as they are. Raises Odd, OSError and ValueError."""
    try:
        return files.read(path, CONFIG_BYTES, follow=True).decode()
    except FileNotFoundError:
        return ""


def _by_command(command: Sequence[str]) -> str:
    """Claude Code rewrites its file while it runs, so its own command is the one that may change it."""
    if shutil.which("claude") is None:
        raise InstallError(f"There is no `claude` on the PATH; where there is, run: {wanted('claude-code', command)}")
    if subprocess.run(_claude("get", NAME), stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0:
        return f"Claude Code has a server '{NAME}' already; `claude mcp get {NAME}` shows it."
    added = subprocess.run(
        _claude("add", "--scope", "user", NAME, "--", *command),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if added.returncode:
        raise InstallError(f"`claude mcp add` refused: {(added.stderr or added.stdout).strip()}")
    return "Added to Claude Code for all your projects; restart it."


def _with_json(text: str, entry: Mapping[str, Any]) -> str | None:
    """The text with the entry in it; None when another one has its place, ValueError when it is no JSON object."""
    try:
        config = json.loads(text) if text.strip() else {}
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    [(section, servers)] = entry.items()
    there = config.setdefault(section, {}) if isinstance(config, dict) else None
    if not isinstance(there, dict):
        raise ValueError("it is not laid out as expected")
    if NAME in there:
        theirs = there[NAME]
        return text if isinstance(theirs, dict) and theirs.items() >= servers[NAME].items() else None
    there.update(servers)
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def _with_toml(text: str, command: Sequence[str]) -> str | None:
    """Appended, so that not a byte of the file changes."""
    try:
        servers = tomllib.loads(text).get("mcp_servers", {})
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(servers, dict):
        raise ValueError("it is not laid out as expected")
    if NAME in servers:
        wants, theirs = {"command": command[0], "args": [*command[1:]]}, servers[NAME]
        return text if isinstance(theirs, dict) and theirs.items() >= wants.items() else None
    merged = f"{text.rstrip()}\n\n{wanted('codex', command)}\n".lstrip()
    tomllib.loads(merged)
    return merged


def _replace(path: Path, text: str) -> None:
    """Beside and then over it, with the rights that it had; a secret in it stays one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        if path.exists():
            os.fchmod(fd, path.stat().st_mode & 0o777)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise

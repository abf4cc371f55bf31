"""Sets tmuxjobs up in an MCP client: what each client needs and where, and which entry is ours to change."""

import contextlib
import copy
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, assert_never, get_args

from tmuxjobs import files
from tmuxjobs.errors import InstallError
from tmuxjobs.files import Odd

Client = Literal["claude-code", "claude-desktop", "codex", "cursor", "gemini", "goose", "opencode", "vscode", "zed"]
CLIENTS: tuple[Client, ...] = get_args(Client)
NAME = "tmuxjobs"
CONFIG_BYTES = 1 << 22
SECTIONS = {
    "codex": "mcp_servers",
    "goose": "extensions",
    "opencode": "mcp",
    "vscode": "servers",
    "zed": "context_servers",
}
"""The key of the servers in a client's file; `mcpServers` in all others."""
COMMAND_KEYS = ("command", "args", "cmd")
"""The keys that say which program is started: in an older entry of ours these change, and what a person added stays."""
CODEX_VARIABLES = [
    "TMUX_TMPDIR",
    *(f"XDG_{kind}" for kind in ("STATE_HOME", "CONFIG_HOME", "CACHE_HOME", "DATA_HOME", "RUNTIME_DIR")),
    *(f"TMUXJOBS_{name}" for name in ("STATE_DIR", "SESSION", "SOCKET_NAME")),
    *("SSH_AUTH_SOCK", "DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS"),
]
"""Codex starts servers without them: the agent's jobs would be in another place than the person's."""
TEMPORARY = re.compile(r"/(archive|environments|builds)-v\d+/|/pipx/\.cache/|/\.cache/pipx/")
RUNNERS = {"uvx": [], "uv": ["tool", "run"], "pipx": ["run"]}


def server_command() -> list[str]:
    """The command by which a client starts the server, with a full path, because clients often have another PATH.

    If it runs from the cache of uvx or pipx, it is their command, as what is in a cache is removed.
    """
    if TEMPORARY.search(f"{sys.prefix}/"):
        runner = "pipx" if "pipx" in sys.prefix else "uvx"
        return [shutil.which(runner) or runner, *RUNNERS[runner], *_source(runner), NAME, "serve"]
    started = Path(sys.argv[0])
    found = str(started.absolute()) if started.name == NAME and started.is_file() else shutil.which(NAME)
    return [found, "serve"] if found else [sys.executable, "-m", NAME, "serve"]


def _source(runner: str) -> list[str]:
    """The option that says where uvx or pipx got it, if that was not a registry."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        said = json.loads(importlib.metadata.distribution(NAME).read_text("direct_url.json") or "{}")
        if url := said.get("url"):
            version = said.get("vcs_info", {})
            at = f"@{version['requested_revision']}" if version.get("requested_revision") else ""
            url = f"{version['vcs']}+{url}{at}" if version else url
            return ["--spec" if runner == "pipx" else "--from", url]
    return []


def config_path(client: Client, home: Path, environ: Mapping[str, str]) -> Path | None:
    """The file in which the client keeps a person's servers; None when its own command must do it."""
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    support = home / "Library" / "Application Support" if sys.platform == "darwin" else config
    match client:
        case "claude-code":
            return None
        case "claude-desktop":
            return support / "Claude" / "claude_desktop_config.json"
        case "codex":
            return Path(environ.get("CODEX_HOME") or home / ".codex") / "config.toml"
        case "cursor":
            return home / ".cursor" / "mcp.json"
        case "gemini":
            return home / ".gemini" / "settings.json"
        case "goose":
            return config / "goose" / "config.yaml"
        case "opencode":
            kept = [config / "opencode" / name for name in ("opencode.jsonc", "opencode.json")]
            return next((path for path in kept if path.exists()), kept[1])
        case "vscode":
            return support / "Code" / "User" / "mcp.json"
        case "zed":
            return (home / ".config" if sys.platform == "darwin" else config) / "zed" / "settings.json"
        case _:
            assert_never(client)


def entry(client: Client, command: Sequence[str]) -> dict[str, Any]:
    """The entry under our name."""
    first, *rest = command
    match client:
        case "claude-code":
            # Without `alwaysLoad` the model sees only the tools' names, and has to search for the tools.
            return {"type": "stdio", "command": first, "args": rest, "alwaysLoad": True}
        case "codex":
            # A server that is not required has 1 s to start, then the first turn begins without its tools.
            started = {"startup_timeout_sec": 60, "required": True}
            return {"command": first, "args": rest, "env_vars": CODEX_VARIABLES} | started
        case "goose":
            facts = {"enabled": True, "type": "stdio", "name": NAME, "cmd": first, "args": rest}
            return facts | {"description": "Background jobs in tmux", "envs": {}, "timeout": 300}
        case "opencode":
            return {"type": "local", "command": [*command], "enabled": True}
        case "vscode":
            return {"type": "stdio", "command": first, "args": rest}
        case "claude-desktop" | "cursor" | "gemini" | "zed":
            return {"command": first, "args": rest}
        case _:
            assert_never(client)


def wanted(client: Client, command: Sequence[str]) -> str:
    """What a person would paste: a shell command for Claude Code, else a piece of the client's file."""
    if client == "claude-code":
        return shlex.join(_claude("add-json", json.dumps(entry(client, command), ensure_ascii=False)))
    piece: str = _editor(client).put("", _place(client), entry(client, command))
    return piece.rstrip("\n")


def _editor(client: Client) -> ModuleType:
    """The editor of the client's file, imported only when it is needed."""
    if client == "codex":
        from tmuxjobs.cli import edit_toml

        return edit_toml
    if client == "goose":
        from tmuxjobs.cli import edit_yaml

        return edit_yaml
    from tmuxjobs.cli import edit_json

    return edit_json


def _place(client: Client) -> list[str]:
    return [SECTIONS.get(client, "mcpServers"), NAME]


def is_ours(there: object) -> bool:
    """Whether this entry starts tmuxjobs in a way that we or the README have written, in whatever place."""
    if not isinstance(there, dict):
        return False
    command = there.get("command", there.get("cmd"))
    words = [*command] if isinstance(command, list) else [command, *(there.get("args") or ())]
    if not all(isinstance(word, str) for word in words):
        return False
    if words[-1] == "serve":
        words.pop()
    if not words or Path(words[-1]).name != NAME:
        return False
    program, *options = words
    name = Path(program).name
    return len(words) == 1 or (name.startswith("python") and options[-2:-1] == ["-m"]) or name in RUNNERS


def changes(there: object, new: Mapping[str, Any], *, force: bool) -> dict[str, Any] | None:
    """The keys of an entry that must change; None when it is not ours to change, and all of them when forced."""
    if isinstance(there, dict):
        other = {
            key: one for key, one in new.items() if key not in there or (key in COMMAND_KEYS and there[key] != one)
        }
        if not other or is_ours(there):
            return other
    return dict(new) if force else None


def write(
    client: Client, command: Sequence[str], home: Path, environ: Mapping[str, str], *, force: bool = False
) -> str:
    """Add it to the client's configuration, once; what was done, in a sentence. Raises InstallError.

    An older entry of ours is brought up to date. An entry of that name that is not ours stays, unless forced.
    """
    new = entry(client, command)
    by_hand = f"add this by hand:\n{wanted(client, command)}"
    path = config_path(client, home, environ)
    if path is None:
        return _add_by_claude(new, home, environ, force=force)
    with _file(path, by_hand) as (path, text):
        editor, place = _editor(client), _place(client)
        config = editor.load(text)
        there = _servers(config, place[0])
        if NAME not in there:
            edited, expected = editor.put(text, place, new), new
        else:
            other = changes(there[NAME], new, force=force)
            if other is None:
                raise InstallError(
                    f"{path} already has another server '{NAME}'; it was left as it is (`--force` replaces it). "
                    f"Wanted:\n{wanted(client, command)}"
                )
            if not other:
                return f"{path} already has it."
            edited = text
            if is_ours(there[NAME]):
                expected = there[NAME] | other
                for key, value in other.items():
                    edited = editor.put(edited, [*place, key], value)
            else:
                edited, expected = editor.put(editor.take(text, place), place, new), new
        _check(editor.load(edited), config, place, expected)
    _replace(path, edited, by_hand)
    return f"{'Changed in' if NAME in there else 'Added to'} {path}; restart the client."


def remove(client: Client, home: Path, environ: Mapping[str, str], *, force: bool) -> str:
    """Remove it again; what was done, in a sentence. Raises InstallError.

    An entry that is not ours stays, unless forced.
    """
    path = config_path(client, home, environ)
    if path is None:
        return _remove_by_claude(home, environ, force=force)
    by_hand = f"remove '{NAME}' by hand."
    with _file(path, by_hand) as (path, text):
        editor, place = _editor(client), _place(client)
        config = editor.load(text)
        there = _servers(config, place[0])
        if NAME not in there:
            return f"{path} has no server '{NAME}'."
        if not (force or is_ours(there[NAME])):
            raise InstallError(
                f"The server '{NAME}' in {path} is a different one; it was left there (`--force` removes it)."
            )
        edited = editor.take(text, place)
        _check(editor.load(edited), config, place, None)
    _replace(path, edited, by_hand)
    return f"Removed from {path}; restart the client."


@contextlib.contextmanager
def _file(path: Path, by_hand: str) -> Iterator[tuple[Path, str]]:
    """Yields the file's real path, and its text; raises InstallError for what cannot be read or edited."""
    # A link into someone's dotfiles stays a link.
    path = Path(os.path.realpath(path))
    try:
        yield path, _text_of(path)
    except (OSError, ValueError, Odd) as error:
        raise InstallError(f"{path} cannot be read ({error}); {by_hand}") from None


def _text_of(path: Path) -> str:
    """The file's text, empty when there is none; line ends are kept. Raises Odd, OSError and ValueError."""
    try:
        return files.read(path, CONFIG_BYTES, follow=True).decode()
    except FileNotFoundError:
        return ""


def _servers(config: Any, section: str) -> dict[str, Any]:
    there = config.get(section, {}) if isinstance(config, dict) else None
    if there is None and isinstance(config, dict) and section == SECTIONS["goose"]:
        return {}
    if not isinstance(there, dict):
        raise ValueError("it is not laid out as expected")
    return there


def _check(edited: Any, config: dict[str, Any], place: Sequence[str], expected: dict[str, Any] | None) -> None:
    """Check that the file says what it said, except for our entry; raises ValueError when it does not."""
    section, name = place
    ours = edited.get(section) or {} if isinstance(edited, dict) else {}
    before = copy.deepcopy(config)
    theirs = before.get(section) or {}
    if ours.pop(name, None) != expected:
        raise ValueError("it is not laid out as expected")
    theirs.pop(name, None)
    rest = [{key: one for key, one in all_of.items() if key != section} for all_of in (edited, before)]
    if rest[0] != rest[1] or ours != theirs:
        raise ValueError("it is not laid out as expected")


def _replace(path: Path, text: str, by_hand: str) -> None:
    """Replace the file, making its folder if that is missing; its permissions stay, as it may hold a secret."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace_text(path, text)
    except OSError as error:
        raise InstallError(f"{path} cannot be written ({error}); {by_hand}") from None


def _claude(verb: str, *words: str) -> list[str]:
    return ["claude", "mcp", verb, "--scope", "user", NAME, *words]


def _add_by_claude(new: dict[str, Any], home: Path, environ: Mapping[str, str], *, force: bool) -> str:
    """Add the entry by Claude Code's own command, as Claude Code rewrites its file while it runs."""
    there = _known_to_claude(home, environ)
    change = new if there is None else changes(there, new, force=force)
    if change is None:
        raise InstallError(f"Claude Code has another server '{NAME}'; it was left as it is (`--force` replaces it).")
    if not change:
        return "Claude Code already has it."
    if there is not None:
        _run(_claude("remove"))
    whole = there | change if is_ours(there) else new
    try:
        _run(_claude("add-json", json.dumps(whole, ensure_ascii=False)))
    except InstallError:
        if there is not None:
            _run(_claude("add-json", json.dumps(there, ensure_ascii=False)))
        raise
    return f"{'Added to' if there is None else 'Changed in'} Claude Code for all your projects; restart it."


def _remove_by_claude(home: Path, environ: Mapping[str, str], *, force: bool) -> str:
    there = _known_to_claude(home, environ)
    if there is None:
        return f"Claude Code has no server '{NAME}' of yours."
    if not (force or is_ours(there)):
        raise InstallError(
            f"The server '{NAME}' in Claude Code is a different one; it was left there (`--force` removes it)."
        )
    _run(_claude("remove"))
    return "Removed from Claude Code; restart it."


def _known_to_claude(home: Path, environ: Mapping[str, str]) -> Any:
    """The entry in the user scope; None when there is none, or when it cannot be read."""
    path = Path(environ.get("CLAUDE_CONFIG_DIR") or home) / ".claude.json"
    with contextlib.suppress(OSError, ValueError, Odd, RecursionError, AttributeError):
        return json.loads(files.read(path, CONFIG_BYTES * 16, follow=True)).get("mcpServers", {}).get(NAME)
    return None


def _run(argv: Sequence[str]) -> None:
    if shutil.which(argv[0]) is None:
        raise InstallError(f"`claude` is not on the PATH; where it is, run: {shlex.join(argv)}")
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallError(f"`{shlex.join(argv[:3])}` refused: {(done.stderr or done.stdout).strip()}")

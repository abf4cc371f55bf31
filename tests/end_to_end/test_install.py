"""`install` adds tmuxjobs to a client's configuration and leaves all else in it alone."""

import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tmuxjobs.cli import edit_json, main
from tmuxjobs.cli.clients import CLIENTS, SECTIONS, Client, config_path, entry, is_ours, server_command

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Run = Callable[..., subprocess.CompletedProcess[str]]
SAME = ("st_mode", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
BY_FILE = [client for client in CLIENTS if client != "claude-code"]
OTHERS = {
    "claude-desktop": '{"globalShortcut": "", "mcpServers": {"other": {"command": "x"}}}',
    "codex": '# mine\nmodel = "o5"  # the good one\n[mcp_servers.other]\ncommand = "x"\n',
    "cursor": '{"mcpServers": {"other": {"command": "x"}}, "é": 1}',
    "gemini": '{"theme": "dark", "mcpServers": {"other": {"command": "x"}}}',
    "goose": "MODEL: gpt # the good one\nextensions:\n  other:\n    command: x\n",
    "opencode": '{\n\t// mine\n\t"mcp": {\n\t\t"other": {"command": "x"}, // keep\n\t},\n}\n',
    "vscode": '{\r\n    "inputs": [1.0],\r\n    "servers": {\r\n        "other": {"command": "x"}\r\n    }\r\n}\r\n',
    "zed": '// Zed settings\n{\n  "context_servers": {\n    "other": {\n      "command": "x"\n    }\n  }\n}\n',
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: there are hundreds of calls, and one of its own takes half a second."""

    def call(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["tmuxjobs", *arguments])
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        code = main.run()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(code or 0), said.out, said.err)

    return call


def file_of(client: Client) -> Path:
    path = config_path(client, Path.home(), os.environ)
    assert path is not None
    return path


def read(path: Path) -> dict[str, Any]:
    text = path.read_bytes().decode()
    load = {".toml": tomllib.loads, ".yaml": yaml.safe_load}.get(path.suffix, edit_json.load)
    return load(text)  # type: ignore[no-any-return]


def section(client: Client) -> str:
    return SECTIONS.get(client, "mcpServers")


def servers(client: Client, path: Path | None = None) -> dict[str, dict[str, Any]]:
    return read(path or file_of(client))[section(client)]  # type: ignore[no-any-return]


def put(client: Client, text: str) -> Path:
    path = file_of(client)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def with_entry(client: Client, value: object) -> Path:
    """The client's file with that under our name; TOML has no null."""
    if client == "codex":
        return put(client, f"[{section(client)}]\ntmuxjobs = {json.dumps(value).replace(': ', ' = ')}\n")
    whole = {section(client): {"tmuxjobs": value}}
    return put(client, yaml.safe_dump(whole) if client == "goose" else json.dumps(whole, indent=2))


@pytest.mark.parametrize("client", CLIENTS)
def test_it_only_shows_what_to_do_unless_told(run: Run, client: Client) -> None:
    before = sorted(Path.home().rglob("*"))
    done = run("install", client)
    assert done.returncode == 0
    assert "serve" in done.stdout
    assert f"install {client} --write" in done.stderr
    assert sorted(Path.home().rglob("*")) == before


@pytest.mark.parametrize("client", BY_FILE)
def test_what_it_shows_is_what_it_writes(run: Run, client: Client) -> None:
    shown = run("install", client).stdout
    assert run("install", client, "--write").returncode == 0
    assert file_of(client).read_text() == shown


@pytest.mark.parametrize("client", CLIENTS)
def test_print_prints_the_piece_alone(run: Run, client: Client) -> None:
    done = run("install", client, "--print")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", run("install", client).stdout)
    assert run("install", client, "--print", "--write").returncode == 2


@pytest.mark.parametrize("client", BY_FILE)
def test_what_is_there_stays_to_the_byte_and_is_restored(run: Run, client: Client) -> None:
    path = put(client, OTHERS[client])
    path.chmod(0o640)
    before = read(path)
    assert run("install", client, "--write").returncode == 0
    once = path.read_bytes()
    assert servers(client)["other"] == {"command": "x"}
    assert read(path).keys() == before.keys()
    assert servers(client)["tmuxjobs"] == entry(client, server_of(run))
    rest = iter(once.decode())
    assert all(one in rest for one in OTHERS[client])
    assert path.stat().st_mode & 0o777 == 0o640
    again = run("install", client, "--write")
    assert (again.returncode, path.read_bytes()) == (0, once)
    assert "already" in again.stdout
    gone = run("install", client, "--uninstall")
    assert (gone.returncode, path.read_bytes().decode()) == (0, OTHERS[client])
    assert "Removed from" in gone.stdout
    assert "has no server" in run("install", client, "--uninstall").stdout


def server_of(run: Run) -> list[str]:
    """The command that `install` gives."""
    found = json.loads(run("install", "cursor", "--print").stdout)["mcpServers"]["tmuxjobs"]
    return [found["command"], *found["args"]]


OLD = [
    {"command": "/old/venv/bin/tmuxjobs", "args": ["serve"]},
    {"command": "tmuxjobs", "args": ["serve"]},
    {"command": "tmuxjobs"},
    {"command": "uvx", "args": ["--from", "/some/where", "tmuxjobs", "serve"]},
    {"command": "/usr/bin/python3.11", "args": ["-m", "tmuxjobs", "serve"]},
    {"command": ["tmuxjobs", "serve"]},
]
MINE = [
    {"command": "npx", "args": ["mine"]},
    {"command": "tmuxjobs", "args": ["serve", "--http", "127.0.0.1:80"]},
    {"command": "docker", "args": ["run", "tmuxjobs", "serve"]},
    {"command": "/bin/sh", "args": ["-c", "tmuxjobs serve"]},
    {"url": "http://127.0.0.1:8765/mcp"},
    {"command": 3},
    {},
    [1],
    "tmuxjobs",
    7,
]


def test_entries_of_ours_are_known_and_others_are_not() -> None:
    assert all(is_ours(one) for one in OLD)
    assert not any(is_ours(one) for one in [*MINE, None])


@pytest.mark.parametrize("client", BY_FILE)
@pytest.mark.parametrize("old", OLD[:5])
def test_older_entry_of_ours_is_brought_up_to_date(run: Run, client: Client, old: dict[str, Any]) -> None:
    path = with_entry(client, {"env": {"A": "1"}} | old)
    assert run("install", client, "--write").returncode == 0
    assert servers(client)["tmuxjobs"] == old | {"env": {"A": "1"}} | entry(client, server_of(run))
    once = path.read_bytes()
    assert "already" in run("install", client, "--write").stdout
    assert path.read_bytes() == once


@pytest.mark.parametrize("client", BY_FILE)
@pytest.mark.parametrize("mine", MINE, ids=map(str, range(len(MINE))))
def test_another_entry_of_that_name_stays_unless_forced(run: Run, client: Client, mine: object) -> None:
    path = with_entry(client, mine)
    before = path.read_bytes()
    done = run("install", client, "--write")
    assert (done.returncode, path.read_bytes()) == (1, before)
    assert "already has another server" in done.stderr
    done = run("install", client, "--uninstall")
    assert (done.returncode, path.read_bytes()) == (1, before)
    assert run("install", client, "--write", "--force").returncode == 0
    assert servers(client)["tmuxjobs"] == entry(client, server_of(run))


@pytest.mark.parametrize("client", [client for client in BY_FILE if client != "codex"])
def test_null_in_its_place_stays_unless_forced(run: Run, client: Client) -> None:
    path = with_entry(client, None)
    before = path.read_bytes()
    assert (run("install", client, "--write").returncode, path.read_bytes()) == (1, before)
    assert run("install", client, "--uninstall", "--force").returncode == 0
    assert not servers(client)


@pytest.mark.parametrize("client", BY_FILE)
def test_file_that_cannot_be_read_is_left_alone(run: Run, client: Client) -> None:
    path = file_of(client)
    path.parent.mkdir(parents=True)
    path.write_text("{ // a comment\n = }")
    done = run("install", client, "--write")
    assert (done.returncode, path.read_text()) == (1, "{ // a comment\n = }")
    assert "add this by hand" in done.stderr


@pytest.mark.parametrize("client", BY_FILE)
@pytest.mark.parametrize(
    "put",
    [
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.write_bytes(b"\xff\0"),
        lambda path: path.write_text("a = " + "[" * 50_000 if path.suffix == ".toml" else "[" * 50_000),
        lambda path: path.write_text("mcp_servers = 3" if path.suffix == ".toml" else "[]"),
        lambda path: path.write_text("mcp_servers = []" if path.suffix == ".toml" else "7"),
        lambda path: (path.touch(), os.truncate(path, 1 << 34)),
    ],
    ids=["fifo", "folder", "link to itself", "device", "binary", "deep", "other", "another", "large"],
)
def test_odd_thing_in_its_place_is_left_alone(run: Run, client: Client, put: Callable[[Path], object]) -> None:
    path = file_of(client)
    path.parent.mkdir(parents=True)
    put(path)
    before = path.lstat()
    done = run("install", client, "--write")
    assert done.returncode == 1
    assert done.stderr.startswith(f"tmuxjobs: {path if not path.is_symlink() else ''}")
    assert "add this by hand" in done.stderr
    after = path.lstat()
    assert [getattr(after, name) for name in SAME] == [getattr(before, name) for name in SAME]


@pytest.mark.parametrize("client", [client for client in BY_FILE if client != "codex"])
@pytest.mark.parametrize("value", ["3", '"no"', "[]", "true"])
def test_section_of_another_kind_is_left_alone(run: Run, client: Client, value: str) -> None:
    path = put(client, f'{{"{section(client)}": {value}}}')
    before = path.read_bytes()
    done = run("install", client, "--write")
    assert (done.returncode, path.read_bytes()) == (1, before)
    assert "it is not laid out as expected" in done.stderr


@pytest.mark.parametrize("client", BY_FILE)
def test_folder_that_cannot_be_made_is_named_with_what_to_add(run: Run, client: Client) -> None:
    in_the_way = file_of(client).parent
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("a file")
    done = run("install", client, "--write")
    assert done.returncode == 1
    assert f"{file_of(client)} cannot be " in done.stderr
    assert "add this by hand:" in done.stderr


def test_link_into_dotfiles_stays_a_link(run: Run, tmp_path: Path) -> None:
    path = file_of("cursor")
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "mcp.json")
    assert run("install", "cursor", "--write").returncode == 0
    assert path.is_symlink()
    assert "tmuxjobs" in servers("cursor", tmp_path / "mcp.json")


CLAUDE = """#!{python}
import json, pathlib, sys
path = pathlib.Path.home() / ".claude.json"
config = json.loads(path.read_text()) if path.exists() else {{"numStartups": 1}}
servers = config.setdefault("mcpServers", {{}})
mcp, verb, scope, user, name, *rest = sys.argv[1:]
assert (mcp, scope, user) == ("mcp", "--scope", "user")
if verb == "remove":
    del servers[name]
else:
    assert verb == "add-json" and name not in servers
    servers[name] = json.loads(rest[0])
path.write_text(json.dumps(config))
"""
"""Does to its file what Claude Code does."""


@pytest.fixture
def claude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """What stands under our name in the file of a stand-in for `claude`; test_clients.py drives the real one."""
    (tmp_path / "claude").write_text(CLAUDE.format(python=sys.executable))
    (tmp_path / "claude").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return lambda: json.loads((Path.home() / ".claude.json").read_text())["mcpServers"].get("tmuxjobs")


def test_claude_code_is_changed_by_its_own_command(run: Run, claude: Callable[[], Any]) -> None:
    shown = run("install", "claude-code", "--print").stdout
    for said in ("Added to Claude Code", "already has it"):
        assert said in run("install", "claude-code", "--write").stdout
        assert claude() == json.loads(shlex.split(shown)[-1])
    assert claude()["alwaysLoad"] is True
    assert "Removed from" in run("install", "claude-code", "--uninstall").stdout
    assert claude() is None
    assert "has no server" in run("install", "claude-code", "--uninstall").stdout


def test_older_entry_in_claude_code_is_brought_up_to_date(run: Run, claude: Callable[[], Any]) -> None:
    for old in OLD[:5]:
        mine = {"type": "stdio", "env": {"A": "1"}} | old
        (Path.home() / ".claude.json").write_text(json.dumps({"mcpServers": {"tmuxjobs": mine}}))
        assert "Changed in" in run("install", "claude-code", "--write").stdout
        assert claude() == mine | entry("claude-code", server_of(run))


def test_another_entry_in_claude_code_stays_unless_forced(run: Run, claude: Callable[[], Any]) -> None:
    for mine in MINE:
        (Path.home() / ".claude.json").write_text(json.dumps({"mcpServers": {"tmuxjobs": mine}}))
        assert run("install", "claude-code", "--write").returncode == 1
        assert run("install", "claude-code", "--uninstall").returncode == 1
        assert claude() == mine
        assert run("install", "claude-code", "--write", "--force").returncode == 0
        assert claude() == entry("claude-code", server_of(run))


def test_without_claude_it_says_what_to_run(run: Run, isolated: Path) -> None:
    done = run("install", "claude-code", "--write", env=os.environ | {"PATH": "/usr/bin:/bin"})
    assert done.returncode == 1
    assert "claude mcp add-json --scope user tmuxjobs " in done.stderr


@pytest.mark.parametrize(
    ("prefix", "command"),
    [
        ("/home/you/.cache/uv/archive-v0/x1Y2/", ["uvx", "tmuxjobs", "serve"]),
        ("/cache/environments-v2/a-b/", ["uvx", "tmuxjobs", "serve"]),
        ("/home/you/.local/pipx/.cache/1a2b/", ["pipx", "run", "tmuxjobs", "serve"]),
    ],
)
def test_from_a_cache_it_gives_the_command_that_fills_it(
    monkeypatch: pytest.MonkeyPatch, prefix: str, command: list[str]
) -> None:
    monkeypatch.setattr(sys, "prefix", prefix)
    found = server_command()
    assert [Path(found[0]).name, *found[1:]] == [*command[:-2], *source(command[0]), *command[-2:]]


def source(runner: str) -> list[str]:
    """This checkout is no package of a registry."""
    root = Path(__file__).parents[2]
    return ["--spec" if runner == "pipx" else "--from", root.as_uri()]

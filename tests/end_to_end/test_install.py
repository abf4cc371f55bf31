"""`install` adds tmuxjobs to a client's configuration and leaves all else in it alone."""

import json
import os
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tmuxjobs.cli.clients import CLIENTS, Client, config_path

Run = Callable[..., subprocess.CompletedProcess[str]]
SAME = ("st_mode", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
BY_FILE = [client for client in CLIENTS if client != "claude-code"]
OTHERS = {
    "codex": '# mine\nmodel = "o5"  # the good one\n[mcp_servers.other]\ncommand = "x"\n',
    "cursor": '{"mcpServers": {"other": {"command": "x"}}, "é": 1}',
    "gemini": '{"theme": "dark", "mcpServers": {"other": {"command": "x"}}}',
    "vscode": '{"inputs": [], "servers": {"other": {"command": "x"}}}',
}


def file_of(client: Client) -> Path:
    path = config_path(client, Path.home(), os.environ)
    assert path is not None
    return path


def read(path: Path) -> dict[str, object]:
    text = path.read_text()
    return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)  # type: ignore[no-any-return]


def servers(path: Path) -> dict[str, dict[str, object]]:
    config = read(path)
    return next(config[key] for key in ("mcpServers", "mcp_servers", "servers") if key in config)  # type: ignore[return-value]


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


@pytest.mark.parametrize("client", BY_FILE)
def test_what_is_there_stays_and_a_second_time_changes_nothing(run: Run, client: Client) -> None:
    path = file_of(client)
    path.parent.mkdir(parents=True)
    path.write_text(OTHERS[client])
    path.chmod(0o640)
    before = read(path)
    assert run("install", client, "--write").returncode == 0
    once = path.read_text()
    assert servers(path).pop("other") == {"command": "x"}
    assert before.keys() <= read(path).keys()
    assert path.stat().st_mode & 0o777 == 0o640
    again = run("install", client, "--write")
    assert (again.returncode, path.read_text()) == (0, once)
    assert "already" in again.stdout


@pytest.mark.parametrize("client", BY_FILE)
def test_another_entry_of_that_name_is_left_alone(run: Run, client: Client) -> None:
    run("install", client, "--write")
    path = file_of(client)
    path.write_text(path.read_text().replace('"serve"', '"--mine"'))
    before = path.read_text()
    done = run("install", client, "--write")
    assert (done.returncode, path.read_text()) == (1, before)
    assert "already has another server" in done.stderr


@pytest.mark.parametrize("client", BY_FILE)
def test_file_that_can_not_be_read_is_left_alone(run: Run, client: Client) -> None:
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
        lambda path: path.write_text("mcp_servers = 1" if path.suffix == ".toml" else "[]"),
        lambda path: (path.touch(), os.truncate(path, 1 << 34)),
    ],
    ids=["fifo", "folder", "link to itself", "device", "binary", "deep", "other", "large"],
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


@pytest.mark.parametrize("client", BY_FILE)
def test_entry_that_is_none_is_left_alone(run: Run, client: Client) -> None:
    run("install", client, "--write")
    path = file_of(client)
    section = next(key for key in ("mcpServers", "mcp_servers", "servers") if key in read(path))
    toml, other = f"{section}.tmuxjobs = 1\n", json.dumps({section: {"tmuxjobs": [1]}})
    path.write_text(toml if path.suffix == ".toml" else other)
    before = path.read_text()
    done = run("install", client, "--write")
    assert (done.returncode, path.read_text()) == (1, before)
    assert "already has another server" in done.stderr


@pytest.mark.parametrize("client", BY_FILE)
def test_folder_that_can_not_be_made_is_told_with_what_to_add(run: Run, client: Client) -> None:
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
    assert "tmuxjobs" in servers(tmp_path / "mcp.json")


def test_claude_code_is_changed_by_its_own_command(run: Run, tmp_path: Path) -> None:
    claude = tmp_path / "claude"
    claude.write_text(
        f'#!/bin/sh\n[ "$2" = get ] && exec test -e {tmp_path}/added\nprintf "%s\\n" "$@" > {tmp_path}/added\n'
    )
    claude.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    shown = run("install", "claude-code").stdout
    for _ in range(2):
        assert run("install", "claude-code", "--write", env=env).returncode == 0
        assert ["claude", *(tmp_path / "added").read_text().splitlines()] == shlex.split(shown)


def test_without_claude_it_says_what_to_run(run: Run, isolated: Path) -> None:
    done = run("install", "claude-code", "--write", env=os.environ | {"PATH": "/usr/bin:/bin"})
    assert done.returncode == 1
    assert "claude mcp add --scope user tmuxjobs -- " in done.stderr

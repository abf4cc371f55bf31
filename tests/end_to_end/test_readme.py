"""What the README and the quickstart tell a newcomer to do works."""

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support import PYTHON

from tmuxjobs.cli import commands
from tmuxjobs.cli.clients import CLIENTS
from tmuxjobs.models import STATUSES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"(?:^\$ |^\| `|\$\(|^)(tmuxjobs (?!install CLIENT)[a-z][^`|#)\n\"]*)", README, re.MULTILINE)


@pytest.mark.parametrize("line", sorted({line.strip() for line in COMMANDS}))
def test_command_in_the_readme_is_one_that_there_is(line: str) -> None:
    commands.app.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)


def test_python_example_runs(tmp_path: Path) -> None:
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.split()[0] in STATUSES


@pytest.fixture
def first_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line of the quickstart's first job.

    Nothing is installed: the command is put beside an interpreter that has the packages, in a path with a space.
    """
    folder = tmp_path / "a fresh 'clone'"
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    (folder / "tmuxjobs").write_text(f'#!/bin/sh\nexec {PYTHON} -m tmuxjobs "$@"\n')
    (folder / "tmuxjobs").chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")]))
    return [str(folder / "python"), str(ROOT / "conf" / "first_job.py")]


def test_first_job_of_the_quickstart_runs_and_says_how_to_go_on(first_job: list[str]) -> None:
    done = subprocess.run(first_job, capture_output=True, text=True, timeout=250)
    assert (done.returncode, done.stderr) == (0, "")
    assert "step 3 of 3" in done.stdout
    assert ": completed, exit code 0" in done.stdout


def test_lines_of_the_quickstart_can_be_pasted(first_job: list[str], tmp_path: Path) -> None:
    said = subprocess.run(first_job, capture_output=True, text=True, timeout=250).stdout
    (tmp_path / "claude").write_text('#!/bin/sh\nprintf "%s\\n" "$@" >> "$0.said"\n')
    (tmp_path / "claude").chmod(0o755)
    [install] = re.findall("^ +(.* install claude-code .*)", said, re.MULTILINE)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", install], env=env, check=True, capture_output=True, timeout=60)
    *words, added = (tmp_path / "claude.said").read_text().splitlines()
    assert words == ["mcp", "add-json", "--scope", "user", "tmuxjobs"]
    assert shlex.split(install)[0] == str(Path(first_job[0]).with_name("tmuxjobs"))
    assert Path(json.loads(added)["command"]).is_file()
    [others] = re.findall("^or (.*)", said, re.MULTILINE)
    assert {*others.split(", "), "claude-code"} == set(CLIENTS)
    [listing] = re.findall("see your jobs +(.*)", said)
    assert "quickstart-" in subprocess.run(["sh", "-c", listing], capture_output=True, text=True, timeout=60).stdout
    commands.app.parse_args(
        shlex.split(re.findall("all jobs +(.*)", said)[0])[1:], exit_on_error=False, print_error=False
    )


def test_first_job_runs_to_its_end_though_nobody_reads_on(first_job: list[str], tmp_path: Path) -> None:
    script = '{ "$@"; echo $? > code; } | head -3'
    argv = ["sh", "-c", script, "sh", *first_job]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert (done.stdout.count("\n"), done.stderr, (tmp_path / "code").read_text()) == (3, "", "0\n")


@pytest.mark.timeout(600)
def test_pictures_can_be_made_anew(tmp_path: Path) -> None:
    argv = [sys.executable, str(ROOT / "conf" / "pictures.py"), str(tmp_path / "new")]
    subprocess.run(argv, check=True, capture_output=True, timeout=580)
    kept = {path.name for path in (ROOT / "conf" / "pictures").iterdir()}
    assert {path.name for path in (tmp_path / "new").iterdir()} == kept
    assert kept == {Path(link).name for link in re.findall(r"\]\((conf/pictures/[^)]+)\)", README)}

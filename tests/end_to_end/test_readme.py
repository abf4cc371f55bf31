"""What the README and the quickstart tell a newcomer to do works."""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tmuxjobs import cli
from tmuxjobs.models import STATUSES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"(?:^\$ |^\| `|\$\(|^)(tmuxjobs (?!install CLIENT)[a-z][^`|#)\n\"]*)", README, re.MULTILINE)


@pytest.mark.parametrize("line", sorted({line.strip() for line in COMMANDS}))
def test_command_in_the_readme_is_one_that_there_is(line: str) -> None:
    cli.app.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)


def test_python_example_runs(tmp_path: Path) -> None:
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.split()[0] in STATUSES


def test_first_job_of_the_quickstart_runs_and_says_how_to_go_on(tmp_path: Path) -> None:
    """The installation is left out: the command is put beside an interpreter that has the packages."""
    (tmp_path / "python").symlink_to(sys.executable)
    (tmp_path / "tmuxjobs").write_text(f'#!/bin/sh\nexec {sys.executable} -m tmuxjobs "$@"\n')
    (tmp_path / "tmuxjobs").chmod(0o755)
    places = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    argv = [str(tmp_path / "python"), str(ROOT / "conf" / "first_job.py")]
    done = subprocess.run(argv, env=os.environ | {"PYTHONPATH": places}, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert "step 3 of 3" in done.stdout
    assert ": completed, exit code 0" in done.stdout
    assert "claude mcp add tmuxjobs -- " in done.stdout


def test_pictures_can_be_made_anew(tmp_path: Path) -> None:
    argv = [sys.executable, str(ROOT / "conf" / "pictures.py"), str(tmp_path / "new")]
    subprocess.run(argv, check=True, capture_output=True, timeout=110)
    kept = {path.name for path in (ROOT / "conf" / "pictures").iterdir()}
    assert {path.name for path in (tmp_path / "new").iterdir()} == kept
    assert kept == {Path(link).name for link in re.findall(r"\]\((conf/pictures/[^)]+)\)", README)}

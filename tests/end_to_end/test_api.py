"""The package as another program's import: what it exports, what its import costs, what a type checker knows of it."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tmuxjobs
from tmuxjobs import Jobs, errors

ROOT = Path(__file__).parents[2]
USE = Path(__file__).with_name("api.py")
PUBLIC = sorted(name for name in vars(Jobs) if not name.startswith("_"))


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(600)  # without mypy's cache it reads every library that ours uses
def test_examples_pass_a_strict_type_checker(tmp_path: Path) -> None:
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "readme.py").write_text(example)
    argv = [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "readme.py"), str(USE)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr


def test_public_names_are_the_verbs_and_nothing_else(jobs: Jobs) -> None:
    readme, contributing = ((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
    commands = {name.replace("-", "_") for name in re.findall(r"^\| `tmuxjobs ([a-z-]+)", readme, re.MULTILINE)}
    for_edges = re.search(r"^`Jobs` has the verbs.*?\n\n", contributing, re.MULTILINE | re.DOTALL)
    assert for_edges is not None
    commands -= {"install", "log_path", "policy", "serve", "up", "down"}
    assert set(PUBLIC) == commands | set(re.findall(r"`(\w+)`", for_edges[0])) - {"Jobs", "Settings"}
    assert [name for name in vars(Jobs(jobs.host)) if not name.startswith("_")] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_type_checked_and_documented(name: str) -> None:
    used = {node.attr for node in ast.walk(ast.parse(USE.read_text())) if isinstance(node, ast.Attribute)}
    assert name in used, f"add it to {USE.name}"
    member = getattr(Jobs, name)
    assert inspect.getdoc(member), "its first line is what an editor shows"
    if inspect.isfunction(member):
        parameters = inspect.signature(member.__get__(Jobs)).parameters
        assert "self" not in parameters
        assert "Host" not in {one.annotation for one in parameters.values()}


def test_exports_are_the_face_and_the_errors() -> None:
    ours = {name for name, item in vars(errors).items() if inspect.isclass(item) and item.__module__ == errors.__name__}
    assert set(tmuxjobs.__all__) == {"Jobs", "Settings"} | ours - {"InstallError"}  # only a command raises that one
    assert set(dir(tmuxjobs)) >= set(tmuxjobs.__all__)
    for name in tmuxjobs.__all__:
        assert getattr(tmuxjobs, name).__name__ == name


def test_import_loads_nothing_until_a_name_is_used() -> None:
    loaded = "print(*(name for name in sys.modules if name.partition('.')[0] in ('tmuxjobs', 'pydantic', 'typing')))"
    assert python(f"import sys, tmuxjobs; {loaded}").split() == ["tmuxjobs"]
    assert "tmuxjobs.jobs" not in python(f"import sys; from tmuxjobs import JobNotFound; {loaded}").split()


def test_unknown_name_is_refused_by_name() -> None:
    with pytest.raises(AttributeError, match="module 'tmuxjobs' has no attribute 'Job'"):
        tmuxjobs.Job  # noqa: B018

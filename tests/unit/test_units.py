"""The copy of the pane's programs: whole or not there, runs apart from the package, and goes when nobody needs it."""

import ast
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import change_pane

from tmuxjobs import contract
from tmuxjobs.errors import StateError
from tmuxjobs.store import units

ROLES = ("runner", "recorder", "adopter", "window", "welcome")


@pytest.mark.parametrize("name", units.read_sources())
def test_every_file_is_written_for_the_oldest_python(name: str) -> None:
    ast.parse(units.read_sources()[name], name, feature_version=(3, 8))


@pytest.mark.parametrize("version", range(8, 15))
def test_every_role_loads_under_each_python_that_is_here(version: int, tmp_path: Path) -> None:
    python = shutil.which(f"python3.{version}")
    if python is None or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"there is no Python 3.{version}")
    unit = units.prepare(tmp_path)
    code = f"import sys; sys.path.insert(0, {unit.folder!r}); "
    code += "; ".join(f"import tmuxjobs.pane.{role}" for role in ROLES)
    done = subprocess.run([python, "-I", "-S", "-c", code], capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("role", ROLES)
def test_every_role_runs_without_the_package(role: str, tmp_path: Path) -> None:
    unit = units.prepare(tmp_path)
    code = f"import sys; sys.path.insert(0, {unit.folder!r}); import tmuxjobs.pane.{role}; "
    code += "print(*(one.__file__ for name, one in sys.modules.items() if name.startswith('tmuxjobs')), sep='\\n')"
    done = subprocess.run([unit.python, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, cwd="/")
    files = done.stdout.split("\n")[:-1]
    assert files
    assert all(path.startswith(f"{unit.folder}/") for path in files)


def test_program_names_its_role_and_no_other(tmp_path: Path) -> None:
    unit = units.prepare(tmp_path)
    done = subprocess.run(unit.argv("nothing"), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "no role 'nothing'\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_process_is_named_for_us_and_not_for_python(tmp_path: Path) -> None:
    unit = units.prepare(tmp_path)
    code = "print(open('/proc/self/comm').read().strip(), open('/proc/self/cmdline').read().split('\\0')[0])"
    done = subprocess.run([unit.python, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"tmuxjobs-job {unit.python}\n"
    assert not any("python" in word for word in unit.argv("runner"))


def test_every_file_is_compiled_and_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        unit = units.prepare(tmp_path)
    finally:
        os.umask(before)
    every = [path for path in Path(unit.folder).rglob("*") if not path.is_symlink()]
    sources = {path.stem for path in every if path.suffix == ".py"}
    assert {path.name.partition(".")[0] for path in every if path.suffix == ".pyc"} == sources
    assert {stat.S_IMODE(path.lstat().st_mode) for path in (*every, Path(unit.folder)) if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.lstat().st_mode) for path in every if path.is_file()} == {0o600}


def test_compiled_files_are_what_runs(tmp_path: Path) -> None:
    unit = units.prepare(tmp_path)
    code = f"import sys; sys.path.insert(0, {unit.folder!r}); import tmuxjobs.pane.runner"
    argv = [unit.python, "-I", "-S", "-v", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert f"# code object from '{unit.folder}/tmuxjobs/pane/__pycache__/runner." in done.stderr
    assert "wrote" not in done.stderr


def test_same_version_is_the_same_unit(tmp_path: Path) -> None:
    assert units.prepare(tmp_path) == units.prepare(tmp_path)
    assert len(os.listdir(tmp_path)) == 1


def test_another_version_is_another_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pane"
    folder.mkdir()
    one = units.prepare(folder)
    change_pane(monkeypatch, tmp_path, "recorder.py", lambda text: f"{text}\n")
    other = units.prepare(folder)
    assert one.folder != other.folder
    assert one.use()
    assert other.use()


def test_unit_that_many_make_at_once_is_made_once(tmp_path: Path) -> None:
    made: list[units.Unit] = []
    threads = [threading.Thread(target=lambda: made.append(units.prepare(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
    assert len(made) == 8
    assert os.listdir(tmp_path) == [Path(made[0].folder).name]


@pytest.mark.parametrize("damage", ["pane/runner.py", "contract.py", "pane/__main__.py"])
def test_damaged_unit_is_mended_in_place(tmp_path: Path, damage: str) -> None:
    unit = units.prepare(tmp_path)
    path = Path(unit.folder, "tmuxjobs", damage)
    path.unlink()
    stays = Path(unit.folder).stat().st_ino
    assert units.prepare(tmp_path) == unit
    assert path.read_bytes() == units.read_sources()[damage]
    assert Path(unit.folder).stat().st_ino == stays  # what runs may still import from it
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


def test_unit_is_not_used_when_its_interpreter_is_gone(tmp_path: Path) -> None:
    unit = units.prepare(tmp_path)
    os.unlink(unit.python)
    os.symlink(tmp_path / "gone", unit.python)
    assert not unit.use()
    assert units.prepare(tmp_path).use()


def test_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "pane").touch()
    with pytest.raises(StateError, match="cannot be copied for jobs"):
        units.prepare(tmp_path / "pane")


# What goes


def grown_old(path: Path, seconds: float) -> None:
    at = path.lstat().st_mtime - seconds
    os.utime(path, (at, at))


def test_copy_that_was_killed_goes_after_a_minute(tmp_path: Path) -> None:
    unit = Path(units.prepare(tmp_path).folder)
    begun = tmp_path / ".new-0123456789abcdef"
    shutil.copytree(unit, begun, symlinks=True)
    (tmp_path / ".new-of-a-person").mkdir()
    assert units.half_made(tmp_path) == []
    grown_old(begun, 100)
    grown_old(tmp_path / ".new-of-a-person", 100)
    assert units.half_made(tmp_path) == [begun]
    held = os.open(begun, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # its maker lives, and the clock has jumped
    assert units.half_made(tmp_path) == []
    os.close(held)
    assert units.half_made(tmp_path) == [begun]
    units.remove(begun)
    assert {path.name for path in tmp_path.iterdir()} == {unit.name, ".new-of-a-person"}


def test_unit_is_unused_after_a_month_and_each_use_counts(tmp_path: Path) -> None:
    unit = units.prepare(tmp_path)
    grown_old(Path(unit.folder), units.UNUSED_S + 100)
    assert units.unused(tmp_path) == [Path(unit.folder)]
    assert unit.use()
    assert units.unused(tmp_path) == []


def test_file_of_someone_else_in_a_unit_stays(tmp_path: Path) -> None:
    unit = units.prepare(tmp_path)
    notes = Path(unit.folder, "tmuxjobs", "pane", "notes.txt")
    notes.write_text("mine")
    units.remove(Path(unit.folder))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [notes]


# Which installation


def test_installation_is_told_once_and_replaced_whole(tmp_path: Path) -> None:
    units.tell_installed(tmp_path, ["one"], ["two"])
    path = tmp_path / units.INSTALLED
    first = path.stat()
    units.tell_installed(tmp_path, ["one"], ["two"])
    assert path.stat().st_ino == first.st_ino
    assert stat.S_IMODE(first.st_mode) == 0o600
    units.tell_installed(tmp_path, ["other"], ["two"])
    assert path.stat().st_ino != first.st_ino
    assert os.listdir(tmp_path) == [units.INSTALLED]


def test_program_has_a_name_that_comm_holds_whole() -> None:
    assert len(contract.PROGRAM) <= 15

"""Isolation: no test reaches the user's tmux or home, and none leaves a process or a file behind.

The whole session lives in one short folder under /tmp, each test in a folder of its own inside it. tmux falls back to
/tmp, thus to the user's server, when TMUX_TMPDIR does not exist: a folder goes only after the processes that know it.
"""

import contextlib
import gc
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster import Cluster
from far import Far, far_machine
from hypothesis import HealthCheck, Phase, settings
from kept_units import give_back, keep_units
from loaded import Loaded
from support import Jobs, Person, Screen, Tmux, wait_until

from tmuxjobs import Settings
from tmuxjobs.system import processes

TESTS = Path(__file__).parent
MARKS = ("unit", "integration", "end_to_end", "torture", "bench", "conformance")
NO_TMUX = "tmux is not installed, and this test needs the real one: install tmux 3.2a or newer."
XDG = ("STATE", "CONFIG", "CACHE", "DATA")
SESSION_FOLDER = pytest.StashKey[Path]()

# The long form is `python -m pytest tests/unit --hypothesis-profile=long --timeout=0`.
# No explanations: they parse source, which Python before 3.11.8 may answer with a SystemError (its issue 106905).
SEARCH = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
# How long it takes to make an example says how busy the machine is.
USUAL: dict[str, Any] = {"deadline": None, "phases": SEARCH, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("short", max_examples=20, **USUAL)
settings.register_profile("long", max_examples=1000, **USUAL)
settings.load_profile("short")

# FastMCP reads these when it is imported.
os.environ["FASTMCP_MCP_CAMELCASE_COMPAT"] = "false"
os.environ["FASTMCP_CHECK_FOR_UPDATES"] = "off"


def environment_of(folder: Path) -> dict[str, str]:
    """Creates what must be there of the folder's parts; the variables that keep everything inside it."""
    home = folder / "home"
    made = {"HOME": home, "XDG_RUNTIME_DIR": home / "xdg-runtime", "TMPDIR": folder / "tmp"}
    for place in made.values():
        place.mkdir(mode=0o700)
    places = made | {f"XDG_{kind}_HOME": home / f"xdg-{kind.lower()}" for kind in XDG} | {"TMUX_TMPDIR": folder}
    # A person's own shell may be fish, or `nologin` for the user of a build machine; a fresh system has no locale; and
    # `python3` has a line editor of its own since 3.13.
    usual = {"SHELL": "/bin/sh", "LANG": "C.UTF-8", "PYTHON_BASIC_REPL": "1"}
    return {name: str(place) for name, place in places.items()} | usual


def leads_outside(name: str) -> bool:
    """Or says what is not so inside: another locale, and the width of the terminal that the tests are run in."""
    return name.startswith(("TMUX", "MCP_BG_", "LC_")) or name in ("COLUMNS", "LINES")


def pytest_configure(config: pytest.Config) -> None:
    folder = Path(tempfile.mkdtemp(prefix="tj", dir="/tmp"))
    config.stash[SESSION_FOLDER] = folder
    # Between two tests, and for a thread that outlives its test, the session's own folder is in force.
    for name in filter(leads_outside, list(os.environ)):
        del os.environ[name]
    os.environ.update(environment_of(folder))
    tempfile.tempdir = None


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[SESSION_FOLDER], ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Most tests wait for a process more than they work: three for each processor keep all of them busy."""
    return min(3 * (os.cpu_count() or 1), 8)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        kind = item.path.relative_to(TESTS).parts[0]
        assert kind in MARKS, f"{item.nodeid}: a test belongs into one of the folders {', '.join(MARKS)}"
        item.add_marker(kind)


def pytest_collection_finish() -> None:
    """A worker has loaded a million objects by now, and none of them goes away: not to be visited again and again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("unit") is None and shutil.which("tmux") is None:
        pytest.fail(NO_TMUX, pytrace=False)


@pytest.fixture(autouse=True)
def isolated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The test's own folder: its home, its XDG directories and its tmux sockets."""
    folder = Path(tempfile.mkdtemp(prefix="t", dir=request.config.stash[SESSION_FOLDER]))
    for name in filter(leads_outside, list(os.environ)):
        monkeypatch.delenv(name)
    for name, value in environment_of(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    left: list[str] = []
    if request.node.get_closest_marker("unit") is None:
        left = end_processes(folder)
        give_back(request.config.stash[SESSION_FOLDER] / "units", folder / "home/xdg-state/tmuxjobs/pane")
    remove(folder)
    if left:
        pytest.fail("the test left processes behind: " + "; ".join(left), pytrace=False)


@pytest.fixture(scope="session")
def units_folder(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.stash[SESSION_FOLDER] / "units"


@pytest.fixture(scope="session")
def loaded(units_folder: Path) -> Iterator[Loaded]:
    """Forks the command and its server from a process that has loaded them."""
    waiting = Loaded(units_folder)
    yield waiting
    waiting.close()


@pytest.fixture(autouse=True)
def kept_units(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, units_folder: Path) -> None:
    if request.node.get_closest_marker("unit") is None:  # how they are made is tested there
        keep_units(units_folder, monkeypatch.setattr)


@pytest.fixture
def tmp_path(isolated: Path) -> Path:
    """pytest's own keeps folders under /tmp for later runs; this one goes with the test, and its path is short."""
    path = isolated / "path"
    path.mkdir()
    return path


@pytest.fixture
def tmux(isolated: Path) -> Tmux:
    """Runs the real tmux on the test's server: `tmux("list-windows", "-t", "=mcp-jobs")` is what it printed."""

    def run(*arguments: str, timeout: float = 60) -> str:
        environment = os.environ | {"TMUX_TMPDIR": str(isolated)}
        argv = ["tmux", "-u", *arguments]
        done = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == 0, f"{' '.join(argv)} returned {done.returncode}: {done.stderr.strip()}"
        return done.stdout

    return run


@pytest.fixture
def far(isolated: Path) -> Iterator[Far]:
    """Another machine, `gpu1`, that ssh reaches."""
    there = far_machine(isolated)
    yield there
    there.close()


@pytest.fixture
def far_jobs(far: Far) -> Iterator[Jobs]:
    """The verbs of a person here, whose jobs run on `gpu1` unless they name another host."""
    jobs = Jobs.open(Settings.load(max_jobs=40, ssh=far.ssh, hosts="gpu1", host="gpu1"))
    yield jobs
    jobs._hosts.close()


@pytest.fixture(scope="session")
def one_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, str]]:
    folder = tmp_path_factory.mktemp("slurm")
    cluster = Cluster(folder)
    try:
        yield cluster, cluster.start_all()
    finally:
        cluster.end()


@pytest.fixture
def cluster(one_cluster: tuple[Cluster, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster, why = one_cluster
    if why:
        pytest.skip(why)
    for name, value in cluster.environ.items():
        monkeypatch.setenv(name, value)
    yield cluster
    cluster.run(cluster.program("scancel") or "", "--me")
    wait_until(lambda: cluster.run(cluster.program("squeue") or "", "-h"), lambda text: not text)


@pytest.fixture
def slurm_jobs(isolated: Path, cluster: Cluster) -> Jobs:
    """The verbs of who may use all of a Slurm, whose jobs run there unless they name another engine."""
    return Jobs.open(Settings.load(max_jobs=40, slurm_partitions=("any",), engine="slurm"))


@pytest.fixture
def jobs(isolated: Path) -> Jobs:
    """The verbs over the test's own state directory and tmux server."""
    return Jobs.open(Settings.load(max_jobs=40))


@pytest.fixture
def person(tmux: Tmux) -> Iterator[Callable[..., Person]]:
    """Attaches a person: `person(rows=24, columns=80).type("y\\r")`."""
    with contextlib.ExitStack() as leaving:

        def attach(target: str = "=mcp-jobs", *, rows: int = 24, columns: int = 80) -> Person:
            someone = Person(tmux, target=target, rows=rows, columns=columns)
            leaving.callback(someone.close)
            return someone

        yield attach


@pytest.fixture
def screen(isolated: Path) -> Callable[..., Screen]:
    """A person's whole terminal: `screen(rows=50, columns=200)` has attached by `tmux attach -t mcp-jobs`."""

    def attach(*argv: str, rows: int = 24, columns: int = 80) -> Screen:
        person = Screen(argv or ("tmux", "-u", "attach", "-t", "mcp-jobs"), rows=rows, columns=columns)
        wait_until(person.look, lambda text: text.strip())
        return person

    return attach


def remove(folder: Path) -> None:
    """A process that starts a program has no environment for a moment, so one may be missed, and write meanwhile."""
    deadline = time.monotonic() + 30
    while True:
        try:
            shutil.rmtree(folder)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def processes_of(folder: Path) -> list[psutil.Process]:
    """The live processes that were started with this test's TMUX_TMPDIR."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):  # not ours, or gone meanwhile
            if has_variable(pid, "TMUX_TMPDIR", str(folder)):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found


def has_variable(pid: int, name: str, value: str) -> bool:
    """psutil takes ten times as long, and each test looks at all processes of the machine more than once."""
    if not processes.LINUX:
        return psutil.Process(pid).environ().get(name) == value
    with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
        return f"\0{name}={value}\0".encode() in b"\0" + file.readall()


def end_processes(folder: Path) -> list[str]:
    """Ends the test's tmux servers, and with them its jobs; what then lives on is killed and named."""
    for socket in folder.glob("tmux-*/*"):
        with contextlib.suppress(subprocess.TimeoutExpired):  # a stopped server: ended by its pid below
            subprocess.run(["tmux", "-S", str(socket), "kill-server"], capture_output=True, timeout=5)
    for process in processes_of(folder):
        with contextlib.suppress(psutil.Error):
            if re.fullmatch("tmux(:.*)?", process.name()):  # not `tmuxjobs-job`
                process.kill()
    with contextlib.suppress(AssertionError):
        wait_until(lambda: processes_of(folder) or processes_of(folder), lambda running: not running)
        return []
    left = []
    for process in processes_of(folder):
        with contextlib.suppress(psutil.Error):
            left.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
            process.kill()
    deadline = time.monotonic() + 5
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left

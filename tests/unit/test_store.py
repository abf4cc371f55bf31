"""Records on disk: private, whole or not there, and never a reason to hang."""

import contextlib
import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import wait_until

from tmuxjobs import store as store_module
from tmuxjobs.errors import JobNotFound, StateError
from tmuxjobs.models import FORMAT, ExitRecord, JobSpec
from tmuxjobs.store import RECORD_BYTES, Store, slug, suffix

FORMAT_1 = Path(__file__).parent / "data" / "format-1"
EXIT = ExitRecord.model_validate_json((FORMAT_1 / "exit.json").read_bytes())
OUTSIDE = [
    "../x",
    "..",
    ".",
    "",
    "/etc",
    "a/b",
    "a/../b",
    "A",
    "a\n",
    "-a",
    "a--b",
    ".removed-a",
    "a" * 300,
    "\0",
    "#(x)",
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "state")
    store.prepare()
    return store


def spec(job_id: str = "build-3k7q") -> JobSpec:
    return EXIT.job.model_copy(update={"job_id": job_id})


def write_exit(folder: Path) -> None:
    (folder / "exit.json").write_text(EXIT.model_copy(update={"job": spec(folder.name)}).model_dump_json())


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """A write beyond it fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Ids


def test_suffix_is_never_given_twice() -> None:
    assert len({suffix(number) for number in range(100_000)}) == 100_000


def test_suffix_grows_before_it_would_repeat() -> None:
    around = [suffix(number) for number in range(32**4 - 1000, 32**4 + 1000)]
    assert len(set(around)) == 2000
    assert {len(one) for one in around} == {4, 5}
    assert len(suffix(32**4 + 32**5)) == 6


def test_number_is_never_given_twice_by_another_store_or_after_a_removal(store: Store) -> None:
    store.create(spec(), {})
    first = store.next_number()
    store.remove("build-3k7q")
    assert [store.next_number(), Store(store.root).next_number()] == [first + 1, first + 2]


@pytest.mark.parametrize("content", [b"", b"x", b"-1", b"1 2"])
def test_damaged_sequence_is_told_and_not_begun_again(store: Store, content: bytes) -> None:
    (store.root / "sequence").write_bytes(content)
    with pytest.raises(StateError, match="is damaged"):
        store.next_number()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("npm run dev", "npm-run-dev"),
        ("make -j8 && ./a.out", "make-j8-a-out"),
        ("  ", "job"),
        ("#(touch x)", "touch-x"),
        ("日本語", "job"),
        ("../../etc/passwd", "etc-passwd"),
        ("python -m http.server 8000 --bind 127.0.0.1", "python-m-http"),
        ("x" * 500, "x" * 20),
    ],
)
def test_slug_is_short_and_plain(text: str, name: str) -> None:
    assert slug(text) == name
    assert re.fullmatch(r"[a-z0-9-]{1,20}", name)


@pytest.mark.parametrize("job_id", OUTSIDE)
def test_no_id_leads_out_of_the_state_directory(store: Store, job_id: str) -> None:
    assert store.look(job_id) is None
    acts: list[Callable[[], object]] = [
        lambda: store.read(job_id),
        lambda: store.folder(job_id),
        lambda: store.remove(job_id),
        lambda: store.request_stop(job_id, signal="SIGTERM", grace_s=1),
    ]
    for act in acts:
        with pytest.raises(JobNotFound):
            act()


def test_unknown_job_names_the_nearest(store: Store) -> None:
    store.create(spec(), {})
    with pytest.raises(JobNotFound, match=r"No job 'buidl-3k7q'\. Did you mean 'build-3k7q'\?"):
        store.read("buidl-3k7q")


# Modes


@pytest.mark.parametrize("mask", [0, 0o077])
def test_everything_is_private_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        store = Store(tmp_path / "state")
        store.prepare()
        store.create(spec(), {"TOKEN": "secret"})
        store.request_stop("build-3k7q", signal="SIGTERM", grace_s=1)
        store.next_number()
        with store.lock():
            pass
    for path in [store.root, *store.root.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_state_directory_that_others_may_enter_is_closed(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    Store(tmp_path / "state").prepare()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("/tmp")], ids=["file", "symlink"])
def test_state_directory_that_is_none_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "state")
    with pytest.raises(StateError, match="TMUXJOBS_STATE_DIR"):
        Store(tmp_path / "state").prepare()


# Records


def test_job_is_read_as_it_was_created(store: Store) -> None:
    folder = store.create(spec(), {"A": "1", "B": "ü=\n"})
    assert store.read("build-3k7q").job == spec()
    assert (folder / "env").read_bytes() == "A=1\0B=ü=\n".encode()
    assert sorted(os.listdir(folder)) == ["env", "exit.room", "job.json", "run.room"]


@pytest.mark.parametrize("name", ["job.json", "run.json", "exit.json"])
@pytest.mark.parametrize(
    "replace",
    [
        lambda path: path.symlink_to(FORMAT_1 / path.name),
        os.mkfifo,
        Path.mkdir,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\0" * 100),
        lambda path: path.write_bytes(b"[]"),
        lambda path: path.write_bytes(b"{}"),
        lambda path: path.write_bytes(b"[" * 200_000),
        lambda path: path.write_bytes((FORMAT_1 / path.name).read_bytes()[:-20]),
        lambda path: path.write_bytes(b" " * RECORD_BYTES + (FORMAT_1 / path.name).read_bytes()),
        lambda path: path.write_text(json.dumps({"format": FORMAT + 1})),
    ],
    ids=["symlink", "fifo", "folder", "empty", "nul", "list", "no fields", "deep", "cut off", "too big", "newer"],
)
def test_what_is_no_record_is_one_clear_error_and_never_blocks(
    store: Store, name: str, replace: Callable[[Path], object]
) -> None:
    folder = store.create(spec(), {})
    (folder / name).unlink(missing_ok=True)
    replace(folder / name)
    with pytest.raises(StateError) as caught:
        store.read("build-3k7q")
    assert str(folder / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_record_of_a_newer_format_says_so(store: Store) -> None:
    folder = store.create(spec(), {})
    (folder / "job.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(StateError, match="newer tmuxjobs"):
        store.read("build-3k7q")


def test_exit_record_alone_tells_all_of_an_ended_job(store: Store) -> None:
    folder = store.create(spec(), {})
    write_exit(folder)
    (folder / "job.json").unlink()
    record = store.read("build-3k7q")
    assert record.exit is not None
    assert (record.job, record.run) == (record.exit.job, record.exit.run)


def test_ended_job_that_another_server_removed_is_gone(store: Store) -> None:
    write_exit(store.create(spec(), {}))
    store.read("build-3k7q")
    Store(store.root).remove("build-3k7q")
    assert store.look("build-3k7q") is None


def test_unfinished_jobs_are_those_without_an_exit_record(store: Store) -> None:
    write_exit(store.create(spec("done-1"), {}))
    store.create(spec("runs-2"), {})
    assert [record.job.job_id for record in store.unfinished()] == ["runs-2"]


@pytest.mark.parametrize("env", [{"A": "\ud800"}, {"A": "x" * 200}], ids=["no UTF-8", "no room"])
def test_creation_that_fails_leaves_nothing(store: Store, env: dict[str, str]) -> None:
    with no_file_longer_than(100), pytest.raises((StateError, UnicodeEncodeError)):
        store.create(spec(), env)
    assert list(store.jobs.iterdir()) == []


def test_replaced_file_stays_whole_when_writing_fails(store: Store) -> None:
    store.next_number()
    with no_file_longer_than(0), pytest.raises(StateError):
        store.next_number()
    assert (store.root / "sequence").read_text() == "1"
    assert sorted(os.listdir(store.root)) == ["jobs", "sequence"]


def test_older_request_to_stop_is_not_taken_for_one_that_can_not_be_written(store: Store) -> None:
    folder = store.create(spec(), {})
    store.request_stop("build-3k7q", signal="SIGTERM", grace_s=1)
    with no_file_longer_than(10):
        store.request_stop("build-3k7q", signal="SIGKILL", grace_s=0)
    assert not (folder / "stop.json").exists()


def test_full_disk_is_told_as_such(store: Store) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="space") as caught:
        full.write(b"x")
    assert "is full; free some space" in str(store_module._unusable(store.root, caught.value))


# Removal


def test_removed_job_is_no_job(store: Store) -> None:
    store.create(spec(), {})
    store.remove("build-3k7q")
    assert (store.ids(), list(store.jobs.iterdir())) == ([], [])


def test_half_removed_folder_is_no_job_and_goes_with_the_next(store: Store) -> None:
    store.create(spec(), {}).rename(store.jobs / ".removed-build-3k7q")
    assert (store.ids(), store.look("build-3k7q")) == ([], None)
    store.create(spec("next-1"), {})
    store.remove("next-1")
    assert list(store.jobs.iterdir()) == []


def test_folder_without_a_record_is_no_job(store: Store) -> None:
    (store.jobs / "build-3k7q").mkdir()
    (store.jobs / "file-1").touch()
    assert (store.look("build-3k7q"), store.look("file-1"), store.unfinished()) == (None, None, [])


def test_removing_twice_is_removing(store: Store) -> None:
    store.create(spec(), {})
    store.remove("build-3k7q")
    store.remove("build-3k7q")


# The lock


def test_wait_for_the_lock_is_bounded_and_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "LOCK_S", 0.05)
    with store.lock(), pytest.raises(StateError, match="has held"), Store(store.root).lock():
        pass


def test_lock_is_free_after_an_error_inside(store: Store) -> None:
    with contextlib.suppress(ZeroDivisionError), store.lock():
        raise ZeroDivisionError
    with store.lock():
        pass


def test_lock_is_freed_when_its_holder_is_killed(store: Store) -> None:
    code = "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), 2); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", code, store.root / "lock"]) as holder:
        wait_until(lambda: is_locked(store.root / "lock"))
        holder.send_signal(signal.SIGKILL)
        with store.lock():
            pass


def is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

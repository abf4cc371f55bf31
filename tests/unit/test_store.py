"""Records on disk: private, whole or not there, and never a reason to hang."""

import contextlib
import fcntl
import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import looks_at, wait_until

from tmuxjobs.contract import FORMAT
from tmuxjobs.errors import JobNotFound, StateError
from tmuxjobs.files import RECORD_BYTES
from tmuxjobs.models import Caller, ExitRecord, JobSpec
from tmuxjobs.store import disk
from tmuxjobs.store import store as store_module
from tmuxjobs.store.disk import MARKER, Unchanged, discard, is_state_directory, unusable
from tmuxjobs.store.index import number_of, slug, suffix
from tmuxjobs.store.store import Store

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


@pytest.mark.parametrize("salt", [0, 1, 0xFFFFFFFF, 1 << 32, 0x9A3F_0000_71B2_44C5])
def test_suffix_with_any_salt_is_never_given_twice_and_tells_its_number(salt: int) -> None:
    numbers = [*range(50_000), *range(32**4 - 1000, 32**4 + 1000), *range(32**5, 32**5 + 1000), 10**12]
    given = [suffix(number, salt) for number in numbers]
    assert len(set(given)) == len(numbers)
    assert [number_of(one, salt) for one in given] == numbers


@pytest.mark.parametrize("text", ["", "3k7", "3k7i", "none", "3K7Q", "x" * 40, "日本語x"])
def test_what_is_no_suffix_has_no_number(text: str) -> None:
    assert {number_of(text), number_of(text, 5)} == {-1}


def test_two_state_directories_give_different_ids(tmp_path: Path) -> None:
    given = []
    for name in ("one", "two"):
        store = Store(tmp_path / name)
        store.prepare()
        given.append({store.index.suffix(store.next_number()) for _ in range(200)})
    assert len(given[0]) == len(given[1]) == 200
    assert len(given[0] & given[1]) < 10


def test_directory_with_unsalted_ids_goes_on_with_others_that_were_never_given(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.prepare()
    (store.root / "sequence").write_text("30000")  # as 0.1.0 left it: every id up to here may have been used
    old = {suffix(number) for number in range(1, 30_001)}
    new = [store.index.suffix(number) for number in (store.next_number() for _ in range(300))]
    assert not old & set(new)
    ids = [f"job-{one}" for one in (suffix(1), suffix(29_999), suffix(30_000), *new)]
    assert store.index.newest(sorted(ids)) == ids[::-1]
    assert Store(store.root).index.suffix(29_999) == suffix(29_999)


def test_number_is_never_given_twice_by_another_store_or_after_a_removal(store: Store) -> None:
    store.create(spec(), {})
    first = store.next_number()
    store.remove("build-3k7q")
    assert [store.next_number(), Store(store.root).next_number()] == [first + 1, first + 2]


@pytest.mark.parametrize("content", [b"", b"x", b"-1", b"1 2", b"7" * 5000, "٣".encode()])
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


def test_state_directory_that_others_may_enter_is_closed(store: Store) -> None:
    store.root.chmod(0o755)
    Store(store.root).prepare()
    assert store.root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("/tmp"), os.mkfifo])
def test_state_directory_that_is_none_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "state")
    with pytest.raises(StateError, match="TMUXJOBS_STATE_DIR"):
        Store(tmp_path / "state").prepare()


# The folder of someone else


def tree(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that is below, with its mode, its inode and its content."""
    found = {}
    for path in [root, *root.rglob("*")]:
        facts = path.lstat()
        found[str(path)] = facts.st_mode, facts.st_ino, path.read_bytes() if path.is_file() else b""
    return found


def make_files(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(mode=0o755)
        else:
            path.write_text("theirs")
            path.chmod(0o644)
    return root


@pytest.mark.parametrize(
    "names",
    [
        ("jobs/nightly/data.csv", "jobs/report-2026/x", "sequence.fasta"),
        ("notes.txt",),
        ("jobs/",),
        ("jobs/nightly-3k7q/",),
        ("jobs/nightly-3k7q/job.json",),
        ("jobs/.removed-old-3k7q/x",),
        ("sequence", "journal", "lock", "http-token"),
        ("jobs/x-1/output.log", "sequence"),
        ("sequence.1.0123abcd",),
        (f"{MARKER}.1.0123abcd", "data.csv"),
    ],
)
def test_folder_with_files_of_someone_else_is_refused_and_stays_as_it_is(tmp_path: Path, names: tuple[str]) -> None:
    root = make_files(tmp_path / "project", *names)
    root.chmod(0o755)
    before = tree(root)
    with pytest.raises(
        StateError, match=r"is not a state directory of tmuxjobs; nothing was changed there\. Set"
    ) as caught:
        Store(root).prepare()
    assert "\n" not in str(caught.value)
    assert tree(root) == before


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (lambda path: path.symlink_to("/dev/null"), "is a link"),
        (os.mkfifo, "is a FIFO"),
        (Path.mkdir, "is a directory"),
        (Path.touch, "is damaged"),
        (lambda path: path.write_bytes(b"\xff\0"), "is damaged"),
        (lambda path: path.write_bytes(b"[" * 100_000), "is damaged"),
        (lambda path: path.write_text('{"name": "tmuxjobs", "version": 3}'), "is damaged"),
        (lambda path: path.write_text("7" * 5000), "is damaged"),
        (lambda path: path.write_text(json.dumps({"tmuxjobs": "x", "format": FORMAT + 1})), "newer tmuxjobs; use that"),
        (lambda path: path.write_bytes(b" " * (RECORD_BYTES + 1)), "is larger than"),
    ],
    ids=["link", "fifo", "folder", "empty", "binary", "deep", "other", "huge number", "newer", "large"],
)
def test_marker_that_is_none_refuses_the_folder(tmp_path: Path, put: Callable[[Path], object], said: str) -> None:
    root = make_files(tmp_path / "state", "jobs/x-1/data.csv")
    root.chmod(0o755)
    put(root / MARKER)
    before = tree(root / "jobs")
    with pytest.raises(StateError, match=said) as caught:
        Store(root).prepare()
    assert ("\n" not in str(caught.value), "TMUXJOBS_STATE_DIR" in str(caught.value)) == (True, True)
    assert tree(root / "jobs") == before
    assert root.stat().st_mode & 0o777 == 0o755


def older(root: Path) -> Store:
    """A state directory as 0.1.0 left it."""
    store = Store(root)
    store.prepare()
    (root / MARKER).unlink()
    store.pane.rmdir()
    return store


def test_state_directory_of_0_1_0_gets_the_marker_by_a_record(tmp_path: Path) -> None:
    store = older(tmp_path / "state")
    write_exit(store.create(spec(), {}))
    make_files(store.root, "notes.txt", "jobs/nightly/data.csv")
    Store(store.root).prepare()
    assert (store.root / MARKER).exists()
    assert store.read("build-3k7q").exit is not None


@pytest.mark.parametrize(
    "leave",
    [
        lambda store: None,
        lambda store: [store.next_number(), (store.root / "journal").touch(mode=0o600)],
        lambda store: (store.root / "http-token").touch(mode=0o600),
        lambda store: [(store.jobs / "x-1").mkdir(mode=0o700), (store.jobs / "x-1" / "run.room").touch(mode=0o600)],
        lambda store: (store.root / "bug-17.txt").touch(mode=0o600),
    ],
    ids=["new", "no job", "token", "half made", "bug"],
)
def test_state_directory_of_0_1_0_without_jobs_gets_the_marker(
    tmp_path: Path, leave: Callable[[Store], object]
) -> None:
    store = older(tmp_path / "state")
    with store.lock():
        leave(store)
    Store(store.root).prepare()
    assert (store.root / MARKER).exists()


@pytest.mark.parametrize(("name", "text"), [("journal", "Dear diary\n"), ("sequence", "ACGT\n"), ("lock", "mine")])
def test_private_file_of_a_person_is_not_taken_for_one_of_0_1_0(tmp_path: Path, name: str, text: str) -> None:
    store = older(tmp_path / "state")
    (store.root / name).touch(mode=0o600)
    (store.root / name).write_text(text)
    with pytest.raises(StateError, match="nothing was changed there"):
        Store(store.root).prepare()
    assert {path.name: path.is_dir() or path.read_text() for path in store.root.iterdir()} == {"jobs": True, name: text}


def test_folder_is_claimed_once_by_many_at_a_time(tmp_path: Path) -> None:
    closed, gate = os.pipe()
    children = []
    for _ in range(6):
        if (pid := os.fork()) == 0:
            try:
                os.close(gate)
                os.read(closed, 1)
                store = Store(tmp_path / "a" / "state")
                store.prepare()
                os._exit(0 if is_state_directory(store.root) else 1)
            finally:
                os._exit(2)
        children.append(pid)
    os.close(closed)
    os.close(gate)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 6


def killer(number: int) -> Callable[[object, str, object], None]:
    calls = itertools.count(1)

    def look(_: object, event: str, called: object) -> None:
        if event == "c_call" and getattr(called, "__module__", "") == "posix" and next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return look


def killed_at_each_call(act: Callable[[], object]) -> Iterator[int]:
    """Runs it in a process that is killed at its first call of the system, then at its second, until it ends."""
    for number in range(1, 1000):
        pid = os.fork()
        if pid == 0:
            try:
                sys.setprofile(killer(number))
                act()
            finally:
                os._exit(0)
        status = os.waitpid(pid, 0)[1]
        yield number
        if os.WIFEXITED(status):
            return
    raise AssertionError("it does not end")


def test_preparing_that_is_killed_anywhere_can_be_done_again(tmp_path: Path) -> None:
    root = tmp_path / "state"
    for number in killed_at_each_call(lambda: Store(root).prepare()):
        Store(root).prepare()
        assert is_state_directory(root), number
        shutil.rmtree(root)
    assert number > 5


@pytest.mark.parametrize("record", ["exit.json", "job.json"])
@pytest.mark.parametrize("theirs", [True, False])
def test_removal_that_is_killed_anywhere_is_finished_by_the_next(store: Store, record: str, theirs: bool) -> None:
    def remove() -> None:
        with store.lock():
            store.remove("build-3k7q")

    def again() -> None:
        folder = store.create(spec(), {})
        if record == "exit.json":
            write_exit(folder)
        (folder / "output.log").write_text("out")
        os.mkfifo(folder / "recorder")
        if theirs:
            (folder / "notes.txt").write_text("theirs")

    again()
    for number in killed_at_each_call(remove):
        other = Store(store.root)
        if (found := other.look("build-3k7q")) is not None:
            assert (found.exit is not None) == (record == "exit.json"), number
            remove()
        with other.lock():
            for path in other.half_made():
                discard(other.root, path)
        left = [str(path.relative_to(store.jobs)) for path in store.jobs.rglob("*") if path.is_file()]
        assert left == ["build-3k7q/notes.txt"] * theirs, number
        assert other.ids() == ["build-3k7q"] * theirs, number
        shutil.rmtree(store.jobs / "build-3k7q", ignore_errors=True)
        again()
    assert number > 10


def test_making_that_is_killed_anywhere_leaves_a_job_or_nothing(store: Store) -> None:
    def make() -> None:
        with store.lock():
            store.create(spec(), {"TOKEN": "secret"})

    for number in killed_at_each_call(make):
        other = Store(store.root)
        if other.look("build-3k7q") is None:
            with other.lock():
                for path in other.half_made():
                    discard(other.root, path)
            assert list(store.jobs.iterdir()) == [], number
        else:
            with other.lock():
                other.remove("build-3k7q")
    assert number > 10


def test_only_our_own_is_taken_for_half_made(store: Store) -> None:
    make_files(
        store.root,
        "sequence.fasta", "sequence.1.0123abcd", "journal.2026", "http-token.old", "jobs/nightly-3k7q/data.csv",
        "jobs/report-2026/", "jobs/env-3k7q/env", "jobs/rooms-3k7q/run.room", "jobs/.removed-build-3k7q/notes.txt",
        "jobs/.removed-x/", "jobs/.new-x-1/env", "jobs/logs-3k7q/output.log", "jobs/mine-3k7q/removed.json",
    )  # fmt: skip
    for path in store.root.rglob("*"):
        os.utime(path, (1, 1))
    before = tree(store.root)
    assert store.half_made() == []
    for job_id in store.ids():
        store.remove(job_id)
    assert tree(store.root) == before


def test_what_is_left_of_writing_goes_when_it_is_old(store: Store) -> None:
    left = [store.root / f"{name}.17.0123abcd" for name in ("sequence", "journal", "http-token", MARKER)]
    for path in left:
        path.touch(mode=0o600)
    assert store.half_made() == []
    for path in left:
        os.utime(path, (1, 1))
    assert sorted(store.half_made()) == sorted(left)


def test_file_of_someone_else_in_a_jobs_folder_stays_and_the_job_goes(store: Store) -> None:
    folder = store.create(spec(), {})
    write_exit(folder)
    make_files(folder, "notes.txt", "env.local.txt", "task.json.bak", "exit.json.old/x", "stderr.log/x")
    (folder / "output.log").symlink_to(folder / "notes.txt")
    store.remove("build-3k7q")
    assert (store.look("build-3k7q"), folder.is_dir()) == (None, True)
    assert sorted(path.name for path in folder.iterdir()) == [
        "env.local.txt", "exit.json.old", "notes.txt", "output.log", "stderr.log", "task.json.bak",
    ]  # fmt: skip
    assert store.half_made() == []


def test_only_our_own_files_are_told_as_open_to_others(store: Store) -> None:
    folder = store.create(spec(), {})
    make_files(store.root, "notes.txt", "jobs/nightly/output.log")
    make_files(folder, "notes.txt", "output.log")
    assert store.exposed() == [folder / "output.log"]


def test_a_server_remembers_a_bounded_number_of_ended_jobs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CACHED", 5)
    for number in range(20):
        write_exit(store.create(spec(f"build-{number}"), {}))
        store.read("build-0")
        store.read(f"build-{number}")
    assert list(store._ended) == ["build-16", "build-17", "build-18", "build-0", "build-19"]


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


# Jobs that have not ended


def finished(store: Store, count: int) -> None:
    for _ in range(count):
        folder = store.jobs / f"done-{store.index.suffix(store.next_number())}"
        folder.mkdir(mode=0o700)
        write_exit(folder)


def made(store: Store) -> str:
    """A job that has not ended, as `execute` makes it."""
    job_id = f"runs-{store.index.suffix(store.next_number())}"
    store.create(spec(job_id), {})
    return job_id


@pytest.mark.parametrize("count", [0, 100])
def test_unfinished_jobs_are_found_without_a_look_at_the_others(store: Store, count: int) -> None:
    finished(store, count)
    runs = made(store)
    ids: list[str] = []
    with looks_at(store.jobs) as seen:
        ids.extend(record.job.job_id for record in store.unfinished())
    assert ids == [runs]
    assert seen == [f"{runs}/job.json"]


def test_new_job_is_made_without_a_look_at_the_others(store: Store) -> None:
    made(store)
    finished(store, 100)
    with looks_at(store.jobs) as seen:
        made(store)
    assert "." not in seen
    assert not [path for path in seen if path.startswith("done-")]


def test_mark_goes_when_its_job_has_ended_or_is_removed(store: Store) -> None:
    ended, removed, runs = made(store), made(store), made(store)
    write_exit(store.folder(ended))
    store.remove(removed)
    assert store.unfinished_ids() == [runs] == store.index.marked()


def test_job_that_two_machines_marked_is_one(store: Store) -> None:
    runs = made(store)
    store.index.mark(runs, "0" * 16)
    store.complete_index(anew=True)
    assert store.unfinished_ids() == [runs]
    write_exit(store.folder(runs))
    assert (store.unfinished_ids(), store.index.marked()) == ([], [])


def test_jobs_of_an_older_tmuxjobs_are_found(store: Store) -> None:
    """It makes no marks, and it may go on beside this one."""
    finished(store, 3)
    old = made(store)
    shutil.rmtree(store.root / "open")
    for name in ("indexed", "salt"):
        (store.root / name).unlink()
    other = Store(store.root)
    assert other.unfinished_ids() == [old]
    new = made(other)
    assert set(other.unfinished_ids()) == {old, new} == set(other.index.marked())
    assert other.index.is_complete()
    other.create(spec("beside-1"), {})
    other.index.unmark("beside-1")
    (store.root / "sequence").write_text(str(int((store.root / "sequence").read_text()) + 1))
    assert set(other.unfinished_ids()) == {old, new, "beside-1"}
    third = made(other)
    assert set(other.unfinished_ids()) == {old, new, "beside-1", third} == set(other.index.marked())


def test_job_that_runs_has_a_mark_wherever_its_maker_was_killed(store: Store) -> None:
    def make() -> None:
        with store.lock():
            made(store)

    make()
    for number in killed_at_each_call(make):
        other = Store(store.root)
        running = {name for name in other.ids() if other.look(name) is not None}
        assert set(other.unfinished_ids()) == running, number
        assert not other.index.is_complete() or running <= set(other.index.marked()), number
        with other.lock():
            running.add(made(other))
        assert running == set(other.unfinished_ids()) == set(other.index.marked()) == set(other.ids()), number
        assert not [path for path in other.jobs.iterdir() if path.name.startswith(".")], number
        for name in running:
            other.remove(name)
    assert number > 20


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
    assert sorted(os.listdir(store.root)) == ["indexed", "jobs", "pane", "salt", "sequence", MARKER]


def test_older_request_to_stop_is_not_taken_for_one_that_cannot_be_written(store: Store) -> None:
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
    assert "is full; free some space" in str(unusable(store.root, caught.value))


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
    monkeypatch.setattr(disk, "LOCK_S", 0.05)
    with store.lock(), pytest.raises(StateError, match="has held"), Store(store.root).lock():
        pass


def test_lock_that_goes_from_hand_to_hand_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.lock():
        pass
    os.utime(store.root / "lock", ns=(0, 0))
    with store.lock():
        assert (store.root / "lock").stat().st_mtime_ns > 0
    monkeypatch.setattr(disk, "LOCK_S", 0.0)
    turns = itertools.count(1)
    monkeypatch.setattr(time, "sleep", lambda _: os.utime(store.root / "lock", ns=(0, next(turns))))
    monkeypatch.setattr(fcntl, "flock", lambda *_: None if next(turns) > 100 else refuse())
    with store.lock():
        pass


def refuse() -> None:
    raise BlockingIOError


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


@pytest.mark.parametrize(("settled_s", "reads"), [(-1.0, 1), (1000.0, 3)])
def test_file_that_has_not_changed_for_a_while_is_not_read_again(tmp_path: Path, settled_s: float, reads: int) -> None:
    known: Unchanged[str] = Unchanged(2, settled_s=settled_s)
    path, seen = tmp_path / "record", list[str]()

    def load() -> str:
        seen.append(path.read_text())
        return seen[-1]

    def look() -> str | None:
        return known.get(str(path), load)

    assert look() is None
    path.write_text("a")
    assert [look(), look(), look()] == ["a", "a", "a"]
    assert len(seen) == reads
    path.write_text("longer")
    assert look() == "longer"
    path.with_name("other").write_text("other")
    path.with_name("other").rename(path)
    assert look() == "other"
    path.unlink()
    assert look() is None


def test_callers_are_known_without_a_look_at_records(store: Store) -> None:
    agent = Caller(kind="agent", project="/p")
    store.create(spec("one").model_copy(update={"caller": agent}), {})
    store.create(spec("two"), {})
    other = Store(store.root)
    with looks_at(store.jobs) as seen:
        other.callers.refresh()
    assert (other.callers.known, seen) == ({"one": agent, "two": Caller()}, [])
    store.create(spec("three").model_copy(update={"caller": agent}), {})
    other.callers.refresh()
    assert other.callers.known["three"] is other.callers.known["one"]


def test_damaged_line_of_a_caller_is_passed_over(store: Store) -> None:
    store.callers.write({"one": Caller()})
    with (store.root / "callers").open("ab") as file:
        file.write(b'two {"kind": "agent"three {}\n\xff\nfour {}\nfive {"kind": "ag')
    store.callers.refresh()
    assert store.callers.known == {"one": Caller(), "four": Caller()}
    (store.root / "callers").unlink()
    store.callers.write({"six": Caller()})
    store.callers.refresh()
    assert "six" in store.callers.known


def test_callers_of_removed_jobs_go_once_they_are_the_most(store: Store) -> None:
    store.callers.write({f"job-{number}": Caller() for number in range(3000)})
    store.callers.keep({f"job-{number}" for number in range(2000)})
    assert len(store.callers.known) == 3000
    store.callers.keep({f"job-{number}" for number in range(100)})
    assert (store.root / "callers").read_text().count("\n") == len(store.callers.known) == 100
    other = Store(store.root)
    other.callers.refresh()
    assert other.callers.known == store.callers.known


def test_recorder_of_an_earlier_window_does_not_report_to_the_runner_of_the_next(store: Store) -> None:
    store.create(spec(), {})
    job_id = spec().job_id
    earlier = os.open(store.await_recorder(job_id), os.O_RDWR | os.O_NONBLOCK)
    runner = os.open(store.await_recorder(job_id), os.O_RDONLY | os.O_NONBLOCK)
    os.write(earlier, b'{"why": "eof"}\n')
    try:
        assert os.read(runner, 100) == b""
    finally:
        os.close(earlier)
        os.close(runner)


def test_file_in_the_place_of_a_fifo_stays(store: Store) -> None:
    store.create(spec(), {})
    job_id = spec().job_id
    path = store.await_recorder(job_id)
    path.unlink()
    path.write_text("kept")
    assert store.await_recorder(job_id).read_text() == "kept"

"""The recorder, run for real: a pipe in the place of tmux, a FIFO in the place of the runner."""

import array
import contextlib
import fcntl
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import wait_until

from tmuxjobs.contract import FIRST
from tmuxjobs.pane import recorder
from tmuxjobs.system.processes import LINUX
from tmuxjobs.system.table import links
from tmuxjobs.text.log import Log, Punched

NONCE = "4984942275787820586"
END, OUT, ERR = (b"\x1b]7717;%s;%d\x07" % (NONCE.encode(), kind) for kind in (0, 1, 2))
# Runs it with something changed that no test can wait for or bring about.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from tmuxjobs.pane import log, recorder
recorder.log = log
exec(sys.argv[2], vars(recorder))
recorder.main(*sys.argv[3:])
"""


class Recording:
    """A recorder at work. `change` is a statement run in its module first."""

    def __init__(
        self, folder: Path, *, limit: int = 0, separate: bool = False, change: str = "", first: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        (folder / "recorder").unlink(missing_ok=True)
        os.mkfifo(folder / "recorder")
        self.fifo = os.open(folder / "recorder", os.O_RDONLY | os.O_NONBLOCK)
        theirs, ours = socket.socketpair()  # as tmux has it
        self.theirs, self.input = theirs.detach(), ours.detach()
        program = ["-c", PROGRAM, str(Path(__file__).parents[2]), change]
        argv = [*first, sys.executable, "-I", "-S", *program, str(folder), NONCE, str(limit), str(int(separate))]
        self.process = subprocess.Popen(argv, stdin=self.theirs)
        self.said = b""

    def report(self, *passing: str) -> Any:
        """The next report to the runner but those."""
        while True:
            while b"\n" not in self.said:
                assert select.select([self.fifo], [], [], 60)[0], "no report"
                piece = os.read(self.fifo, 4096)
                assert piece, "the recorder is gone without a report"
                self.said += piece
            line, self.said = self.said.split(b"\n", 1)
            report = json.loads(line)
            # In place of the tmux server it is we who started it.
            assert report["why"] in ("prints", "attempt") or report.pop("server") == os.getpid()
            if report["why"] not in (passing or ("prints",)):
                return report

    def feed(self, *pieces: bytes) -> None:
        """Each piece is read by itself."""
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self.input, rest) :]
            wait_until(self.unread, lambda size: size == 0)

    def feed_on(self, data: bytes | memoryview) -> None:
        """As fast as it is taken."""
        while data:
            data = data[os.write(self.input, data) :]

    def unread(self) -> int:
        size = array.array("i", [0])
        fcntl.ioctl(self.theirs, termios.FIONREAD, size)
        return size[0]

    def end_input(self) -> None:
        os.close(self.input)
        self.input = -1

    def run(self, *pieces: bytes) -> Any:
        """Feed it all, then the end mark; its last report."""
        assert self.report() == {"why": "ready", "pid": self.process.pid}
        self.feed(*pieces)
        os.write(self.input, END)
        report = self.report()
        assert self.process.wait(60) == 0
        return report

    def log(self, name: str = "output.log") -> bytes:
        return (self.folder / name).read_bytes()

    def gaps(self, name: str = "output.log") -> list[list[int]]:
        text = (self.folder / name).with_suffix(".gaps").read_text().strip()
        return [gap[:2] for gap in json.loads(text)["gaps"]] if text else []

    def stream(self, name: str = "output.log") -> bytes:
        """What is kept of the stream at its offsets, and NULs where there are gaps."""
        while True:
            with Log(self.folder / name) as log, contextlib.suppress(Punched):  # a gap was listed just now: look again
                found = log.pieces(0, log.end)
                return b"".join(bytes(until - at) if gone else log.read(at, until) for at, until, gone in found)

    def close(self) -> None:
        for fd in (self.fifo, self.theirs, self.input):
            if fd >= 0:
                os.close(fd)
        self.fifo = self.theirs = self.input = -1
        self.process.kill()
        self.process.wait(60)


Record = Callable[..., Recording]


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    begun: list[Recording] = []

    def begin(**options: Any) -> Recording:
        begun.append(Recording(**{"folder": tmp_path, **options}))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()


def numbered(size: int) -> bytes:
    """Lines of 16 bytes that tell their offset."""
    return b"".join(b"%015d\n" % offset for offset in range(0, size, 16))


def sorted_by_kind(*pieces: bytes) -> dict[bytes, bytes]:
    """What the splitter makes of the pieces: {kind: bytes}."""
    splitter = recorder.Splitter(NONCE)
    found: dict[bytes, bytes] = {}
    for piece in pieces:
        for kind, data in splitter.feed(piece):
            found[kind] = found.get(kind, b"") + data
    found[splitter.kind] = found.get(splitter.kind, b"") + splitter.held
    return {kind: data for kind, data in found.items() if data}


# Marks


def test_everything_before_the_end_mark_is_in_the_log_and_nothing_after_it(record: Record) -> None:
    recording = record()
    report = recording.run(b"one\r\n", b"two", END + b"[the window's own line]")
    assert recording.log() == b"one\r\ntwo"
    assert report == {"why": "end", "logs": {"output.log": {"bytes": 8, "dropped_bytes": 0}}}


def test_mark_that_comes_byte_by_byte_never_reaches_the_log(record: Record) -> None:
    recording = record(separate=True)
    recording.run(b"a", *(bytes([byte]) for byte in ERR + b"b" + OUT), b"c")
    assert (recording.log(), recording.log("stderr.log")) == (b"ac", b"b")


def test_mark_split_anywhere_is_a_mark() -> None:
    stream = b"out" + ERR + b"\x1b[31merr\x1b" + OUT + b"\x1b]0;title\x07out" + END + b"after"
    whole = {b"1": b"out\x1b]0;title\x07out", b"2": b"\x1b[31merr\x1b"}
    for first in range(len(stream)):
        second = min(first + 3, len(stream))
        kinds = sorted_by_kind(stream[:first], stream[first:second], stream[second:])
        assert {kind: data for kind, data in kinds.items() if kind != b"0"} == whole, first


@pytest.mark.parametrize(
    "data", [b"\x1b", b"\x1b]7717;", END[:-2], b"\x1b]7717;1;0\x07", b"\x1b\x1b]7717;" * 3, b"]7717;"]
)
def test_what_only_begins_like_a_mark_is_output(data: bytes) -> None:
    for at in range(len(data) + 1):
        assert sorted_by_kind(data[:at], data[at:]) == {b"1": data}


def test_beginning_of_a_mark_is_kept_when_the_input_ends(record: Record) -> None:
    recording = record()
    recording.report()
    recording.feed(b"a" + END[:-1])
    recording.end_input()
    assert recording.report()["why"] == "eof"
    assert recording.log() == b"a" + END[:-1]


def test_stderr_goes_into_a_file_of_its_own(record: Record) -> None:
    recording = record(separate=True)
    report = recording.run(b"1" + ERR + b"2" + OUT + b"3", ERR + b"4" + OUT)
    assert (recording.log(), recording.log("stderr.log")) == (b"13", b"24")
    assert {name: facts["bytes"] for name, facts in report["logs"].items()} == {"output.log": 2, "stderr.log": 2}


def test_without_a_file_for_stderr_both_are_in_one(record: Record) -> None:
    recording = record()
    recording.run(b"1" + ERR + b"2" + OUT + b"3")
    assert recording.log() == b"123"
    assert not (recording.folder / "stderr.log").exists()


# The bound


@pytest.mark.parametrize("limit", [65536, 1 << 20])
@pytest.mark.parametrize("piece", [1000, 1 << 20])
def test_bounded_log_keeps_first_and_newest_part_at_their_offsets(record: Record, limit: int, piece: int) -> None:
    data = numbered(3 * (1 << 20) + 16)
    recording = record(limit=limit)
    pieces = [data[at : at + piece] for at in range(0, 20 * piece, piece)] if piece < 65536 else []
    rest = data[sum(map(len, pieces)) :]
    report = recording.run(*pieces, rest)["logs"]["output.log"]
    ((start, end),) = recording.gaps()
    note = b"[tmuxjobs: %s bytes are missing here: limit]\n" % f"{end - start:,}".encode()
    assert recording.log() == data[:start] + note + data[end:]
    assert recording.stream() == data[:start] + bytes(end - start) + data[end:]
    assert (report["bytes"], report["dropped_bytes"]) == (len(data), end - start)
    assert report["lost"] == {"limit": end - start}
    assert start >= limit * 0.4
    assert len(data) - end >= limit * 0.2


@pytest.mark.parametrize("limit", [65536, 1 << 20])
def test_bounded_log_takes_no_more_of_the_disk_than_its_limit(record: Record, limit: int) -> None:
    recording = record(limit=limit)
    recording.report()
    most = 0
    for at in range(0, 1500000, 60000):
        recording.feed(bytes(60000))
        most = max(most, wait_until(lambda: bytes_on_disk(recording.folder)))
        # ext4 may take a block of its own to map a file of many pieces.
        assert most <= limit + 4096, at


def bytes_on_disk(folder: Path) -> int:
    """Of the log's files; 0 when one goes just now. One that gets another name is seen twice, and counted once."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for path in folder.glob("output.*[!s]"):
            facts = path.stat()
            found[facts.st_ino] = facts.st_blocks * 512
        return sum(found.values())
    return 0


def test_log_is_text_for_whoever_reads_or_follows_it_while_it_is_bounded(record: Record, tmp_path: Path) -> None:
    recording, data = record(limit=1 << 20), numbered(8 << 20)
    recording.report()
    recording.feed(data[:1024])
    log, followed = tmp_path / "output.log", tmp_path / "followed"
    with followed.open("wb") as out:
        follower = subprocess.Popen(["tail", "-n", "+1", "-f", log], stdout=out, stderr=subprocess.DEVNULL)
    try:
        wait_until(followed.read_bytes)
        for at in range(1024, len(data), 65536):
            recording.feed(data[at : at + 65536])
            for path in (log, tmp_path / "output.first.log"):
                assert b"\0" not in (path.read_bytes() if path.exists() else b"")
        assert log.read_bytes().startswith(b"[tmuxjobs: the newest output; ")
        assert (tmp_path / "output.first.log").read_bytes() == data[: 1 << 19]
        recording.feed(b"the end\n")
        wait_until(followed.read_bytes, lambda seen: seen.endswith(b"the end\n"))
        assert followed.read_bytes().startswith(data[: 1 << 16])
    finally:
        follower.kill()
        follower.wait()
    os.write(recording.input, END)
    recording.report()
    assert subprocess.run(["grep", "^0000.*16$", log], capture_output=True, check=True).stdout.count(b"\n") > 100
    assert subprocess.run(["grep", "the end", log], capture_output=True, check=True).stdout == b"the end\n"
    assert {path.name for path in tmp_path.glob("output.*")} == {"output.log", "output.gaps"}


def test_one_who_reads_while_recorders_are_killed_sees_what_was_printed(record: Record, tmp_path: Path) -> None:
    data, sent = numbered(2 << 20), 0
    (tmp_path / "output.log").touch()
    for part in range(1, 6):
        recording = record(limit=200_000)
        recording.report()
        with Log(tmp_path / "output.log") as log:
            sent = log.end
        for at in range(sent, part * len(data) // 5, 30_000):
            recording.feed(data[at : min(at + 30_000, part * len(data) // 5)])
            with Log(tmp_path / "output.log") as log, contextlib.suppress(Punched):
                for begin, until, gone in log.pieces(0, log.end):
                    assert gone or log.read(begin, until) == data[begin:until]
        if part < 5:
            recording.process.kill()
            recording.process.wait(60)
    os.write(recording.input, END)
    assert recording.report()["logs"]["output.log"]["bytes"] == len(data)
    ((start, end),) = recording.gaps()
    assert recording.stream() == data[:start] + bytes(end - start) + data[end:]
    assert b"\0" not in recording.log()


def test_character_that_a_gap_cuts_is_gone_with_it(record: Record) -> None:
    recording = record(limit=65536)
    recording.run(("日" * 20 + "\n").encode() * 10_000)
    text = recording.log().decode()  # raises for half a character
    assert "bytes are missing here: limit]\n" in text
    ((start, end),) = recording.gaps()
    assert recording.log().startswith(recording.stream()[:start])
    assert recording.log().endswith(recording.stream()[end:])


def test_log_within_its_limit_has_no_gap(record: Record) -> None:
    recording = record(limit=65536)
    report = recording.run(numbered(48 * 1024))
    assert (recording.gaps(), report["logs"]["output.log"]["dropped_bytes"]) == ([], 0)
    assert recording.log() == numbered(48 * 1024)


def test_where_files_have_no_holes_the_first_part_is_kept(record: Record) -> None:
    recording = record(limit=65536, change="def punch(*_): raise OSError\nlog.punch = punch")
    data = numbered(1 << 20)
    report = recording.run(data)["logs"]["output.log"]
    ((size, end),) = recording.gaps()
    assert (size >= 32768, end) == (True, len(data))
    assert recording.log().startswith(data[:size] + b"[tmuxjobs: ")
    assert recording.stream() == data[:size] + bytes(end - size)
    assert report == {"bytes": end, "dropped_bytes": end - size, "lost": {"limit": end - size}}
    assert (recording.folder / "output.log").stat().st_blocks * 512 <= 65536


# A sick disk


def no_file_longer_than(blocks: int) -> tuple[str, ...]:
    """Words before a command: its writes beyond that many blocks of 512 bytes fail, as on a full disk."""
    return ("/bin/sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh")


def test_full_disk_drops_and_counts_but_never_blocks(record: Record) -> None:
    recording = record(first=no_file_longer_than(64))
    data = numbered(1 << 20)
    report = recording.run(data)["logs"]["output.log"]
    ((size, end),) = recording.gaps()
    assert 0 < size < end == len(data)
    assert recording.stream() == data[:size] + bytes(end - size)
    assert report == {"bytes": end, "dropped_bytes": end - size, "lost": {"disk full": end - size}}


NEARLY_FULL = """
class Facts:
    f_blocks, f_frsize, f_bavail = 1 << 28, 4096, 1 << 18
def fstatvfs(fd):
    Facts.f_bavail = (1 << 18) + 100 - 200 * os.path.exists(sys.argv[3] + '/low')
    return Facts
os.fstatvfs = fstatvfs
log.FREE_CHECK_S = 0
"""


def test_log_stops_to_grow_while_too_little_of_the_disk_is_free(record: Record) -> None:
    recording = record(change=NEARLY_FULL)
    recording.report()
    (recording.folder / "low").touch()
    recording.feed(numbered(1 << 16))  # the first of each log is kept in any case
    wait_until(lambda: len(recording.stream()), lambda size: size == 1 << 16)
    recording.feed(b"lost")
    wait_until(recording.gaps, lambda gaps: gaps == [[1 << 16, (1 << 16) + 4]])
    wait_until(recording.log, lambda log: b"not kept: disk full" in log)
    (recording.folder / "low").unlink()
    recording.feed(b"kept")
    os.write(recording.input, END)
    assert recording.report()["logs"]["output.log"]["lost"] == {"disk full": 4}
    assert recording.log() == numbered(1 << 16) + b"[tmuxjobs: 4 bytes are missing here: disk full]\nkept"


def test_recorder_that_gets_no_thread_is_not_ready(record: Record) -> None:
    refuse = "import _thread\ndef refuse(*_): raise RuntimeError\n_thread.start_new_thread = refuse"
    recording = record(change=refuse)
    assert recording.report() == {"why": "failed", "error": "Resource temporarily unavailable"}
    assert recording.process.wait(60) == 1


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_recorder_that_comes_before_its_runner_waits_for_it(tmp_path: Path) -> None:
    fifo = tmp_path / FIRST
    os.mkfifo(fifo)
    main = [sys.executable, "-I", "-S", "-c", PROGRAM, str(Path(__file__).parents[2]), "FIRST_S = 60.0"]
    argv = [*main, str(tmp_path), NONCE, "0", "0", FIRST]
    program = ["sh", "-c", 'fifo=$1; shift; exec "$@" 3<>"$fifo"', "sh", str(fifo), *argv]
    with subprocess.Popen(program, stdin=subprocess.PIPE) as process:

        def held() -> list[int]:
            """Its descriptors on the FIFO; there is a moment at which one is closed that was listed."""
            with contextlib.suppress(FileNotFoundError):
                return [fd for fd, name in links(process.pid).items() if name == str(fifo)]
            return []

        wait_until(held, lambda fds: fds and 3 not in fds)
        assert os.listdir(tmp_path) == [FIRST]
        runner = os.open(fifo, os.O_RDONLY)
        said = json.loads(os.read(runner, 4096))
        assert said == {"why": "ready", "server": os.getpid(), "pid": process.pid}
        os.close(runner)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def test_second_recorder_goes_on_at_the_offset_where_the_first_dropped(record: Record) -> None:
    data = numbered(1 << 20)
    first = record(first=no_file_longer_than(64))
    first.run(data)
    second = record()
    report = second.run(b"later")
    assert second.stream()[len(data) :] == b"later"
    assert second.log().endswith(b"bytes are missing here: disk full]\nlater")
    assert report["logs"]["output.log"]["bytes"] == len(data) + 5
    assert second.gaps() == first.gaps()


def test_second_recorder_goes_on_where_a_killed_one_was(record: Record) -> None:
    first = record()
    first.report()
    first.feed(b"one ")
    wait_until(first.log, lambda log: log == b"one ")
    first.process.send_signal(signal.SIGKILL)
    second = record()
    assert second.run(b"two")["logs"]["output.log"]["bytes"] == 7
    assert second.log() == b"one two"


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("/dev/null")], ids=["folder", "symlink"])
def test_log_that_cannot_be_opened_is_reported(record: Record, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "output.log")
    recording = record()
    report = recording.report()
    assert report["why"] == "failed"
    assert report["error"].startswith("output.log: ")
    assert recording.process.wait(60) == 1


def test_list_of_gaps_that_cannot_be_read_is_reported(record: Record, tmp_path: Path) -> None:
    (tmp_path / "output.gaps").write_text("no json")
    recording = record()
    assert recording.report()["why"] == "failed"
    assert recording.process.wait(60) == 1


# Somebody else at the log


def cut(path: Path) -> None:
    os.truncate(path, 3)


def edit(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"X")


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace(path: Path) -> None:
    path.with_name("new").write_bytes(b"other")
    path.with_name("new").replace(path)


def move(path: Path) -> None:
    path.rename(path.with_name("moved"))


def link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


HARM = {
    cut: (r"was cut to 3 bytes at byte 8", [[3, 8]]),
    edit: (r"another program wrote into NAME", []),
    append: (r"another program wrote into NAME", []),
    replace: (r"was replaced by another file at byte 8", [[5, 8]]),
    move: (r"was removed or moved at byte 8", [[0, 8]]),
    Path.unlink: (r"was removed or moved at byte 8", [[0, 8]]),
}


@pytest.mark.parametrize("name", ["output.log", "stderr.log"])
@pytest.mark.parametrize("goes_on", [False, True], ids=["at the end", "before more"])
@pytest.mark.parametrize("harm", HARM, ids=lambda harm: harm.__name__)
def test_log_that_somebody_else_changes_is_told(
    record: Record, harm: Callable[[Path], None], goes_on: bool, name: str
) -> None:
    recording = record(separate=True)
    recording.report()
    recording.feed(b"01234567" + ERR + b"01234567" + OUT)
    wait_until(lambda: (recording.log(), recording.log("stderr.log")), lambda logs: logs == (b"01234567",) * 2)
    harm(recording.folder / name)
    if goes_on:
        recording.feed(b"89abcdef" + ERR + b"89abcdef" + OUT)
    os.write(recording.input, END)
    facts = recording.report()["logs"]
    (said, gaps), size = HARM[harm], 16 if goes_on else 8
    if harm is append and goes_on:
        assert recording.log(name) == b"0123456789abcdef"  # what was appended is overwritten
        assert facts[name] == {"bytes": 16, "dropped_bytes": 0}
        return
    assert re.search(said.replace("NAME", name), facts[name].pop("why"))
    dropped = sum(end - start for start, end in gaps)
    lost = {"lost": {"changed by another program": dropped}} if dropped else {}
    assert facts == {key: {"bytes": size, "dropped_bytes": 0} for key in facts} | {
        name: {"bytes": size, "dropped_bytes": dropped, **lost}
    }
    assert recording.gaps(name) == gaps
    assert b"\0" not in recording.log(name)
    assert not goes_on or recording.stream(name)[8:] == b"89abcdef"


@pytest.mark.parametrize("harm", [link, lambda path: shutil.rmtree(path.parent)], ids=["link", "folder"])
def test_file_that_is_not_ours_is_left_alone_in_place_of_the_log(
    record: Record, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    (tmp_path / "job").mkdir()
    recording = record(folder=tmp_path / "job")
    recording.report()
    recording.feed(b"01234567")
    wait_until(recording.log, lambda log: log == b"01234567")
    harm(recording.folder / "output.log")
    recording.feed(b"89abcdef")
    os.write(recording.input, END)
    facts = recording.report()["logs"]["output.log"]
    assert (facts["bytes"], facts["dropped_bytes"]) == (16, 16)
    assert "nothing was recorded after that" in facts["why"]
    assert harm is not link or (tmp_path / "job" / "moved").read_bytes() == b"01234567"


@pytest.mark.parametrize("harm", [Path.unlink, edit, replace, move], ids=lambda harm: harm.__name__)
def test_list_of_gaps_is_written_again_when_somebody_has_spoilt_it(
    record: Record, harm: Callable[[Path], None]
) -> None:
    recording = record(limit=65536)
    recording.report()
    recording.feed(numbered(1 << 20))
    wait_until(recording.gaps)
    harm(recording.folder / "output.gaps")
    os.write(recording.input, END)
    dropped = recording.report()["logs"]["output.log"]["dropped_bytes"]
    assert dropped == sum(end - start for start, end in recording.gaps()) > 0


def test_log_that_cannot_be_read_back_in_time_is_not_told_as_whole(record: Record) -> None:
    recording = record(change="log.READ_BACK_S = -1.0")
    facts = recording.run(b"all")["logs"]["output.log"]
    assert facts.pop("doubt") == "output.log could not be read back: it takes more than -1 s"
    assert facts == {"bytes": 3, "dropped_bytes": 0}


def test_gap_is_listed_once_the_full_disk_has_room_again(record: Record) -> None:
    sick = "pwrite = os.pwrite\n"
    sick += "def full(fd, data, at):\n"
    sick += "    if os.path.exists(sys.argv[3] + '/full'): raise OSError(28, 'full')\n"
    sick += "    return pwrite(fd, data, at)\n"
    recording = record(change=sick + "os.pwrite = full")
    recording.report()
    (recording.folder / "full").touch()
    recording.feed(b"lost")
    wait_until(lambda: len(recording.stream()), lambda size: size == 4)
    (recording.folder / "full").unlink()
    recording.feed(b"kept")
    wait_until(recording.stream, lambda stream: stream.endswith(b"kept"))
    assert recording.gaps() == [[0, 4]]
    os.write(recording.input, END)
    facts = {"bytes": 8, "dropped_bytes": 4, "lost": {"disk full": 4}}
    assert recording.report()["logs"]["output.log"] == facts
    assert recording.log() == b"[tmuxjobs: 4 bytes are missing here: disk full]\nkept"


# A slow disk


SLOW = """
import time
QUEUE_BYTES = 1 << 20
write = Log.write
Log.write = lambda log, data: (time.sleep(0.05), write(log, data))
"""


def test_slow_disk_is_not_waited_for_and_hides_no_end_mark(record: Record) -> None:
    recording, data = record(change=SLOW), numbered(4 << 20)
    assert recording.report()["why"] == "ready"
    recording.feed(data)
    os.write(recording.input, END)
    report = recording.report()
    gaps = recording.gaps()
    dropped = sum(end - start for start, end in gaps)
    facts = {"bytes": len(data), "dropped_bytes": dropped, "lost": {"disk too slow": dropped}}
    assert report == {"why": "end", "logs": {"output.log": facts}}
    assert dropped > 0
    kept = bytearray(recording.stream())
    for start, end in gaps:
        kept[start:end] = data[start:end]
    assert kept == data


def test_slow_disk_does_not_mix_stderr_with_the_output(record: Record) -> None:
    recording = record(change=SLOW, separate=True)
    report = recording.run((b"o" * 60000 + ERR + b"e" * 5000 + OUT) * 40)
    assert report["logs"]["output.log"]["dropped_bytes"] > 0
    assert not recording.stream().strip(b"o\0")
    assert not recording.stream("stderr.log").strip(b"e\0")
    assert [facts["bytes"] for facts in report["logs"].values()] == [2400000, 200000]


# Its end


def test_input_that_ends_without_a_mark_is_told(record: Record) -> None:
    recording = record()
    recording.report()
    recording.feed(b"cut off")
    recording.end_input()
    assert recording.report() == {"why": "eof", "logs": {"output.log": {"bytes": 7, "dropped_bytes": 0}}}
    assert recording.log() == b"cut off"


def test_it_leaves_on_request_with_all_that_was_handed_over(record: Record) -> None:
    recording, data = record(change=SLOW), numbered(200_000)
    assert recording.report() == {"why": "ready", "pid": recording.process.pid}
    recording.process.send_signal(signal.SIGSTOP)
    rest = memoryview(data)
    with contextlib.suppress(BlockingIOError):
        os.set_blocking(recording.input, False)
        while rest:
            rest = rest[os.write(recording.input, rest) :]
    written = len(data) - len(rest)
    recording.process.send_signal(signal.SIGUSR1)
    recording.process.send_signal(signal.SIGCONT)
    assert recording.report() == {"why": "end", "logs": {"output.log": {"bytes": written, "dropped_bytes": 0}}}
    assert recording.log() == data[:written]


def test_it_leaves_when_the_runner_is_gone_and_nothing_more_comes(record: Record) -> None:
    recording = record(change="ORPHANED_QUIET_MS = 3000")
    recording.report()
    recording.feed(b"before ")
    os.close(recording.fifo)
    recording.fifo = -1
    os.write(recording.input, b"after")
    assert recording.process.wait(60) == 0
    assert recording.log() == b"before after"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_signals_that_end_a_session_do_not_end_it(record: Record, number: signal.Signals) -> None:
    recording = record()
    recording.report()
    recording.process.send_signal(number)
    recording.feed(b"still here")
    recording.end_input()
    assert recording.report()["why"] == "eof"


def test_its_files_are_private(record: Record) -> None:
    recording = record(separate=True)
    recording.run()
    modes = {path.name: path.stat().st_mode & 0o777 for path in recording.folder.iterdir() if path.is_file()}
    assert modes == dict.fromkeys(["output.log", "output.gaps", "stderr.log", "stderr.gaps"], 0o600)


def test_recorder_whose_runner_was_killed_before_its_first_report_leaves(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "recorder")
    program = shlex.join([sys.executable, "-I", "-S", "-c", PROGRAM, str(Path(__file__).parents[2]), ""])
    shell = f"exec {program} {tmp_path} {NONCE} 0 0 3<>{tmp_path}/recorder"
    with subprocess.Popen(["/bin/sh", "-c", shell], stdin=subprocess.PIPE) as process:
        try:
            assert process.wait(60) == 1
        finally:
            process.kill()


def test_runner_is_told_that_something_is_printed_and_not_each_time(record: Record) -> None:
    recording = record()
    recording.report()
    recording.feed(b"x" * 100)  # within the first second nobody needs to know
    time.sleep(1.1)
    recording.feed(b"a", b"b", b"c")
    assert recording.report("none") == {"why": "prints"}
    recording.end_input()
    assert recording.report("none")["why"] == "eof"


@pytest.mark.parametrize("change", ["FLOOD_S = 60.0", "FLOOD_S, GATHER_S = 60.0, 0.2", "FLOOD_BYTES = 1 << 60"])
def test_flood_is_gathered_and_whole(record: Record, change: str) -> None:
    data = os.urandom(1 << 15).replace(b"\x1b", b" ") * 200
    recording = record(change=change)
    assert recording.report()["why"] == "ready"
    pieces = memoryview(data)
    for at in range(0, len(data), 4000):
        recording.feed_on(pieces[at : at + 4000])
    recording.feed_on(END)
    report = recording.report()
    assert (report["why"], report["logs"]["output.log"]["bytes"]) == ("end", len(data))
    assert recording.log() == data


def test_end_of_the_input_is_seen_in_a_flood(record: Record) -> None:
    recording = record(change="FLOOD_S = 60.0")
    assert recording.report()["why"] == "ready"
    recording.feed_on(bytes(1 << 20))
    recording.end_input()
    report = recording.report()
    assert (report["why"], report["logs"]["output.log"]["bytes"]) == ("eof", 1 << 20)


def test_what_comes_after_a_pause_does_not_wait_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = socket.socketpair()
    gathered: list[float] = []

    class Watched(recorder.Input):
        def gathered(self) -> bytes:
            gathered.append(now)
            raise OSError  # read the plain way

    source = Watched()
    with theirs, ours:
        monkeypatch.setattr(os, "read", lambda _, size: theirs.recv(size))
        for now in (100.0, 100.004, 100.008, 100.012, 100.016, 130.0, 130.001):
            ours.sendall(bytes(10_000 if now < 130 else 1))
            source.read(now)
    assert gathered == [100.008, 100.012, 100.016]

"""Speed of reading logs. Run by name: `pytest tests/bench/bench_output.py -s`; prints a table and asserts no time."""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tmuxjobs.text.clean import clean
from tmuxjobs.text.matching import search
from tmuxjobs.text.paging import read, tail

MB = 1_000_000
GIGABYTE = 1_000 * MB
LINE = "2024-01-01 12:00:00 INFO request {} served in {} ms by worker aaaaaaaaaaaaaaaa\r\n"
COLOURED = "\x1b[32m2024-01-01 12:00:00\x1b[0m \x1b[1;34mINFO\x1b[0m request {} served in {} ms by a worker\r\n"
GCC = "\x1b[01m\x1b[Kfoo.c:{}:{}:\x1b[m\x1b[K \x1b[01;35m\x1b[Kwarning: \x1b[m\x1b[Kunused variable\r\n"
DOCKER = "\x1b[5A\x1b[2K\rlayer: Downloading {}MB of {}\x1b[5B\r"


def repeated(line: str, count: int) -> bytes:
    return "".join(line.format(number, number % 977) for number in range(count)).encode()


def progress_bar(redraws: int, mark: str) -> bytes:
    frames = (f"\r{n * 100 // redraws:3d}%|{mark * (n * 50 // redraws):50}| {n}/{redraws}" for n in range(redraws))
    return "".join(frames).encode()


STREAMS: dict[str, Callable[[], bytes]] = {
    "plain lines": lambda: repeated(LINE, 400_000),
    "plain lines, not ASCII": lambda: repeated(LINE.replace("worker", "wörker→"), 300_000),
    "coloured lines": lambda: repeated(COLOURED, 300_000),
    "gcc's colours": lambda: repeated(GCC, 200_000),
    "one giant line": lambda: b"x" * 30 * MB,
    "5,000 redraws of one line": lambda: progress_bar(5000, "#"),
    "5,000 redraws, not ASCII": lambda: progress_bar(5000, "█"),
    "50,000 redraws of a block": lambda: repeated("\n", 5) + repeated(DOCKER, 50_000),
}


def say(name: str, size: int, seconds: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(
        f"{name:40} {size / MB:8.1f} MB {seconds * 1000:9.1f} ms {size / MB / seconds:8.0f} MB/s  {peak} MB\n"
    )


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@pytest.fixture(scope="module")
def gigabyte(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    log = tmp_path_factory.mktemp("bench") / "output.log"
    block = repeated(LINE, 10_000)
    with log.open("wb") as file:
        for _ in range(GIGABYTE // len(block)):
            file.write(block)
        file.write(b"needle in the last line\r\n$ ")
    yield log
    log.unlink()


@pytest.mark.parametrize("name", STREAMS)
def test_speed_of_clean(name: str) -> None:
    data = STREAMS[name]()
    say(f"clean: {name}", len(data), min(timed(lambda: clean(data)) for _ in range(3)))


def test_speed_of_reading(gigabyte: Path) -> None:
    size = gigabyte.stat().st_size
    say("read: 1 GB, head and tail", size, timed(lambda: read(gigabyte)))
    say("read: what is new", 2000, timed(lambda: read(gigabyte, cursor=size - 2000)))
    say("tail: 50 lines of 1 GB", 4000, timed(lambda: tail(gigabyte, lines=50)))


@pytest.mark.parametrize(
    "pattern", ["needle", "served in 976 ms", "(?i)NEEDLE", "error|fatal", r"request \d+77 served", r"(?<=in )976 ms"]
)
def test_speed_of_search(gigabyte: Path, pattern: str) -> None:
    size = gigabyte.stat().st_size
    say(f"search: {pattern}", size, timed(lambda: search(gigabyte, pattern, timeout=100)))
    say(f"search: {pattern} (literal)", size, timed(lambda: search(gigabyte, pattern, literal=True, timeout=100)))

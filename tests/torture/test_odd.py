"""Whatever stands in the place of a file of ours: every verb answers or says one line, and no other job is hidden."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError
from support import Jobs, Screen, ended, server_of, wait_until

from tmuxjobs.errors import TmuxjobsError
from tmuxjobs.store.disk import FIFOS
from tmuxjobs.system import job_processes

Put = Callable[[Path], object]
DEEP = b"[" * 100_000
KINDS: dict[str, Put] = {
    "fifo": os.mkfifo,
    "folder": Path.mkdir,
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "empty": Path.touch,
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "digits": lambda path: path.write_bytes(b"7" * 5000),
    "deep": lambda path: path.write_bytes(DEEP),
    "object": lambda path: path.write_bytes(b'{"gaps": [[1, 1e400], ["a", null], [0, 9999999999999999999999]]}'),
    "newer": lambda path: path.write_bytes(b'{"format": 99}'),
    "large": lambda path: (path.touch(), os.truncate(path, 1 << 21)),
}
VALUES = [None, "text", "a\0b", "\ud800", -1, 10**30, 10**400, 1e308, True, [[]], {"pid": 1}, "9" * 5000, KeyError]
"""Each in a field's place; KeyError is a field that is not there."""
IN_JOB = [
    *(("ends", name) for name in ("job.json", "exit.json", "output.log", "output.gaps", "typed.jsonl", "removed.json")),
    *(("runs", name) for name in ("job.json", "run.json", "exit.json", "output.log", "stderr.log", "stop.json")),
    *(("runs", name) for name in ("env", "task.json", "recorder")),
]
IN_ROOT = ["journal", "sequence", "lock"]


def calls(job_id: str) -> list[tuple[str, dict[str, Any]]]:
    job = {"job_id": job_id}
    return [
        ("list", {}),
        ("status", job),
        ("output", job),
        ("tail", job),
        ("search", job | {"pattern": "o"}),
        ("wait", job | {"timeout": 0.01, "cursor": 0, "pattern": "x"}),
        ("screen", job),
        ("interact", job | {"input": "x", "wait": 0}),
        ("kill", job | {"grace": 0}),
    ]


class World:
    """A finished job, one that runs, and beside them copies whose files are replaced."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.ends = ended(jobs, jobs.execute("echo good", name="ends", separate_stderr=True).job_id).job_id
        self.runs = jobs.execute("echo good; read x", name="runs", separate_stderr=True).job_id
        wait_until(lambda: jobs.output(self.runs).stdout)
        wait_until(lambda: not jobs.host.store.transient(self.ends))  # its runner clears up behind its record
        self.runners: list[subprocess.Popen[bytes]] = []

    def copy(self, source: str, job_id: str) -> Path:
        folder = self.jobs.host.store.jobs / job_id
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.jobs.host.store.jobs / source, folder, ignore=lambda *_: FIFOS)
        for path in folder.glob("*.json"):
            path.write_text(path.read_text().replace(source, job_id))
        if source == self.runs:
            # Another process for its runner: a copy must not end the job that it was made of.
            self.runners.append(subprocess.Popen(["sleep", "1000"]))
            pid = self.runners[-1].pid
            run = json.loads((folder / "run.json").read_bytes()) | {"pid": pid, "start": job_processes.start_of(pid)}
            (folder / "run.json").write_text(json.dumps(run))
        (folder / "typed.jsonl").write_text('{"at": 0, "lines": ["x"]}\n')
        return folder

    def close(self) -> None:
        while self.runners:
            self.runners[-1].kill()
            self.runners.pop().wait()


@pytest.fixture
def world(jobs: Jobs) -> Iterator[World]:
    world = World(jobs)
    yield world
    world.close()
    for job in Jobs.open().list(status="running", limit=500).jobs:
        if not job.job_id.startswith("odd-"):
            jobs.kill(job.job_id, grace=0)


def replace(path: Path, put: Put) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    put(path)


async def answers(made: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, str, Any]]:
    """What a server that has just started says to each: (tool, error, fields)."""
    said = []
    async with Client(server_of(Jobs.open())) as client:
        for name, arguments in made:
            try:
                said.append((name, "", (await client.call_tool(name, arguments)).structured_content))
            except ToolError as error:
                said.append((name, str(error), None))
    return said


def check(world: World, what: str, *job_ids: str) -> None:
    made = [call for job_id in job_ids for call in calls(job_id)]
    for (_, arguments), (name, error, fields) in zip(made, asyncio.run(answers(made)), strict=True):
        said_of = (what, name, arguments, error)
        assert not error.startswith(("Error calling tool", "Internal")), said_of
        assert "\n" not in error, said_of
        if name == "list":
            assert {world.ends, world.runs} <= {job["job_id"] for job in fields["jobs"]}, (*said_of, fields)
    for verb in (Jobs.notice_prompts, Jobs.prune):
        said(verb, what)


def said(verb: Callable[[Jobs], object], what: str) -> str:
    text = ""
    try:
        verb(Jobs.open())
    except TmuxjobsError as error:
        text = str(error)
    assert "\n" not in text, (what, text)
    return text


@pytest.mark.parametrize(("source", "name"), IN_JOB)
def test_odd_thing_in_a_jobs_folder_hides_nothing(world: World, source: str, name: str) -> None:
    for kind, put in KINDS.items():
        replace(world.copy(getattr(world, source), f"odd-{kind}") / name, put)
    check(world, f"{', '.join(KINDS)} as {name}", *(f"odd-{kind}" for kind in KINDS))


@pytest.mark.parametrize("name", IN_ROOT)
def test_odd_thing_beside_the_jobs_hides_nothing(world: World, name: str) -> None:
    path = world.jobs.host.store.root / name
    before = path.read_bytes()
    for kind, put in KINDS.items():
        replace(path, put)
        check(world, f"{kind} as {name}", world.ends)
        said(lambda jobs: jobs.execute("true"), f"{kind} as {name}")
        replace(path, lambda path: path.write_bytes(before))


@pytest.mark.parametrize("third", range(3))
@pytest.mark.parametrize(("source", "name"), [("runs", "job.json"), ("runs", "run.json"), ("ends", "exit.json")])
def test_odd_value_in_a_record_hides_nothing(world: World, source: str, name: str, third: int) -> None:
    folder = world.copy(getattr(world, source), "odd-1")
    record = json.loads((folder / name).read_bytes())
    verbs: list[Callable[[Jobs], object]] = [
        lambda jobs: jobs.status("odd-1").text(),
        lambda jobs: jobs.output("odd-1").text(),
    ]
    for key in list(record)[third::3]:
        for value in VALUES:
            (folder / name).write_text(changed(record, key, value))
            what = f"{key} is {str(value)[:20]!r}"
            listed = Jobs.open().list()
            assert {world.ends, world.runs} <= {job.job_id for job in listed.jobs}, what
            assert "odd-1" in listed.text() or "odd-1" in str(listed.damaged), what
            for verb in verbs:
                said(verb, what)
        said(lambda jobs: jobs.wait("odd-1", timeout=0.001, cursor=0).text(), key)
        said(Jobs.prune, key)


def changed(record: dict[str, Any], key: str, value: object) -> str:
    return json.dumps(
        {name: old for name, old in record.items() if name != key} | ({} if value is KeyError else {key: value})
    )


def test_welcome_page_shows_the_other_jobs(world: World, screen: Callable[..., Screen]) -> None:
    count = 0
    for source, name in [("ends", "exit.json"), ("runs", "job.json"), ("runs", "run.json"), ("runs", "output.log")]:
        for put in KINDS.values():
            count += 1
            replace(world.copy(getattr(world, source), f"odd-{count}") / name, put)
        folder = world.copy(getattr(world, source), f"odd-{count}")
        if not name.endswith(".json"):
            continue
        record = json.loads((folder / name).read_bytes())
        for key in record:
            for value in VALUES:
                count += 1
                path = world.copy(getattr(world, source), f"odd-{count}") / name
                path.write_text(changed(record, key, value))
    page = screen(rows=50, columns=160)
    page.until(world.runs)
    later = world.jobs.execute("read x", name="later").job_id
    page.press("C-b", "0")
    page.until(later)

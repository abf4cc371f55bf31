"""What happens to jobs is seen as it happens, whoever looks: each thing once, under one number."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from support import Jobs, ended, in_panes, record_of, server_of, wait_until

from tmuxjobs import Settings
from tmuxjobs.errors import TmuxjobsError
from tmuxjobs.models import Entry
from tmuxjobs.verbs import news as of_news

CONF = Path(__file__).parents[2] / "conf"


class Follower:
    """Someone who follows, in a thread."""

    def __init__(self, jobs: Jobs, **arguments: Any) -> None:
        self.seen: list[Entry] = []
        self._come: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._entries = jobs.follow_events(**arguments)
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        with contextlib.suppress(TmuxjobsError, OSError):  # the test is over, and its folder gone
            for entry in self._entries:
                self._come.put(entry)

    def until(self, *wanted: tuple[str, str]) -> list[Entry]:
        """All that was seen when these (event, job) are among it."""

        def look() -> list[Entry]:
            while not self._come.empty():
                entry = self._come.get()
                self.seen += [entry] if entry is not None else []
            return self.seen

        return wait_until(look, lambda seen: set(wanted) <= {(one.event, one.job_id) for one in seen})


@pytest.fixture
def news(jobs: Jobs) -> Callable[..., Follower]:
    return lambda **arguments: Follower(Jobs.open(Settings.load(max_jobs=40)), **({"since": 0} | arguments))


def test_starts_ends_prompts_and_holds_come_in_order(jobs: Jobs, news: Callable[..., Follower]) -> None:
    follower = news()
    job_id = jobs.execute("printf 'Sure? '; read x; exit 3").job_id
    follower.until(("prompt", job_id))
    jobs.hold(job_id)
    jobs.hold(job_id)
    jobs.release(job_id)
    jobs.interact(job_id, "yes", wait=0)
    seen = follower.until(("end", job_id))
    assert [one.event for one in seen] == ["start", "prompt", "hold", "release", "end"]
    assert [one.n for one in seen] == [1, 2, 3, 4, 5]
    assert (seen[1].waits_for, seen[1].prompt) == ("input", "Sure? ")
    assert (seen[-1].status, seen[-1].exit_code) == ("failed", 3)
    assert jobs.events(3) == tuple(seen[3:])


def test_each_question_is_one_event_for_all_who_follow(jobs: Jobs, news: Callable[..., Follower]) -> None:
    followers = [news() for _ in range(3)]
    job_id = jobs.execute("printf 'name? '; read x; printf 'age? '; read x").job_id
    for follower in followers:
        follower.until(("prompt", job_id))
    jobs.interact(job_id, "Ada", wait=0)
    for follower in followers:
        wait_until(
            lambda one=follower: [e.prompt for e in one.until() if e.event == "prompt"], lambda said: len(said) == 2
        )
    jobs.interact(job_id, "36", wait=0)
    seen = [follower.until(("end", job_id)) for follower in followers]
    assert [one.event for one in seen[0]] == ["start", "prompt", "prompt", "end"]
    assert seen[0] == seen[1] == seen[2] == list(jobs.events())


def test_question_that_comes_after_its_read_is_one_event(
    jobs: Jobs, news: Callable[..., Follower], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorder is stopped while the program asks."""
    monkeypatch.setattr(of_news, "LOOKS_S", (0.1,) * 1000)
    monkeypatch.setattr(of_news, "SETTLED_S", 60.0)
    follower = news()
    os.mkfifo(tmp_path / "gate")
    job_id = jobs.execute(f"read x < {tmp_path}/gate; read -p 'Proceed? ' x").job_id
    [recorder] = wait_until(lambda: in_panes(jobs, "recorder", job_id))
    recorder.suspend()
    (tmp_path / "gate").write_text("\n")
    wait_until(lambda: jobs.status(job_id).waiting_for_input)
    time.sleep(1)  # it is seen to read
    recorder.resume()
    [prompt] = [one for one in follower.until(("prompt", job_id)) if one.event == "prompt"]
    assert prompt.prompt == "Proceed? "


def test_password_is_told_as_one(jobs: Jobs, news: Callable[..., Follower]) -> None:
    follower = news()
    job_id = jobs.execute("stty -echo; printf 'Password: '; read x").job_id
    [prompt] = [one for one in follower.until(("prompt", job_id)) if one.event == "prompt"]
    assert prompt.waits_for == "password"
    assert "ask the person to type it there" in jobs.event_line(prompt)


def test_killed_runner_is_seen(jobs: Jobs, news: Callable[..., Follower]) -> None:
    follower = news()
    job_id = jobs.execute("sleep 1000").job_id
    follower.until(("start", job_id))
    run = record_of(jobs, job_id).run
    assert run is not None
    os.kill(run.pid, signal.SIGKILL)
    assert follower.until(("end", job_id))[-1].status == "lost"
    jobs.kill(job_id)


def test_end_before_a_later_start_has_the_lower_number(jobs: Jobs) -> None:
    first = jobs.execute("true").job_id
    folder = jobs.host.store.folder(first)
    wait_until(lambda: (folder / "exit.json").exists())
    second = jobs.execute("sleep 1000").job_id
    assert [(one.event, one.job_id) for one in jobs.host.journal.read()] == [
        ("start", first),
        ("end", first),
        ("start", second),
    ]


def test_entries_of_earlier_and_later_versions_are_read(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    with jobs.host.journal.path.open("a") as file:
        file.write('{"n": 2, "event": "teleport", "job_id": "x-1", "at": "2026-01-02T03:04:05Z"}\n')
        file.write('{"n": 3, "event": "start", "job_id": "old-1", "at": "2026-01-02T03:04:05Z"}\n')
    assert [(one.n, one.job_id) for one in jobs.events() if one.event == "start"] == [(1, job_id), (3, "old-1")]


async def test_only_what_no_answer_told_is_untold(
    jobs: Jobs, news: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_news, "TOLD_S", 4.0)  # so long a slow machine may need until it has answered
    follower = news(untold=True)
    async with Client(server_of(jobs)) as client:
        told = (await client.call_tool("execute", {"command": "sleep 0.2; exit 3", "wait": 50})).structured_content
        assert told is not None
        assert told["status"] == "failed"
        asked = (await client.call_tool("execute", {"command": "read x; read y"})).structured_content or {}
        await client.call_tool("wait", {"job_id": asked["job_id"], "until": "input"})
    untold = jobs.execute("exit 4").job_id
    seen = follower.until(("end", untold))
    assert [(one.event, one.job_id) for one in seen] == [("end", untold)]
    jobs.interact(asked["job_id"], "a person typed", wait=0)
    assert follower.until(("prompt", asked["job_id"]))[-1].job_id == asked["job_id"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tmuxjobs", "events", *arguments]


def test_command_follows_and_goes_on_by_number(jobs: Jobs) -> None:
    ended(jobs, jobs.execute("true").job_id)
    since = str(jobs.events()[-1].n)
    argv = command("--follow", "--project", "--since", since)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        job_id = jobs.execute("exit 7").job_id
        lines = [follower.stdout.readline() for _ in range(2)]
        follower.terminate()
    assert [line.split()[2] for line in lines] == [job_id, job_id]
    assert "started: exit 7" in lines[0]
    assert lines[1].endswith(f"{job_id} failed (exit code 7): exit 7\n")
    later = subprocess.run(
        command("--since", lines[0].split()[0], "--json"), capture_output=True, text=True, check=True
    )
    assert [json.loads(line)["event"] for line in later.stdout.splitlines()] == ["end"]


def test_command_that_follows_begins_with_now(jobs: Jobs) -> None:
    ended(jobs, jobs.execute("true", name="before").job_id)
    follower = Follower(jobs)
    follower.until()
    ids: list[str] = []

    def look() -> list[Entry]:
        ids.append(ended(jobs, jobs.execute("true", name="after").job_id).job_id)
        return follower.until()

    seen = wait_until(look)
    assert {one.job_id for one in seen} <= set(ids)


def test_command_ends_when_its_reader_has_left(jobs: Jobs) -> None:
    with subprocess.Popen(command("--follow", "--since", "0"), stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        jobs.execute("true")
        assert "started" in follower.stdout.readline()
        follower.stdout.close()
        jobs.execute("true")
        assert follower.wait(60) == 141


def test_claude_code_s_monitor_tells_a_persons_job(jobs: Jobs) -> None:
    """One line for each message that wakes the agent, and none for what it was told."""
    [monitor] = json.loads((CONF / "claude-code" / "monitors" / "monitors.json").read_text())
    assert monitor.keys() == {"name", "command", "description", "when"}
    arguments = monitor["command"].split()[2:]
    assert monitor["command"].split()[:2] == ["tmuxjobs", "events"]
    ended(jobs, jobs.execute("true").job_id)
    since = str(jobs.events()[-1].n)
    with subprocess.Popen(command(*arguments, "--since", since), stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        job_id = jobs.execute("echo broken; exit 9").job_id
        assert follower.stdout.readline().endswith(f"{job_id} failed (exit code 9): echo broken; exit 9\n")
        asks = jobs.execute("printf 'Deploy? '; read x").job_id
        assert f"{asks} waits for input: 'Deploy? '" in follower.stdout.readline()
        follower.terminate()

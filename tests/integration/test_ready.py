"""A job says by itself when it is ready: by a port or URL of its own tree, a pattern, or a command."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from support import (
    PYTHON,
    Jobs,
    Screen,
    Tmux,
    change_pane,
    ended,
    in_panes,
    own_seconds,
    server_of,
    sleeping,
    wait_until,
)

from tmuxjobs import Settings
from tmuxjobs.answers import Waited
from tmuxjobs.errors import InvalidInput
from tmuxjobs.job_answers import JobStatus

SERVES = f"""{PYTHON} -c '
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2])); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()'"""


@pytest.fixture
def port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def when(jobs: Jobs, job_id: str, *, ready: bool) -> JobStatus:
    return wait_until(lambda: jobs.status(job_id), lambda status: status.ready is ready)


def unready_with(jobs: Jobs, said: str, command: str, *, ready_timeout: float = 0.5, **options: Any) -> Waited:
    """How a wait for a job that does not become ready ends; with more time, unless it ends with these words."""
    for more in (1, 5, 25):
        job_id = jobs.execute(command, ready_timeout=ready_timeout * more, **options).job_id
        waited = jobs.wait(job_id, until="ready", timeout=50)
        jobs.kill(job_id)
        if said in waited.note:
            break
    return waited


def record(jobs: Jobs, job_id: str) -> dict[str, object]:
    """What `ready.json` says; that nothing is known before there is one."""
    with contextlib.suppress(FileNotFoundError):
        found: dict[str, object] = json.loads((jobs.host.store.folder(job_id) / "ready.json").read_text())
        return found
    return {"ready": None, "failed": None}


def test_port_of_the_job_makes_it_ready(jobs: Jobs, port: int) -> None:
    started = jobs.execute(f"read line; {SERVES} {port} 200", ready_when=f"port {port}")
    assert jobs.status(started.job_id).ready is False
    assert f"{started.job_id}  running not ready" in jobs.list().text()
    jobs.interact(started.job_id, "go", wait=0)
    status = when(jobs, started.job_id, ready=True)
    assert f"ready (port {port}): since" in status.text()
    assert f"{started.job_id}  running ready  " in jobs.list().text()
    assert record(jobs, started.job_id).items() >= {"ready": True, "failed": False, "why": f"port {port}"}.items()


def test_port_of_another_process_does_not_count(jobs: Jobs, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        job_id = jobs.execute("sleep 1000", ready_when=f"port {port}", ready_timeout=0.5).job_id
        waited = jobs.wait(job_id, until="ready", timeout=40)
    assert (waited.reason, waited.status) == ("not_ready", "running")
    assert f"not ready within 0.5 s: it does not listen on port {port}" in waited.note


def test_url_answered_by_the_job_makes_it_ready(jobs: Jobs, port: int) -> None:
    job_id = jobs.execute(f"{SERVES} {port} 200", ready_when=f"url http://localhost:{port}/x?y=z").job_id
    assert jobs.wait(job_id, until="ready", timeout=40).reason == "ready"


def test_url_that_answers_with_an_error_is_not_ready(jobs: Jobs, port: int) -> None:
    url = f"http://127.0.0.1:{port}/"
    said = f"{url} answers 503"
    waited = unready_with(jobs, said, f"{SERVES} {port} 503", ready_when=f"url {url}", ready_timeout=1.5)
    assert (waited.reason, said in waited.note) == ("not_ready", True)


def test_url_of_another_process_does_not_count(jobs: Jobs, port: int) -> None:
    other = jobs.execute(f"{SERVES} {port} 200", ready_when=f"port {port}").job_id
    when(jobs, other, ready=True)
    said = "another process answers"
    assert said in unready_with(jobs, said, "sleep 1000", ready_when=f"url http://127.0.0.1:{port}").note


def test_pattern_in_a_clean_line_makes_it_ready(jobs: Jobs) -> None:
    job_id = jobs.execute(
        r"printf '\033[32mserver \033[1mlistening\033[m on 80\r\n'; sleep 1000",
        ready_when="pattern ^server listening on \\d+$",
    ).job_id
    assert jobs.wait(job_id, until="ready", timeout=40).reason == "ready"


def test_pattern_in_a_line_without_an_end_counts_once_it_stands(jobs: Jobs) -> None:
    job_id = jobs.execute("printf 'db> '; sleep 1000", ready_when="pattern db>").job_id
    assert jobs.wait(job_id, until="ready", timeout=40).reason == "ready"


def test_pattern_without_end_holds_up_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    change_pane(
        monkeypatch, tmp_path / "changed", "watcher.py", lambda it: it.replace("PATTERN_S = 5.0", "PATTERN_S = 0.5")
    )
    jobs = Jobs.open(Settings.load())
    job_id = jobs.execute(f"echo {'a' * 60}; read line; echo went on", ready_when="pattern ^(a+)+$b").job_id
    waited = jobs.wait(job_id, until="ready", timeout=40)
    assert (waited.reason, waited.status) == ("not_ready", "running")
    assert "its pattern took more than" in waited.note
    jobs.interact(job_id, "go", wait=0)
    assert ended(jobs, job_id).status == "completed"
    assert "went on" in jobs.output(job_id).stdout


def test_command_that_succeeds_in_the_folder_and_environment_of_the_job_makes_it_ready(
    jobs: Jobs, tmp_path: Path
) -> None:
    started = jobs.execute(
        "read line; touch there; sleep 1000",
        cwd=str(tmp_path),
        env={"SECRET": "sesame"},
        ready_when='command [ "$SECRET" = sesame ] && [ -e there ]',
    )
    wait_until(lambda: record(jobs, started.job_id)["ready"] is False)
    jobs.interact(started.job_id, "go", wait=0)
    when(jobs, started.job_id, ready=True)
    for path in jobs.host.store.folder(started.job_id).glob("*.json"):
        assert "sesame" not in path.read_text().replace("= sesame ]", "")


def test_command_that_hangs_is_ended_with_the_job(jobs: Jobs) -> None:
    seconds = own_seconds()
    job_id = jobs.execute("sleep 1000", ready_when=f"command exec sleep {seconds}").job_id
    wait_until(lambda: sleeping(seconds))
    assert jobs.kill(job_id).survivors == ()
    wait_until(lambda: not sleeping(seconds))


def test_wait_until_ready_returns_at_once_when_it_is(jobs: Jobs) -> None:
    job_id = jobs.execute("echo up; sleep 1000", ready_when="pattern up").job_id
    when(jobs, job_id, ready=True)
    assert jobs.wait(job_id, until="ready", timeout=0.001).reason == "ready"


def test_end_before_it_was_ready_is_told_as_the_end(jobs: Jobs) -> None:
    job_id = jobs.execute("read line; exit 4", ready_when="pattern up").job_id
    jobs.interact(job_id, "go", wait=0)
    waited = jobs.wait(job_id, until="ready", timeout=40)
    assert (waited.reason, waited.exit_code) == ("exit", 4)
    assert "the job ended first" in waited.note


def test_execute_answers_once_the_job_is_ready(jobs: Jobs) -> None:
    ran = jobs.execute("echo up; sleep 1000", ready_when="pattern up", wait=40, until="ready")
    assert (ran.reason, ran.status) == ("ready", "running")


async def test_agent_starts_a_server_and_hears_when_it_is_ready(jobs: Jobs, port: int) -> None:
    async with Client(server_of(jobs)) as client:
        asked = {"command": f"{SERVES} {port} 200", "ready_when": f"port {port}", "wait": 40, "until": "ready"}
        fields = (await client.call_tool("execute", asked)).structured_content
        assert fields is not None
        assert fields["reason"] == "ready"
        told = (await client.call_tool("status", {"job_id": fields["job_id"]})).structured_content
        assert told is not None
        assert (told["ready"], told["ready_when"]) == (True, f"port {port}")
        await asyncio.to_thread(jobs.kill, fields["job_id"])


def test_lost_readiness_is_told_and_found_again(jobs: Jobs, port: int) -> None:
    command = f"{SERVES} {port} 200 & read line; kill %1; wait; read line; {SERVES} {port} 200"
    job_id = jobs.execute(command, ready_when=f"port {port}").job_id
    when(jobs, job_id, ready=True)
    wait_until(lambda: "ready" in [one.event for one in jobs.events()])
    jobs.interact(job_id, "close", wait=0)
    status = when(jobs, job_id, ready=False)
    assert status.ready_note == f"not ready any more: it does not listen on port {port}"
    assert record(jobs, job_id)["failed"] is False
    assert [one.event for one in jobs.events() if one.job_id == job_id] == ["start", "ready", "unready"]
    jobs.interact(job_id, "open", wait=0)
    when(jobs, job_id, ready=True)
    assert [one.event for one in jobs.events() if one.job_id == job_id][-1] == "ready"
    assert f"not ready (not ready any more: it does not listen on port {port})" in jobs.event_line(jobs.events()[2])


def test_events_seen_at_once_come_in_the_order_in_which_they_happened(jobs: Jobs) -> None:
    job_id = jobs.execute("echo up; read line", ready_when="pattern up").job_id
    other = jobs.execute("read line").job_id
    when(jobs, job_id, ready=True)
    jobs.interact(other, "go", wait=0)
    ended(jobs, other)
    seen = [(one.job_id, one.event) for one in jobs.events() if one.event != "prompt"]
    assert seen == [(job_id, "start"), (other, "start"), (job_id, "ready"), (other, "end")]


def test_late_readiness_counts_after_all(jobs: Jobs, tmp_path: Path) -> None:
    job_id = jobs.execute("sleep 1000", cwd=str(tmp_path), ready_when="command [ -e up ]", ready_timeout=0.2).job_id
    wait_until(lambda: record(jobs, job_id)["failed"] is True)
    (tmp_path / "up").touch()
    when(jobs, job_id, ready=True)
    assert record(jobs, job_id)["failed"] is False


def test_each_attempt_becomes_ready_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    change_pane(monkeypatch, tmp_path / "changed", "attempts.py", lambda it: it.replace("= 1.0, 60.0", "= 0.05, 0.1"))
    jobs = Jobs.open(Settings.load())
    command = "if [ -e n ]; then read line; else touch n; fi; echo up; read line; exit 1"
    job_id = jobs.execute(command, cwd=str(tmp_path), retry=1, ready_when="pattern up").job_id
    when(jobs, job_id, ready=True)
    jobs.interact(job_id, "crash", wait=0)
    wait_until(lambda: jobs.status(job_id).attempts == 2)
    assert when(jobs, job_id, ready=False).ready_note == "attempt 1 ended with exit code 1"
    jobs.interact(job_id, "open", wait=0)
    when(jobs, job_id, ready=True)


def test_who_looks_is_none_of_the_jobs_processes(jobs: Jobs) -> None:
    job_id = jobs.execute("echo up", ready_when="pattern never", retry=0).job_id
    status = ended(jobs, job_id)
    assert (status.status, status.left_running, status.survivors) == ("completed", (), ())


def test_killed_watcher_is_told_and_the_job_runs_on(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000", ready_when="port 9").job_id
    wait_until(lambda: (jobs.host.store.folder(job_id) / "ready.json").exists())
    runner = jobs.host.look(job_id).run
    assert runner is not None
    # What it has just forked has its arguments too.
    look = lambda: [one.pid for one in in_panes(jobs, "runner", job_id) if one.pid != runner.pid]  # noqa: E731
    (watcher,) = wait_until(look, lambda found: len(found) == 1)
    os.kill(watcher, signal.SIGKILL)
    waited = jobs.wait(job_id, until="ready", timeout=40)
    assert (waited.reason, waited.status) == ("not_ready", "running")
    assert "the process that watched it was killed" in waited.note


def test_watcher_ends_with_a_killed_runner(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 7441", ready_when="port 9").job_id
    wait_until(lambda: (jobs.host.store.folder(job_id) / "ready.json").exists())
    run = jobs.host.look(job_id).run
    assert run is not None
    os.kill(run.pid, signal.SIGKILL)
    wait_until(lambda: not in_panes(jobs, "runner", job_id))
    jobs.kill(job_id)


def test_person_sees_whether_a_job_is_ready(
    jobs: Jobs, screen: Callable[..., Screen], tmux: Tmux, tmp_path: Path
) -> None:
    command = "until [ -e go ]; do sleep 0.1; done; echo up; sleep 1000"
    job_id = jobs.execute(command, name="web", cwd=str(tmp_path), ready_when="pattern up").job_id
    seen = screen("tmux", "-u", "attach", "-t", "=mcp-jobs", rows=24, columns=160)
    tmux("select-window", "-t", "=mcp-jobs:0")
    seen.until(job_id, "not ready")
    (tmp_path / "go").touch()
    # Once in the welcome page's list, once behind the name of its window.
    wait_until(seen.look, lambda text: re.search(r" ready \d", text) and re.search(r"\ds ready", text))


@pytest.mark.parametrize(
    ("ready_when", "words"),
    [
        ("", "ready_when is `port 3000`"),
        ("port", "ready_when is `port 3000`"),
        ("door 3", "ready_when is `port 3000`"),
        ("port 0", "There is no port '0'"),
        ("port 99999", "There is no port '99999'"),
        ("url ftp://x", "is not an http or https address"),
        ("pattern (", "is not a regular expression"),
        ("pattern up\nthen", "would never match"),
        (r"pattern listening\n", "would never match"),
    ],
)
def test_wrong_condition_is_refused_and_nothing_is_started(jobs: Jobs, ready_when: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        jobs.execute("true", ready_when=ready_when)
    assert not jobs.list().jobs


def test_waiting_for_a_job_that_nobody_watches_is_refused(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    with pytest.raises(InvalidInput, match="was started without `ready_when`"):
        jobs.wait(job_id, until="ready")
    with pytest.raises(InvalidInput, match="until='ready' needs `ready_when`"):
        jobs.execute("true", wait=1, until="ready")
    assert [job.job_id for job in jobs.list().jobs] == [job_id]

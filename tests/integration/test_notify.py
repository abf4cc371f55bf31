"""People are told once that a job ended or waits for them, and nothing waits for their being told."""

import asyncio
import os
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastmcp import Client
from support import PYTHON, Jobs, Person, Screen, Tmux, ended, in_panes, server_of, wait_until

from tmuxjobs.settings import Settings
from tmuxjobs.system import terminals
from tmuxjobs.verbs import prompts

Open = Callable[..., Screen]


def hook(tmp_path: Path, command: str) -> tuple[Jobs, Path]:
    """Jobs with an `on_end` command that may write to $OUT, the path that comes back."""
    out = tmp_path / "told"
    return Jobs.open(Settings.load(on_end=command.replace("$OUT", str(out)))), out


def test_end_is_told_to_the_attached_and_rings(jobs: Jobs, person: Callable[..., Person], screen: Open) -> None:
    jobs.execute("sleep 1000")
    someone, terminal = person(), screen(rows=50, columns=200)
    before = someone.seen.count("\a")
    job_id = jobs.execute("exit 3").job_id
    terminal.until(f"{job_id}: failed after", "exit code 3")
    wait_until(lambda: someone.seen.count("\a"), lambda rings: rings > before)


@pytest.mark.parametrize(
    ("notify", "command", "told"),
    [("failure", "true", False), ("failure", "false", True), ("never", "false", False), ("always", "true", True)],
)
def test_job_has_its_own_choice(tmp_path: Path, notify: str, command: str, told: bool) -> None:
    jobs, out = hook(tmp_path, "echo $TMUXJOBS_JOB_ID >> $OUT")
    first = jobs.execute(command, notify=notify).job_id  # type: ignore[arg-type]
    ended(jobs, first)
    last = jobs.execute("false").job_id
    expected = {first, last} if told else {last}
    wait_until(lambda: out.exists() and expected <= set(out.read_text().split()))
    assert (first in out.read_text()) == told


async def test_agent_may_choose_too(tmp_path: Path) -> None:
    jobs, out = hook(tmp_path, "echo $TMUXJOBS_JOB_ID >> $OUT")
    async with Client(server_of(jobs)) as client:
        for notify in ("never", "always"):
            await client.call_tool("execute", {"command": "true", "name": notify, "notify": notify, "wait": 30})
    await asyncio.to_thread(wait_until, lambda: out.exists() and "always-" in out.read_text())
    assert "never-" not in out.read_text()


def test_hook_has_the_facts(tmp_path: Path) -> None:
    jobs, out = hook(tmp_path, "env > $OUT.new; mv $OUT.new $OUT")
    job_id = jobs.execute("exit 7", cwd=str(tmp_path)).job_id
    wait_until(out.exists)
    facts = dict(line.split("=", 1) for line in out.read_text().splitlines() if line.startswith("TMUXJOBS_"))
    assert re.match(rf"{job_id}: failed after \d", facts.pop("TMUXJOBS_SUMMARY"))
    assert float(facts.pop("TMUXJOBS_RUNTIME")) >= 0
    assert facts == {
        "TMUXJOBS_JOB_ID": job_id,
        "TMUXJOBS_STATUS": "failed",
        "TMUXJOBS_EXIT_CODE": "7",
        "TMUXJOBS_SIGNAL": "",
        "TMUXJOBS_REASON": "exit",
        "TMUXJOBS_COMMAND": "exit 7",
        "TMUXJOBS_CWD": str(tmp_path),
        "TMUXJOBS_LOG_PATH": str(jobs.host.look(job_id).log),
        "TMUXJOBS_STATE_DIR": str(jobs.host.settings.state_dir),
        "TMUXJOBS_SESSION": "mcp-jobs",
        "TMUXJOBS_SOCKET_NAME": "default",
    }


def test_hook_runs_once_for_each_end(tmp_path: Path) -> None:
    jobs, out = hook(tmp_path, "echo $TMUXJOBS_JOB_ID $TMUXJOBS_STATUS >> $OUT")
    done = jobs.execute("true").job_id
    killed = jobs.execute("sleep 1000").job_id
    jobs.kill(killed)
    timed = jobs.execute("sleep 1000", timeout=0.2).job_id
    told = {f"{done} completed", f"{killed} killed", f"{timed} killed"}
    wait_until(lambda: out.exists() and set(out.read_text().splitlines()), lambda lines: lines == told)
    last = jobs.execute("false").job_id
    wait_until(lambda: last in out.read_text())
    assert len(out.read_text().splitlines()) == 4


def test_end_before_its_turn_is_told_as_any_other(tmp_path: Path, person: Callable[..., Person], screen: Open) -> None:
    jobs, out = hook(tmp_path, "echo $TMUXJOBS_JOB_ID $TMUXJOBS_STATUS $TMUXJOBS_SUMMARY >> $OUT")
    before = jobs.execute("sleep 1000", notify="never").job_id
    skipped = jobs.execute("true", after=[before]).job_id
    silent = jobs.execute("true", after=[before], notify="never").job_id
    cancelled = jobs.execute("true", delay=1000).job_id
    someone, terminal = person(), screen(rows=50, columns=200)
    rings = someone.seen.count("\a")
    jobs.kill(cancelled)
    terminal.until(f"{cancelled}: killed on request, before its turn")
    wait_until(lambda: someone.seen.count("\a"), lambda count: count > rings)
    jobs.kill(before)
    terminal.until(f"{skipped}: skipped: {before} was killed on request")
    wait_until(lambda: out.exists() and out.read_text().splitlines(), lambda lines: len(lines) == 2)
    assert [line.split()[:2] for line in out.read_text().splitlines()] == [[cancelled, "killed"], [skipped, "skipped"]]
    assert jobs.status(silent).status == "skipped"


def test_hook_runs_when_the_window_is_closed(tmp_path: Path, tmux: Callable[..., str]) -> None:
    jobs, out = hook(tmp_path, "sleep 0.2; echo $TMUXJOBS_REASON > $OUT")
    job_id = jobs.execute("sleep 1000").job_id
    tmux("kill-window", "-t", f"=mcp-jobs:{job_id}")
    wait_until(lambda: out.exists() and out.read_text(), lambda text: text == "window-closed\n")


def test_end_does_not_wait_for_a_hook(tmp_path: Path) -> None:
    jobs, out = hook(tmp_path, "until [ -e $OUT ]; do sleep 0.1; done; mv $OUT $OUT.seen")
    job_id = jobs.execute("exit 4").job_id
    assert ended(jobs, job_id).exit_code == 4
    assert not os.path.exists(f"{out}.seen")
    out.touch()
    wait_until(lambda: os.path.exists(f"{out}.seen"))


def test_hook_may_use_the_command_and_its_jobs_run_no_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = f"PYTHONPATH={shlex.quote(str(Path(__file__).parents[2]))} {PYTHON} -m tmuxjobs"
    jobs, out = hook(tmp_path, f"echo hook >> $OUT; {ours} execute --name inner -- sh -c 'env > $OUT.env' 2>> $OUT")
    monkeypatch.setenv("TMUXJOBS_ON_END", jobs.host.settings.on_end or "")
    jobs.execute("true")
    inner = wait_until(lambda: [job.job_id for job in jobs.list(name="inner-").jobs])[0]
    ended(jobs, inner)
    assert out.read_text() == "hook\n"
    assert "TMUXJOBS_SUMMARY" not in Path(f"{out}.env").read_text()


def test_waiting_for_input_is_told_once(jobs: Jobs, person: Callable[..., Person], screen: Open) -> None:
    jobs.execute("sleep 1000")
    someone, terminal = person(), screen(rows=50, columns=200)
    before = someone.seen.count("\a")
    job_id = jobs.execute("printf 'name? '; read x; printf 'age? '; read y; sleep 1000").job_id
    wait_until(lambda: jobs.status(job_id).waiting_for_input)
    wait_until(lambda: jobs.notice_prompts() or someone.seen.count("\a"), lambda rings: rings == before + 1)
    terminal.until(f"?{job_id} waits", f"{job_id} waits for input", "1 waits")
    for _ in range(3):
        jobs.notice_prompts()
    assert someone.seen.count("\a") == before + 1
    jobs.interact(job_id, "ada", pattern="age")
    wait_until(lambda: jobs.status(job_id).prompt, lambda prompt: prompt == "age? ")
    wait_until(lambda: jobs.notice_prompts() or someone.seen.count("\a"), lambda rings: rings == before + 2)
    jobs.interact(job_id, "36", wait=0)
    wait_until(lambda: jobs.status(job_id).waiting_for_input, lambda waiting: not waiting)
    jobs.notice_prompts()
    terminal.until(f"▸{job_id}")


def test_what_a_person_looks_at_is_marked_without_a_notice(jobs: Jobs, tmp_path: Path, screen: Open) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    job_id = jobs.execute(f"read x < {gate}; printf 'name? '; read x").job_id
    terminal = screen(rows=50, columns=200)
    terminal.press("C-b", "n")
    wait_until(lambda: jobs.host.tmux.panes()[job_id].viewers)
    gate.write_text("go\n")
    terminal.until("name?")
    wait_until(lambda: jobs.status(job_id).waiting_for_input)
    jobs.notice_prompts()
    assert "waits for" not in terminal.until(f"?{job_id} waits")


@pytest.mark.skipif(not terminals.LINUX, reason="elsewhere nothing tells who reads a terminal")
def test_waiting_for_input_is_marked_and_told_without_any_server(jobs: Jobs, tmux: Tmux, screen: Open) -> None:
    asks = "import getpass; getpass.getpass('Key of the vault: ')"
    job_id = jobs.execute(f'{PYTHON} -c "{asks}"; echo opened; exec sleep 1000').job_id
    terminal = screen(rows=50, columns=200)
    terminal.until(f"?{job_id} waits", f"{job_id} waits for a password", "1 waits")
    terminal.until(f"? {job_id}  waits for password  ", "Key of the vault:")
    tmux("send-keys", "-t", f"=mcp-jobs:{job_id}", "hunter2", "Enter")
    terminal.until(f"▸{job_id}", f"▸ {job_id}  running")
    wait_until(terminal.look, lambda text: "1 waits" not in text)


@pytest.mark.skipif(not terminals.LINUX, reason="elsewhere nothing tells who reads a terminal")
def test_visit_to_a_window_leaves_its_mark(jobs: Jobs, tmux: Tmux, screen: Open) -> None:
    job_id = jobs.execute("sleep 0.1; read -p 'name? ' x; sleep 1000").job_id
    terminal = screen(rows=50, columns=200)
    terminal.until(f"?{job_id} waits")
    stamp = tmux("display-message", "-p", "-t", f"=mcp-jobs:{job_id}", "#{window_activity}")
    # Times of tmux are whole seconds: the visit must come in another one.
    wait_until(time.time, lambda now: now > int(stamp) + 1)
    terminal.press("C-b", "n")
    terminal.until("name?")
    terminal.press("C-b", "p")
    terminal.until("Commands that a coding agent started", f"?{job_id} waits")
    tmux("send-keys", "-t", f"=mcp-jobs:{job_id}", "ada", "Enter")
    terminal.until(f"▸{job_id}")


@pytest.mark.skipif(not terminals.LINUX, reason="elsewhere nothing tells who reads a terminal")
def test_server_and_welcome_page_together_tell_it_once(jobs: Jobs, person: Callable[..., Person], screen: Open) -> None:
    jobs.execute("sleep 1000")
    someone, terminal = person(), screen(rows=50, columns=200)
    before = someone.seen.count("\a")
    job_id = jobs.execute("printf 'name? '; read x; sleep 1000").job_id
    wait_until(lambda: jobs.status(job_id).waiting_for_input)
    wait_until(lambda: jobs.notice_prompts() or someone.seen.count("\a"), lambda rings: rings > before)
    terminal.until(f"? {job_id}  waits for input  ", "name?")
    assert someone.seen.count("\a") == before + 1


@pytest.mark.skipif(not terminals.LINUX, reason="elsewhere nothing tells who reads a terminal")
def test_question_that_comes_after_its_read_is_told_once(
    jobs: Jobs, tmux: Tmux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "SETTLED_S", 600.0)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    job_id = jobs.execute(f"read x < {gate}; printf 'name? '; read x").job_id
    log = Path(jobs.status(job_id).log_path)
    [recorder] = wait_until(lambda: in_panes(jobs, "recorder", job_id))

    def told() -> str:
        prompts.mark(jobs.host, [jobs.host.look(job_id)], [], attended=True)
        return tmux("show-options", "-qv", "-t", "=mcp-jobs:", "@tmuxjobs_notice").strip()

    recorder.suspend()
    gate.write_text("go\n")
    wait_until(lambda: jobs.status(job_id).waiting_for_input)
    assert told() == ""
    recorder.resume()
    wait_until(log.read_bytes)
    os.utime(log, (0, time.time() - 700))
    assert told() == f"{job_id} waits for input"
    tmux("set-option", "-u", "-t", "=mcp-jobs:", "@tmuxjobs_notice")
    assert told() == ""

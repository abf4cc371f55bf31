"""Jobs in Slurm: the same log, keys, wait and kill; how they end is what Slurm says. On a real cluster of one node."""

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster import Cluster
from support import Jobs, Tmux, change_pane, ended, record_of, wait_until

from tmuxjobs import Settings
from tmuxjobs.errors import InvalidInput, NotAllowed, NotStarted
from tmuxjobs.system import processes, slurm


@pytest.fixture
def jobs(slurm_jobs: Jobs) -> Jobs:
    """Those that name no engine run here."""
    return Jobs.open(slurm_jobs.host.settings.model_copy(update={"engine": None}))


def in_slurm(jobs: Jobs, command: str, **more: Any) -> str:
    return jobs.execute(command, engine="slurm", **more).job_id


def shown(jobs: Jobs, job_id: str, text: str) -> None:
    wait_until(lambda: jobs.output(job_id).stdout, lambda output: text in output)


@pytest.fixture
def busy(jobs: Jobs) -> str:
    """A job that has the whole node, so that others are queued."""
    job_id = in_slurm(jobs, "echo r; sleep 1000", resources={"cpus": "2"})
    shown(jobs, job_id, "r\n")
    return job_id


def queued(jobs: Jobs, command: str, **more: Any) -> str:
    job_id = in_slurm(jobs, command, **more)
    wait_until(lambda: jobs.status(job_id).detail, lambda detail: "Resources" in detail or "Priority" in detail)
    return job_id


def test_job_in_slurm_has_a_terminal_its_output_and_its_exit_code(jobs: Jobs) -> None:
    job_id = in_slurm(jobs, "test -t 0 && stty size; echo err >&2; exit 3")
    status = ended(jobs, job_id)
    assert (status.status, status.exit_code, status.log) == ("failed", 3, "complete")
    assert jobs.output(job_id).stdout == "50 100\nerr\n"
    assert " on n1" in status.slurm


def test_log_of_a_job_in_slurm_has_every_byte(jobs: Jobs) -> None:
    job_id = in_slurm(jobs, "stty -opost; head -c 2000000 /dev/zero | tr '\\0' x; printf END")
    assert ended(jobs, job_id).log_bytes == 2_000_003
    assert jobs.tail(job_id, lines=1).stdout.rstrip().endswith("xEND")


def test_queued_job_says_why_and_takes_keys_once_it_runs(jobs: Jobs, cluster: Cluster, tmux: Tmux, busy: str) -> None:
    job_id = queued(jobs, "read x; echo got $x")
    state = "show-options", "-wv", "-t", f"=mcp-jobs:{job_id}", "@tmuxjobs_state"
    wait_until(lambda: tmux(*state), lambda found: found == "queued\n")
    found = jobs.list(status="queued").jobs[0]
    assert (found.job_id, f"queued {found.reason}") == (job_id, jobs.status(job_id).detail)
    for keys in ({"input": "early"}, {"keys": ["C-c"]}):
        with pytest.raises(InvalidInput, match="takes no input yet, so nothing was typed: queued in Slurm"):
            jobs.interact(job_id, **keys)
    jobs.kill(busy)
    wait_until(lambda: cluster.state(job_id), lambda state: state == "RUNNING")
    wait_until(lambda: tmux(*state), lambda found: found == "running\n")
    wait_until(lambda: answered(jobs, job_id))
    assert ended(jobs, job_id).exit_code == 0
    assert jobs.output(job_id).stdout.endswith("got late\n")


def stands(cluster: Cluster, job_id: str, *states: str) -> None:
    """Slurm says so, once it has completed what it does about the job."""
    wait_until(lambda: cluster.state(job_id), lambda state: state in states)


def answered(jobs: Jobs, job_id: str) -> bool:
    """Whether it takes input by now."""
    with contextlib.suppress(InvalidInput):
        jobs.interact(job_id, "late", wait=1)
        return True
    return False


def test_kill_lets_a_job_in_slurm_clean_up_and_leaves_nothing_there(jobs: Jobs, cluster: Cluster) -> None:
    job_id = in_slurm(jobs, "trap 'echo bye; exit 9' TERM; echo r; while :; do sleep 0.1; done")
    shown(jobs, job_id, "r\n")
    assert jobs.kill(job_id, grace=20).status == "killed"
    status = jobs.status(job_id)
    assert (status.reason, status.exit_code) == ("kill", 9)
    assert "bye" in jobs.output(job_id).stdout
    stands(cluster, job_id, "FAILED")


def test_kill_ends_a_stubborn_job_in_slurm(jobs: Jobs, cluster: Cluster) -> None:
    job_id = in_slurm(jobs, "trap '' TERM; echo r; while :; do sleep 0.1; done")
    shown(jobs, job_id, "r\n")
    jobs.kill(job_id, grace=0.3)
    status = jobs.status(job_id)
    assert (status.status, status.reason, status.signal) == ("killed", "kill", "SIGKILL")
    stands(cluster, job_id, "FAILED", "CANCELLED")


def test_kill_takes_a_queued_job_back(jobs: Jobs, cluster: Cluster, busy: str) -> None:
    job_id = queued(jobs, "echo never")
    assert jobs.kill(job_id).status == "killed"
    stands(cluster, job_id, "CANCELLED")
    assert jobs.output(job_id).stdout == ""


def test_signals_without_an_end_go_through_slurm(jobs: Jobs) -> None:
    job_id = in_slurm(jobs, "trap 'echo usr' USR1; echo r; while :; do sleep 0.1; done")
    shown(jobs, job_id, "r\n")
    assert jobs.kill(job_id, signal="USR1", end=False).status == "signalled"
    shown(jobs, job_id, "usr\n")


def test_paused_job_in_slurm_goes_on_when_it_is_resumed(jobs: Jobs) -> None:
    job_id = in_slurm(jobs, "echo r; read x; echo got $x")
    shown(jobs, job_id, "r\n")
    assert jobs.pause(job_id).status == "paused"
    jobs.interact(job_id, "it", wait=0.3)
    assert "got" not in jobs.output(job_id).stdout
    jobs.resume(job_id)
    shown(jobs, job_id, "got it\n")


def test_job_that_waits_for_its_turn_goes_to_slurm_then(jobs: Jobs) -> None:
    first = in_slurm(jobs, "read x")
    second = in_slurm(jobs, "echo second", after=[first])
    assert jobs.status(second).status == "queued"
    wait_until(lambda: answered(jobs, first))
    assert ended(jobs, second).exit_code == 0
    assert "on n1" in jobs.status(second).slurm


def test_timeout_counts_from_when_slurm_lets_it_run(jobs: Jobs, busy: str) -> None:
    job_id = queued(jobs, "echo r; sleep 1000", timeout=3)
    jobs.kill(busy)
    status = ended(jobs, job_id)
    assert (status.reason, jobs.output(job_id).stdout[:2]) == ("timeout", "r\n")
    spec = record_of(jobs, job_id).job
    assert spec.slurm is not None
    assert "--time=2" in spec.slurm


def test_cancellation_in_slurm_is_told_as_such(jobs: Jobs, cluster: Cluster) -> None:
    job_id = in_slurm(jobs, "echo r; sleep 1000")
    shown(jobs, job_id, "r\n")
    cluster.run(cluster.program("scancel") or "", f"--name={job_id}")
    status = ended(jobs, job_id)
    assert (status.status, status.reason) == ("killed", "slurm-cancelled")
    assert "because it was cancelled in Slurm" in status.detail


def test_signal_that_ended_the_command_is_told(jobs: Jobs) -> None:
    status = ended(jobs, in_slurm(jobs, "kill -SEGV $$"))
    assert (status.status, status.reason, status.signal) == ("killed", "signal", "SIGSEGV")


@pytest.mark.parametrize(
    ("resources", "why"),
    [({"partition": "nix"}, "nvalid partition"), ({"gpus": "9"}, "(gres|not available)")],
)
def test_what_slurm_refuses_does_not_start(jobs: Jobs, resources: dict[str, str], why: str) -> None:
    with pytest.raises(NotStarted, match=f"Slurm refused it: .*{why}"):
        in_slurm(jobs, "true", resources=resources)
    assert jobs.list().jobs == ()


def test_preemption_is_told(jobs: Jobs) -> None:
    low = in_slurm(jobs, "echo r; sleep 1000", resources={"partition": "low", "cpus": "2"})
    shown(jobs, low, "r\n")
    high = in_slurm(jobs, "echo r", resources={"partition": "main", "cpus": "2"})
    status = ended(jobs, low)
    assert (status.status, status.reason) == ("killed", "slurm-preempted")
    assert ended(jobs, high).exit_code == 0


def test_failed_node_is_told(jobs: Jobs, cluster: Cluster) -> None:
    job_id = in_slurm(jobs, "echo r; sleep 1000")
    shown(jobs, job_id, "r\n")
    control = cluster.program("scontrol") or ""
    cluster.run(control, "update", "nodename=n1", "state=down", "reason=test")
    try:
        status = ended(jobs, job_id)
    finally:
        cluster.run(control, "update", "nodename=n1", "state=resume")
    assert (status.status, status.reason) == ("killed", "slurm-node-fail")


def test_slurm_that_does_not_answer_is_said_and_loses_nothing(jobs: Jobs, cluster: Cluster, busy: str) -> None:
    job_id = queued(jobs, "echo done")
    controller = psutil.Process(cluster.processes["slurmctld"].pid)
    controller.suspend()
    try:
        wait_until(lambda: jobs.status(job_id).detail, lambda text: "Slurm has not answered since" in text, timeout=60)
    finally:
        controller.resume()
    jobs.kill(busy)
    assert ended(jobs, job_id).exit_code == 0


def of_job(jobs: Jobs, job_id: str) -> list[psutil.Process]:
    """Its runner and what is below."""
    run = record_of(jobs, job_id).run
    assert run is not None
    runner = psutil.Process(run.pid)
    return [runner, *runner.children(recursive=True)]


def die(process: psutil.Process, *, killed: bool = True) -> None:
    """Until it has ended. It may stay as a zombie: while libutempter works for tmux, it takes tmux's SIGCHLD away."""
    since = processes.start_of(process.pid)
    if killed:
        process.kill()
    wait_until(lambda: not processes.is_alive(process.pid, since))


@pytest.mark.parametrize("who", ["runner", "srun", "tmux"])
@pytest.mark.parametrize("is_queued", [False, True])
def test_nothing_is_left_in_slurm_of_whom_somebody_killed(
    jobs: Jobs, cluster: Cluster, tmux: Tmux, request: pytest.FixtureRequest, who: str, is_queued: bool
) -> None:
    others = [request.getfixturevalue("busy")] if is_queued else []
    job_id = queued(jobs, "echo never") if is_queued else in_slurm(jobs, "echo r; sleep 1000")
    if not is_queued:
        shown(jobs, job_id, "r\n")
    runner, srun, *_ = of_job(jobs, job_id)
    server = int(tmux("display-message", "-p", "#{pid}"))
    os.kill({"runner": runner.pid, "srun": srun.pid, "tmux": server}[who], signal.SIGKILL)
    wait_until(lambda: cluster.state(job_id), lambda state: state in ("CANCELLED", "FAILED"))
    assert ended(jobs, job_id).status == ("killed" if who != "runner" else "lost")
    assert len(others) == is_queued


def test_what_slurm_has_without_a_runner_is_named_and_killed(jobs: Jobs, cluster: Cluster, busy: str) -> None:
    job_id = queued(jobs, "sleep 1000")
    # Now and then the runner has a squeue beside it, which may just end.
    for process in of_job(jobs, job_id):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    for process in reversed(of_job(jobs, job_id)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    status = ended(jobs, job_id)
    assert (status.status, cluster.state(job_id)) == ("lost", "PENDING")
    assert "without a runner: `kill` cancels it" in status.slurm
    answer = jobs.kill(job_id)
    assert answer.status == "killed"
    stands(cluster, job_id, "CANCELLED")
    assert "cancelled job" in (answer.detail or "")


def test_restart_runs_it_in_slurm_again(jobs: Jobs) -> None:
    job_id = in_slurm(jobs, 'echo "in $SLURM_JOB_NAME"', resources={"cpus": "1"})
    ended(jobs, job_id)
    again = jobs.restart(job_id).job_id
    ended(jobs, again)
    assert jobs.output(again).stdout == f"in {again}\n"
    assert record_of(jobs, again).job.slurm == record_of(jobs, job_id).job.slurm


# By stand-ins for Slurm's commands: what one node cannot be brought to do.


@pytest.fixture
def stand_in(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Jobs]:
    """A Slurm whose `srun` runs the command, then is this script; its `squeue` is another."""

    def make(*, srun: str = "", squeue: str = "", partitions: tuple[str, ...] | None = ("any",)) -> Jobs:
        folder = isolated / "bin"
        folder.mkdir()
        change_pane(monkeypatch, isolated, "slurm.py", lambda text: text.replace("SETTLE_S = 10.0", "SETTLE_S = 0.2"))
        run = 'while [ "$1" != --pty ]; do shift; done; shift; "$@"; '
        for name, script in (("srun", run + srun), ("squeue", squeue), ("scancel", "")):
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o700)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return Jobs.open(Settings.load(slurm_partitions=partitions))

    return make


@pytest.mark.parametrize(
    ("state", "status", "reason", "words"),
    [
        ("OUT_OF_MEMORY|n1|0|OutOfMemory|", "killed", "slurm-out-of-memory", "took more memory than it had asked for"),
        ("TIMEOUT|n1|0|TimeLimit|", "killed", "slurm-timeout", "by Slurm at its time limit"),
        ("CANCELLED|n1|0|None|", "killed", "slurm-cancelled", "because it was cancelled in Slurm"),
        ("DEADLINE|n1|0|None|", "killed", "slurm-deadline", "at its deadline"),
        ("COMPLETED|n1|0|None|", "completed", "exit", "exit code 0"),
    ],
)
def test_slurms_own_word_is_the_end(
    stand_in: Callable[..., Jobs], state: str, status: str, reason: str, words: str
) -> None:
    jobs = stand_in(squeue=f"echo '7|{state}'")
    found = ended(jobs, in_slurm(jobs, "true"))
    assert (found.status, found.reason) == (status, reason)
    assert words in found.detail


def test_kill_of_an_ended_job_needs_no_answer_from_slurm(stand_in: Callable[..., Jobs], isolated: Path) -> None:
    jobs = stand_in(squeue="echo '7|COMPLETED|n1|0|None|'")
    job_id = in_slurm(jobs, "true")
    ended(jobs, job_id)
    (isolated / "bin" / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert jobs.kill(job_id).status == "already_terminated"


def test_job_that_slurm_ends_before_it_has_a_node_did_not_start(stand_in: Callable[..., Jobs]) -> None:
    jobs = stand_in(
        srun="echo 'srun: error: Requested node configuration' >&2", squeue="echo '7|FAILED||256|BadConstraints|'"
    )
    with pytest.raises(NotStarted, match="Slurm refused it: Requested node configuration"):
        in_slurm(jobs, "true")


def test_end_that_slurm_does_not_tell_is_not_guessed(stand_in: Callable[..., Jobs]) -> None:
    jobs = stand_in(srun="echo 'srun: error: Job step aborted' >&2", squeue="echo no controller >&2; exit 1")
    status = ended(jobs, in_slurm(jobs, "true"))
    assert (status.status, status.exit_code) == ("lost", None)
    assert "no controller" in status.detail


def test_exit_code_that_srun_tells_counts_where_slurm_does_not_answer(stand_in: Callable[..., Jobs]) -> None:
    jobs = stand_in(srun="exit 5", squeue="echo no controller >&2; exit 1")
    status = ended(jobs, in_slurm(jobs, "true"))
    assert (status.status, status.exit_code) == ("failed", 5)


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"cpus": "0"}, "resources.cpus is a number, like 4."),
        ({"memory": "4 GB"}, "resources.memory is megabytes, or like 16G."),
        ({"gpus": "--uid=0"}, "resources.gpus is a number, like 1 or a100:2."),
        ({"time": "soon"}, "resources.time is a duration, like 90m or 12h."),
        ({"time": "inf"}, "resources.time is a duration, like 90m or 12h."),
        ({"partition": "a b"}, "resources.partition is a name."),
        ({"qos": "high"}, "'qos' is not a resource; there are cpus, memory, gpus, time, partition, detach."),
    ],
)
def test_wrong_resource_is_said_in_one_sentence(
    stand_in: Callable[..., Jobs], resources: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidInput) as error:
        in_slurm(stand_in(), "true", resources=resources)
    assert str(error.value) == said


def test_resources_become_options(stand_in: Callable[..., Jobs]) -> None:
    jobs = stand_in(squeue="echo '7|COMPLETED|n1|0|None|'")
    asked = {"cpus": "4", "memory": "16G", "gpus": "a100:2", "time": "90m", "partition": "gpu"}
    job_id = in_slurm(jobs, "true", resources=asked, timeout=10)
    slurm_options = (record_of(jobs, job_id).job.slurm or ())[1:]
    options = "--cpus-per-task=4 --mem=16G --gpus=a100:2 --time=90 --partition=gpu"
    assert slurm_options == tuple(options.split())


def test_agents_have_the_partitions_that_a_person_allows(stand_in: Callable[..., Jobs]) -> None:
    jobs = stand_in(squeue="echo '7|COMPLETED|n1|0|None|'", partitions=("debug", "small")).called_by("agent")
    job_id = in_slurm(jobs, "true")
    assert "--partition=debug" in (record_of(jobs, job_id).job.slurm or ())
    with pytest.raises(NotAllowed, match="the partitions debug, small here, not 'debug,main'"):
        in_slurm(jobs, "true", resources={"partition": "debug,main"})


def test_agents_have_no_slurm_by_default(stand_in: Callable[..., Jobs]) -> None:
    jobs = stand_in(partitions=None).called_by("agent")
    with pytest.raises(NotAllowed, match="TMUXJOBS_SLURM_PARTITIONS"):
        in_slurm(jobs, "true")


def test_inside_of_a_slurm_job_another_one_is_asked_for() -> None:
    inside = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_CONF": "/c", "PATH": "/bin"}
    assert slurm.outside(inside) == {"SLURM_CONF": "/c", "PATH": "/bin"}
    assert slurm.outside({"SLURM_PARTITION": "x"}) == {"SLURM_PARTITION": "x"}


# By sbatch.


def by_sbatch(jobs: Jobs, command: str, resources: dict[str, str] | None = None, **more: Any) -> str:
    return in_slurm(jobs, command, resources={**(resources or {}), "detach": "true"}, **more)


def test_job_of_sbatch_has_its_log_its_code_and_its_folder(jobs: Jobs, isolated: Path, tmux: Tmux) -> None:
    job_id = by_sbatch(jobs, "pwd; echo $V; umask; echo err >&2; exit 3", cwd=str(isolated), env={"V": "a 'b'"})
    status = ended(jobs, job_id)
    assert (status.status, status.exit_code, status.log) == ("failed", 3, "complete")
    assert jobs.output(job_id).stdout == f"{isolated}\na 'b'\n{jobs.host.umask:04o}\nerr\n"
    assert " on n1" in status.slurm
    folder = jobs.host.store.folder(job_id)
    assert (folder / "output.log").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in folder.iterdir()} == {
        "job.json",
        "exit.json",
        "slurm.json",
        "output.log",
        "code",
        "run.json",
    }
    wait_until(lambda: "err" in tmux("capture-pane", "-p", "-t", f"=mcp-jobs:{job_id}"))


def test_job_of_sbatch_takes_no_input_and_says_why(jobs: Jobs) -> None:
    job_id = by_sbatch(jobs, "echo r; sleep 1000")
    shown(jobs, job_id, "r\n")
    with pytest.raises(InvalidInput, match="has no terminal, so nothing was typed"):
        jobs.interact(job_id, "x")
    assert jobs.kill(job_id).status == "killed"
    assert (jobs.status(job_id).reason, jobs.status(job_id).status) == ("kill", "killed")


def test_kill_lets_a_job_of_sbatch_clean_up(jobs: Jobs, cluster: Cluster) -> None:
    job_id = by_sbatch(jobs, "trap 'echo bye; exit 9' TERM; echo r; while :; do sleep 0.1; done")
    shown(jobs, job_id, "r\n")
    assert jobs.kill(job_id, grace=20).status == "killed"
    assert jobs.status(job_id).exit_code == 9
    assert jobs.output(job_id).stdout.endswith("bye\n")
    stands(cluster, job_id, "FAILED")


def test_kill_ends_a_stubborn_job_of_sbatch_and_one_that_is_queued(jobs: Jobs, cluster: Cluster) -> None:
    stubborn = by_sbatch(jobs, "trap '' TERM; echo r; while :; do sleep 0.1; done", {"cpus": "2"})
    shown(jobs, stubborn, "r\n")
    waits = by_sbatch(jobs, "echo never")
    wait_until(lambda: jobs.status(waits).status, lambda status: status == "queued")
    assert jobs.kill(waits).status == "killed"
    jobs.kill(stubborn, grace=0.3)
    assert {jobs.status(one).status for one in (stubborn, waits)} == {"killed"}
    for one in (stubborn, waits):
        stands(cluster, one, "CANCELLED")
    assert jobs.output(waits).stdout == ""


@pytest.mark.parametrize("who", ["runner", "tmux"])
def test_job_of_sbatch_outlives_whom_somebody_killed(
    jobs: Jobs, cluster: Cluster, tmux: Tmux, tmp_path: Path, who: str
) -> None:
    go = tmp_path / "go"
    first = by_sbatch(jobs, f"echo r; until [ -e {go} ]; do sleep 0.1; done; echo end; exit 4", {"cpus": "1"})
    second = by_sbatch(jobs, "echo r; sleep 1000", {"cpus": "1"})
    for job_id in (first, second):
        shown(jobs, job_id, "r\n")
    runners = [of_job(jobs, job_id)[0] for job_id in (first, second)]
    if who == "tmux":
        os.kill(int(tmux("display-message", "-p", "#{pid}")), signal.SIGKILL)
    for runner in runners:
        die(runner, killed=who == "runner")
    status = jobs.status(first)
    assert status.status == "running"
    assert "in Slurm; its window is gone" in status.detail
    assert "on n1" in status.slurm
    assert jobs.kill(second).status == "killed"
    assert (jobs.status(second).status, jobs.status(second).reason) == ("killed", "kill")
    stands(cluster, second, "CANCELLED")
    go.touch()
    waited = jobs.wait(first, timeout=40)
    assert (waited.status, waited.exit_code, jobs.output(first).stdout) == ("failed", 4, "r\nend\n")
    assert jobs.status(first).log == "complete"


def test_terminal_that_a_gone_runner_had_is_not_the_job_s(jobs: Jobs) -> None:
    job_id = by_sbatch(jobs, "echo r; sleep 1000")
    shown(jobs, job_id, "r\n")
    wait_until(lambda: jobs.status(job_id).status, lambda status: status == "running")
    die(of_job(jobs, job_id)[0])
    asks = jobs.execute("read x").job_id
    wait_until(lambda: jobs.status(asks).waiting_for_input)
    path = jobs.host.store.folder(job_id) / "run.json"
    tty = (record_of(jobs, asks).run or pytest.fail("it does not run")).tty
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tty": tty}))
    assert not jobs.status(job_id).waiting_for_input
    assert jobs.wait(job_id, timeout=1.5).reason == "timeout"


def test_end_of_a_job_of_sbatch_is_known_when_slurm_has_forgotten_it(jobs: Jobs, isolated: Path) -> None:
    job_id = by_sbatch(jobs, "echo r; until [ -e go ]; do sleep 0.1; done; exit 4", cwd=str(isolated))
    shown(jobs, job_id, "r\n")
    die(of_job(jobs, job_id)[0])
    (isolated / "go").touch()
    wait_until((jobs.host.store.folder(job_id) / "code").exists)
    script = isolated / "squeue"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o700)
    real = record_of(jobs, job_id)
    name = real.job.slurm or ()
    for program in ("sacct", "scancel", "srun"):
        (isolated / program).symlink_to(Path(name[0]).with_name(program))
    spec = real.job.model_copy(update={"slurm": (str(isolated / "srun"),)})
    (real and jobs.host.store.folder(job_id) / "job.json").write_text(spec.model_dump_json())
    status = jobs.status(job_id)
    assert (status.status, status.exit_code) == ("failed", 4)


def test_controller_that_is_restarted_loses_no_job_of_sbatch(jobs: Jobs, cluster: Cluster, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job_id = by_sbatch(jobs, f"echo r; until [ -e {go} ]; do sleep 0.1; done; echo end")
    shown(jobs, job_id, "r\n")
    wait_until(lambda: jobs.status(job_id).status, lambda status: status == "running")
    controller = cluster.processes["slurmctld"]
    controller.terminate()
    controller.wait(20)
    try:
        assert jobs.status(job_id).status == "running"
    finally:
        cluster.start("slurmctld", str(cluster.folder / "slurmctld"), "-D")
    go.touch()
    status = ended(jobs, job_id)
    assert (status.status, status.exit_code, jobs.output(job_id).stdout) == ("completed", 0, "r\nend\n")


def test_closed_window_ends_a_job_of_sbatch(jobs: Jobs, cluster: Cluster, tmux: Tmux) -> None:
    job_id = by_sbatch(jobs, "echo r; sleep 1000")
    shown(jobs, job_id, "r\n")
    tmux("kill-window", "-t", f"=mcp-jobs:{job_id}")
    assert ended(jobs, job_id).reason == "window-closed"
    stands(cluster, job_id, "CANCELLED", "FAILED")


def test_time_limit_of_slurm_is_told(jobs: Jobs, cluster: Cluster) -> None:
    job_id = by_sbatch(jobs, "echo r; sleep 1000", {"time": "1m"})
    shown(jobs, job_id, "r\n")
    number = jobs.status(job_id).slurm.split()[1].rstrip(",")
    cluster.run(cluster.program("scontrol") or "", "update", f"jobid={number}", "TimeLimit=0:01")
    status = ended(jobs, job_id, timeout=120)
    assert (status.status, status.reason) == ("killed", "slurm-timeout")


def test_log_of_a_job_of_sbatch_is_the_command_s_alone(jobs: Jobs, cluster: Cluster) -> None:
    crashed = by_sbatch(jobs, "ulimit -c 0; echo r; kill -SEGV $$")
    cancelled = by_sbatch(jobs, "echo r; exec sleep 1000")
    shown(jobs, cancelled, "r\n")
    cluster.run(cluster.program("scancel") or "", f"--name={cancelled}")
    assert ended(jobs, crashed).exit_code == 128 + signal.SIGSEGV
    assert ended(jobs, cancelled).reason == "slurm-cancelled"
    assert [jobs.output(one).stdout for one in (crashed, cancelled)] == ["r\n", "r\n"]


def test_log_of_a_cancelled_srun_has_one_line_of_slurm_s(jobs: Jobs) -> None:
    job_id = in_slurm(jobs, "echo r; exec sleep 1000")
    shown(jobs, job_id, "r\n")
    jobs.kill(job_id)
    first, *others = jobs.output(job_id).stdout.splitlines()
    assert first == "r"
    assert all(re.fullmatch(r"slurmstepd.*: error: \*\*\* STEP .* CANCELLED .*", line) for line in others)


def test_job_of_sbatch_that_an_administrator_requeues_is_queued_and_runs_again(jobs: Jobs, cluster: Cluster) -> None:
    job_id = by_sbatch(jobs, "echo r; [ -e went ] || { touch went; exec sleep 1000; }", cwd=os.environ["HOME"])
    shown(jobs, job_id, "r\n")
    status = wait_until(lambda: jobs.status(job_id), lambda status: "RUNNING" in status.slurm)
    number, control = status.slurm.split()[1].rstrip(","), cluster.program("scontrol") or ""
    cluster.run(control, "requeue", number)
    assert jobs.status(job_id).status == "running"  # it was given as one that is not to be
    cluster.run(control, "update", f"jobid={number}", "requeue=1")
    cluster.run(control, "requeue", number)
    wait_until(lambda: jobs.status(job_id).status, lambda status: status == "queued")
    cluster.run(control, "update", f"jobid={number}", "StartTime=now")
    assert ended(jobs, job_id, timeout=120).status == "completed"
    assert jobs.output(job_id).stdout == "r\nr\n"


@pytest.mark.parametrize("detach", ["true", "false"])
def test_accounting_says_who_cancelled(stand_in: Callable[..., Jobs], isolated: Path, detach: str) -> None:
    jobs = stand_in(squeue="echo '7|CANCELLED|n1|0|None|5:01|'")
    for name, script in (("sbatch", "echo 7"), ("sacct", "echo '7|CANCELLED by 4711|n1|0:15|None|301'")):
        (isolated / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (isolated / "bin" / name).chmod(0o700)
    status = ended(jobs, in_slurm(jobs, "true", resources={"detach": detach}))
    assert (status.status, status.reason) == ("killed", "slurm-cancelled")
    assert "by user 4711" in status.detail


def test_log_of_a_job_of_sbatch_has_no_bound(stand_in: Callable[..., Jobs]) -> None:
    with pytest.raises(InvalidInput, match="so max_output_size cannot bound it"):
        by_sbatch(stand_in(), "true", max_output_size="1MB")


def test_what_sbatch_refuses_does_not_start(jobs: Jobs, cluster: Cluster) -> None:
    with pytest.raises(NotStarted, match=r"Slurm refused it: .*nvalid partition"):
        by_sbatch(jobs, "true", {"partition": "nix"})
    assert jobs.list().jobs == ()


def test_time_used_is_read() -> None:
    assert [slurm.used(text) for text in ("0:07", "1:02:03", "2-00:00:01", "INVALID")] == [7, 3723, 172801, 0]


def test_exit_code_is_read_as_old_and_new_ones_tell_it() -> None:
    told = {"": 0, "0": 0, "768": 3 << 8, "9": 9, "0:0": 0, "3:0": 3 << 8, "0:15": 15, "255:0": 255 << 8}
    assert {text: slurm.status_of(text) for text in told} == told
    for text in ("n/a", "1:2:3", "-1"):
        with pytest.raises(slurm.Silent, match=f"unknown exit code: {text}"):
            slurm.status_of(text)


@pytest.mark.parametrize(("code", "status"), [("0:9", 9), ("4:0", 4 << 8), ("odd", None)])
def test_accounting_is_read_or_counts_as_none(tmp_path: Path, code: str, status: int | None) -> None:
    (tmp_path / "sacct").write_text(f"#!/bin/sh\necho '7|FAILED|n1|{code}|None|3'\n")
    (tmp_path / "sacct").chmod(0o755)
    found = slurm.kept(str(tmp_path / "srun"), "7", dict(os.environ))
    assert (found.status if found else None) == status

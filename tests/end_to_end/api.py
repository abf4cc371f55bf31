"""What a type checker sees of the public API, each verb used as the README describes it. Checked, never run."""

from collections.abc import Awaitable
from typing import assert_type

from tmuxjobs import Held, Jobs, NotStarted, Settings, TmuxjobsError
from tmuxjobs.answers import (
    Adopted,
    Diagnosis,
    Found,
    HoldAnswer,
    Kill,
    Output,
    Ran,
    Restarted,
    Screen,
    Started,
    Waited,
)
from tmuxjobs.job_answers import Edited, Fetched, Group, JobList, JobStatus
from tmuxjobs.verbs.files import Mirror
from tmuxjobs.verbs.output import Whole

jobs = assert_type(Jobs.open(Settings(max_jobs=20)), Jobs)
agent = assert_type(Jobs.open(caller="agent"), Jobs)


def starts() -> None:
    started = assert_type(jobs.execute("make -j4", name="build", timeout=600, env={"CI": "1"}, host="gpu1"), Started)
    print(started.job_id, started.host, started.status, started.log_path, started.attach)
    ran = assert_type(jobs.execute("make", wait=60, pattern="ready", until="pattern"), Ran)
    print(ran.job_id, ran.exit_code, ran.stdout, ran.stderr, ran.log_path, ran.attach)
    whole: Started = ran
    restarted: Started = assert_type(jobs.restart(whole.job_id, env={"CI": "1"}), Restarted)
    fetched = assert_type(jobs.fetch(jobs.execute("make", host="gpu1", sync=".").job_id, "out", to="."), Fetched)
    print(fetched.to, fetched.files, fetched.size_bytes)
    adopted: Started = assert_type(jobs.adopt("@3", name="mine"), Adopted)
    print(restarted.attach, adopted.attach, jobs.adoptable(), jobs.attach(started.job_id))


def reads(job_id: str) -> None:
    assert_type(jobs.list(status="running", limit=5, name="build"), JobList)
    status = assert_type(jobs.status(job_id), JobStatus)
    assert_type(status.exit_code, int | None)
    cursor = assert_type(jobs.output(job_id, cursor=0, max_bytes=1000), Output).cursor
    assert_type(jobs.tail(job_id, lines=5), Output)
    assert_type(jobs.search(job_id, "error", context=2), Found)
    assert_type(jobs.screen(job_id), Screen)
    for page in jobs.follow(job_id, cursor=cursor):
        assert_type(page, Output)
    assert_type(jobs.wait([job_id], mode="all", timeout=60, url="http://localhost:3000"), Waited)


def acts(job_id: str) -> None:
    try:
        assert_type(agent.interact(job_id, "yes", pattern="name"), Output)
        assert_type(agent.kill(job_id), Kill)
    except Held as error:
        print(error)
    except (NotStarted, TmuxjobsError) as error:
        print(error)
    assert_type(jobs.hold(job_id), HoldAnswer)
    assert_type(jobs.release(job_id), HoldAnswer)
    assert_type(jobs.doctor(fix=True), Diagnosis)
    assert_type(jobs.prune(), list[str])
    jobs.notice_prompts()
    assert_type(jobs.pause(job_id), Edited)
    assert_type(jobs.group("tests", limit=4), Group)
    assert_type(jobs.resume(job_id), Edited)
    assert_type(jobs.queue(job_id, first=True), Edited)
    print(jobs.token(new=False), jobs.token_value(), jobs.usage, jobs.last_lines, jobs.events)


def for_edges(job_id: str) -> None:
    """What the server and the command line have of it."""
    print(jobs.whole_id("build"), jobs.with_window(), jobs.running(), jobs.move_on)
    assert_type(jobs.whole(job_id), Whole)
    assert_type(jobs.mirror(job_id), Mirror)
    assert_type(jobs.type(job_id, b"x"), int)
    for entry in jobs.follow_events():
        print(entry and jobs.event_line(entry))
    print(agent.also_ended(known=[job_id]), agent.mark_reported([job_id]))
    print(jobs.approve(job_id), jobs.refuse(job_id, why="no"), jobs.settle(job_id, approved=False, how="key"))
    print([deed.text() for deed in jobs.history(job_id)], agent.check("ls", cwd="/tmp").kind)
    task = agent.create_task("wait", {}, begins=agent.task_begins([job_id]), bound_s=60)
    print(agent.read_task(task.task_id), agent.check_task(task, Waited.fields), agent.cancel_task(task))


async def waits(job_id: str) -> None:
    assert_type(await jobs.wait_async(job_id, until="input", idle=3), Waited)
    answer: Awaitable[Output] = jobs.interact_async(job_id, keys=["C-c"])
    assert_type(await answer, Output)


def mistakes(job_id: str) -> None:
    """Each is an error to the checker: an ignore without one is an error itself."""
    print(jobs.execute("make").exit_code)  # type: ignore[attr-defined]
    jobs.execute(["make"])  # type: ignore[call-overload]
    jobs.execute("make", wait="long")  # type: ignore[call-overload]
    jobs.status()  # type: ignore[call-arg]
    jobs.tail(job_id, lines="5")  # type: ignore[arg-type]
    jobs.wait(job_id, until="never")  # type: ignore[arg-type]
    jobs.kil(job_id)  # type: ignore[attr-defined]

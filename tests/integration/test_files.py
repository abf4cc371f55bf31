"""Files to and from another host: the copy of a folder that a job runs in, and results that come back."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from far import LOCAL, Far
from support import Jobs, server_of, wait_until

from tmuxjobs import Settings
from tmuxjobs.errors import HostError, InvalidInput, NotAllowed, TmuxjobsError
from tmuxjobs.hosts import rsync

LIBRARIES = ":".join(map(str, (LOCAL / "usr" / "lib").glob("*-linux-gnu")))
SLOWLY = "--bwlimit=5000"
"""A copy of 100 MB takes 20 s, and what is done meanwhile comes before its end."""
HOSTILE = [
    "a b",
    "new\nline",
    "-e sh",
    "host:path",
    "#no comment",
    ";semi",
    "*",
    "[x]",
    "$(touch x)",
    "'q\"",
    "ä",
    "...",
]


@pytest.fixture(autouse=True)
def has_rsync(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("rsync") is None:
        if not (LOCAL / "usr/bin/rsync").exists():
            pytest.skip("rsync is not installed")
        monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{LOCAL}/usr/bin")
        monkeypatch.setenv("LD_LIBRARY_PATH", LIBRARIES)


@pytest.fixture
def far_jobs(far: Far, far_jobs: Jobs) -> Iterator[Jobs]:
    """There rsync is found, too."""
    change(far, "cd\n", f"PATH=$PATH:{LOCAL}/usr/bin LD_LIBRARY_PATH={LIBRARIES}; export LD_LIBRARY_PATH\ncd\n")
    return far_jobs


def change(far: Far, before: str, after: str) -> None:
    path = far.folder / "enter"
    path.write_text(path.read_text().replace(before, after))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "my: project"
    folder.mkdir()
    write(folder, {"train.py": "print('v1')\n", "data/in.txt": "in\n", ".gitignore": "*.log\n/big/\n!keep.log\n"})
    write(folder, {"noise.log": "no", "keep.log": "yes", "big/blob": "no"})
    return folder


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def copied(far: Far) -> Path:
    [copy] = (far.state / "files").iterdir()
    return copy


def there(far: Far) -> set[str]:
    """The files of the one copy, by their paths in it."""
    copy = copied(far)
    return {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_symlink() or not path.is_dir()}


def run(jobs: Jobs, command: str, project: Path, **more: str) -> str:
    answer = jobs.execute(command, sync=str(project), wait=30, **more)
    assert answer.status == "completed", answer
    return answer.stdout


@pytest.mark.parametrize("is_repository", [False, True])
def test_job_runs_in_a_copy_without_what_gitignore_names(
    far: Far, far_jobs: Jobs, project: Path, is_repository: bool
) -> None:
    if is_repository:
        subprocess.run(["git", "init", "-q", project], check=True)
    assert run(far_jobs, "cat train.py; hostname", project) == "print('v1')\ngpu1\n"
    assert there(far) == {"train.py", "data/in.txt", ".gitignore", "keep.log"}
    assert copied(far).parent.stat().st_mode & 0o777 == 0o700


def test_copy_follows_changes_and_keeps_what_jobs_made(far: Far, far_jobs: Jobs, project: Path) -> None:
    run(far_jobs, "mkdir out; echo result > out/r; echo x > noise.log", project)
    (project / "train.py").write_text("print('v2, longer')\n")
    (project / "data/in.txt").rename(project / "data/new.txt")
    assert run(far_jobs, "cat train.py", project) == "print('v2, longer')\n"
    assert there(far) == {"train.py", "data/new.txt", ".gitignore", "keep.log", "out/r", "noise.log"}


def test_what_a_job_has_linked_in_the_copy_loses_no_file(far: Far, far_jobs: Jobs, project: Path) -> None:
    outside = far.home / "outside"
    write(outside, {"in.txt": "kept"})
    run(far_jobs, f"rm -r data; ln -s {outside} data", project)
    shutil.rmtree(project / "data")
    run(far_jobs, "true", project)
    assert (outside / "in.txt").read_text() == "kept"


def test_file_becomes_a_folder_and_a_folder_a_file(far: Far, far_jobs: Jobs, project: Path) -> None:
    run(far_jobs, "true", project)
    (project / "train.py").unlink()
    shutil.rmtree(project / "data")
    write(project, {"train.py/main.py": "x", "data": "y"})
    assert run(far_jobs, "cat train.py/main.py data", project) == "xy"


def test_copy_goes_with_the_last_job_that_ran_in_it(far: Far, far_jobs: Jobs, project: Path) -> None:
    jobs = Jobs.open(far_jobs.host.settings.model_copy(update={"keep_jobs": 1}))
    run(jobs, "echo result > r", project)
    copy = copied(far)
    os.utime(copy, (0, 0))
    jobs.prune(everywhere=True)
    assert (copy / "r").exists()
    jobs.execute("true", wait=30)
    with contextlib.suppress(FileNotFoundError):  # the clean-up at that start came after its end
        os.utime(copy, (0, 0))
    jobs.prune(everywhere=True)
    wait_until(lambda: list(copy.parent.iterdir()), lambda left: left == [])
    assert run(jobs, "cat train.py", project) == "print('v1')\n"
    jobs._hosts.close()


def test_copy_that_has_no_job_yet_stays(far: Far, far_jobs: Jobs, project: Path) -> None:
    run(far_jobs, "true", project)
    shutil.rmtree(far.state / "jobs" / far_jobs.list().jobs[0].job_id)
    far_jobs.prune(everywhere=True)
    assert copied(far).is_dir()


def test_copy_stays_while_a_record_cannot_be_read(far: Far, far_jobs: Jobs, project: Path) -> None:
    job_id = far_jobs.execute("true", wait=30).job_id
    run(far_jobs, "true", project)
    shutil.rmtree(far.state / "jobs" / far_jobs.list().jobs[0].job_id)
    os.utime(copied(far), (0, 0))
    (far.state / "jobs" / job_id / "exit.json").write_text("{")
    far_jobs.prune(everywhere=True)
    assert copied(far).is_dir()


def test_cwd_is_a_folder_of_the_copy(far: Far, far_jobs: Jobs, project: Path) -> None:
    assert run(far_jobs, "cat in.txt", project, cwd="data") == "in\n"
    for cwd in ("nope", "../.."):
        with pytest.raises(InvalidInput, match="is not a directory in"):
            far_jobs.execute("true", sync=str(project), cwd=cwd)


def test_restart_brings_the_copy_up_to_date(far_jobs: Jobs, project: Path) -> None:
    job_id = far_jobs.execute("cat train.py", sync=str(project), wait=30).job_id
    (project / "train.py").write_text("print('v2, longer')\n")
    again = far_jobs.restart(job_id).job_id
    assert far_jobs.wait(again, timeout=30).stdout == "print('v2, longer')\n"


def test_hostile_names_come_as_they_are(far: Far, far_jobs: Jobs, project: Path) -> None:
    write(project, {f"{name}/{name}": name for name in HOSTILE})
    os.symlink("/etc/passwd", project / "outside")
    os.symlink("train.py", project / "inside")
    os.symlink(project.parent, project / "up")
    run(far_jobs, "true", project)
    copy = copied(far)
    assert {name: (copy / name / name).read_text() for name in HOSTILE} == {name: name for name in HOSTILE}
    assert (os.readlink(copy / "outside"), os.readlink(copy / "inside")) == ("/etc/passwd", "train.py")
    assert (copy / "up").is_symlink()
    home = {path.name for path in far.home.iterdir()}
    assert home == {"state"}


def test_hostile_names_are_fetched_as_they_are(far: Far, far_jobs: Jobs, project: Path) -> None:
    job_id = far_jobs.execute("true", sync=str(project), wait=30).job_id
    write(copied(far) / "out", {name: name for name in HOSTILE})
    fetched = far_jobs.fetch(job_id, [f"out/{name}" for name in HOSTILE])
    assert {name: (project / "out" / name).read_text() for name in HOSTILE} == {name: name for name in HOSTILE}
    assert len(fetched.files) == len(HOSTILE)
    assert fetched.to == str(project)


def test_results_come_under_the_same_paths(far: Far, far_jobs: Jobs, project: Path, tmp_path: Path) -> None:
    made = "mkdir -p ../out/run1; echo 1 > ../out/run1/a; echo 22 > b"
    job_id = far_jobs.execute(made, sync=str(project), cwd="data", wait=30).job_id
    answer = far_jobs.fetch(job_id, "b")
    assert (answer.files, answer.size_bytes, (project / "data/b").read_text()) == (("b",), 3, "22\n")
    assert "already" in far_jobs.fetch(job_id, "b").text()
    far_jobs.fetch(job_id, [str(copied(far) / "out")], to=str(tmp_path / "to"))
    assert (tmp_path / "to/out/run1/a").read_text() == "1\n"
    plain = far_jobs.execute("echo c > c", wait=30).job_id
    far_jobs.fetch(plain, "c", to=str(tmp_path))
    assert (tmp_path / "c").read_text() == "c\n"


def test_what_is_left_out_of_what_is_fetched_is_named(far: Far, far_jobs: Jobs, project: Path) -> None:
    made = "mkdir out; ln -s /etc/passwd out/bad; ln -s ../../../x out/up; echo 1 > out/a; ln -s a out/good; mkfifo p"
    job_id = far_jobs.execute(made, sync=str(project), wait=30).job_id
    leads_out = "(a link that leads out of the folder)"
    assert far_jobs.fetch(job_id, "out").note == f"left out: out/bad {leads_out}, out/up {leads_out}"
    assert {path.name for path in (project / "out").iterdir()} == {"a", "good"}
    assert far_jobs.fetch(job_id, "out/a").text() == f"Fetched nothing into {project}.\n[all of that is here already]"
    alone = far_jobs.fetch(job_id, ["p", "out/bad"])
    assert (alone.files, alone.note) == ((), f"left out: p (not a regular file), out/bad {leads_out}")


def test_under_a_policy_jobs_run_there_in_copies_and_where_roots_name_it(
    far: Far, far_jobs: Jobs, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (project / "sub").mkdir()
    (project / "sub" / "f").touch()

    def agent(**policy: object) -> Jobs:
        given = Settings.load(ssh=far.ssh, hosts="gpu1", host="gpu1", policy={"default": "allow", **policy})
        return Jobs.open(given).called_by("agent")

    jobs = agent()
    ran = jobs.execute("pwd; echo hi > g; ln -s / out", sync=".", wait=30)
    assert (ran.status, ran.stdout) == ("completed", f"{copied(far)}\n")
    assert jobs.restart(ran.job_id).job_id
    assert jobs.execute("ls", sync=".", cwd="sub", wait=30).status == "completed"
    for cwd, line in (
        (None, "ls"),
        (str(copied(far) / "out"), "ls"),
        (str(copied(far)), "ls > ~/x"),
        (str(copied(far)), "ls > out/x"),
    ):
        with pytest.raises(NotAllowed, match="This is not allowed"):
            jobs.execute(line, cwd=cwd)
    with pytest.raises(NotAllowed, match="there; `roots` may name it as 'gpu1:/path'"):
        jobs.execute("ls")
    jobs._hosts.close()
    named = agent(roots=[f"gpu1:{far.home}", "gpu2:/"])
    assert named.execute("echo a > a", wait=30).status == "completed"
    with pytest.raises(NotAllowed, match="it is not below"):
        named.execute("ls", cwd="/")
    named._hosts.close()


def test_under_a_policy_only_what_a_line_may_write_is_fetched(
    far: Far, far_jobs: Jobs, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (project / ".git").mkdir()
    made = "mkdir -p out/.GIT hooks away; echo 1 | tee tmuxjobs.toml out/.GIT/config hooks/x away/x out/a"
    job_id = far_jobs.execute(made, sync=str(project), wait=30).job_id
    (project / "hooks").symlink_to(".git")
    (project / "away").symlink_to("/tmp")

    def agent(tools: str) -> Jobs:
        policy = {"default": "allow", "tools": tools}
        return Jobs.open(Settings.load(ssh=far.ssh, hosts="gpu1", scope="all", policy=policy)).called_by("agent")

    jobs = agent("full")
    said = r"This is not allowed: `.*`: it writes .*It was not fetched"
    for paths in (["tmuxjobs.toml"], ["out/a", "out"], ["out/.GIT/config"], ["hooks/x"]):
        with pytest.raises(NotAllowed, match=said) as error:
            jobs.fetch(job_id, paths)
        assert "\n" not in str(error.value)
    # rsync 3.4 and newer refuse this by themselves.
    with pytest.raises((NotAllowed, HostError), match=f"({said}|Too many levels of symbolic links)"):
        jobs.fetch(job_id, ["away/x"])
    assert not (project / "out").exists()
    assert jobs.fetch(job_id, "out/a").files == ("out/a",)
    jobs._hosts.close()
    reading = agent("read-only")
    with pytest.raises(NotAllowed, match="gives agents no `fetch`"):
        reading.fetch(job_id, "out/a")
    reading._hosts.close()


@pytest.mark.parametrize(
    ("paths", "said"), [(["nope"], "nope"), ([], "Name what"), (["."], "not all of it"), ("", "not all of it")]
)
def test_what_cannot_be_fetched_is_said(far_jobs: Jobs, project: Path, paths: list[str], said: str) -> None:
    job_id = far_jobs.execute("true", sync=str(project), wait=30).job_id
    with pytest.raises(TmuxjobsError, match=said) as error:
        far_jobs.fetch(job_id, paths)
    assert "\n" not in str(error.value)


def test_agent_copies_within_its_project_and_the_job_s_folder(
    far: Far, far_jobs: Jobs, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    agent = Jobs.open(Settings.load(ssh=far.ssh, hosts="gpu1", host="gpu1")).called_by("agent")
    job_id = agent.execute("echo 1 > r", sync=".", wait=30).job_id
    assert agent.fetch(job_id, "r").files == ("r",)
    with pytest.raises(NotAllowed, match="in the job's folder"):
        agent.fetch(job_id, "../../tmuxjobs.json")
    with pytest.raises(NotAllowed, match="of their project"):
        agent.fetch(job_id, "r", to="..")
    with pytest.raises(NotAllowed, match="of their project"):
        agent.execute("true", sync="..")
    agent._hosts.close()


def test_folder_that_cannot_be_copied_is_said(
    jobs: Jobs, far_jobs: Jobs, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match="`sync` needs `host`"):
        jobs.execute("true", sync=".")
    with pytest.raises(InvalidInput, match="is not a directory here"):
        far_jobs.execute("true", sync=str(project / "train.py"))
    with pytest.raises(InvalidInput, match="nothing to copy"):
        far_jobs.execute("true", sync=str(far_jobs.host.settings.state_dir / "hosts" / "gpu1" / "jobs"))
    monkeypatch.setattr(rsync, "COPY_BYTES", 10)
    with pytest.raises(InvalidInput, match="is the most: name in "):
        far_jobs.execute("true", sync=str(project))
    assert far_jobs.list().jobs == ()


def test_job_of_this_machine_has_its_files_here(jobs: Jobs) -> None:
    with pytest.raises(InvalidInput, match="its files are here"):
        jobs.fetch(jobs.execute("true", wait=30).job_id, "x")


@pytest.mark.parametrize("where", ["here", "there"])
def test_missing_rsync_is_said_in_one_sentence(
    far: Far, far_jobs: Jobs, project: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "here":
        only = far.folder / "only"
        only.mkdir()
        for name in ("git", "ssh", "tmux", "sh"):
            (only / name).symlink_to(str(shutil.which(name)))
        monkeypatch.setenv("PATH", str(only))
        said = "rsync is not installed here"
    else:
        change(far, f":{LOCAL}/usr/bin", "")
        only = far.folder / "bin"
        only.mkdir()
        for name in ("sh", "tmux", "mkdir", "bash"):
            (only / name).symlink_to(str(shutil.which(name)))
        (only / "python3").symlink_to(sys.executable)
        change(far, "PATH=$PATH", f"PATH={only}")
        monkeypatch.setattr("tmuxjobs.hosts.connection.PATHS", "/nowhere")
        said = "Host 'gpu1' has no rsync"
    with pytest.raises(TmuxjobsError, match=said):
        far_jobs.execute("true", sync=str(project))
    assert far_jobs.list().jobs == ()


def test_login_that_prints_does_not_disturb_a_copy(far: Far, far_jobs: Jobs, project: Path) -> None:
    change(far, "#!/bin/sh\n", "#!/bin/sh\necho Welcome to gpu1; echo; printf more\n")
    assert run(far_jobs, "cat train.py", project) == "print('v1')\n"


def rsyncs() -> list[psutil.Process]:
    mine = os.environ["TMUX_TMPDIR"]
    return [one for one in psutil.process_iter(["name"]) if one.info["name"] == "rsync" and of(one) == mine]


def of(process: psutil.Process) -> str:
    try:
        return process.environ().get("TMUX_TMPDIR", "")
    except psutil.Error:
        return ""


def test_cut_in_a_copy_starts_nothing_and_the_next_one_is_whole(
    far: Far, far_jobs: Jobs, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far_jobs.execute("true", wait=30)
    (project / "large").write_bytes(os.urandom(1 << 20) * 100)
    monkeypatch.setattr(rsync, "COPYING", [*rsync.COPYING, SLOWLY])
    connection = far_jobs._hosts.used()[0].connection()  # type: ignore[attr-defined]
    said: list[str] = []

    def start() -> None:
        try:
            far_jobs.execute("touch ran", sync=str(project))
        except HostError as error:
            said.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    wait_until(lambda: [one for one in (far.state / "files").glob("*/.large.*") if one.stat().st_size > 1 << 20])
    far.cut()
    thread.join(60)
    assert connection.lost.wait(30)  # rsync may know it first
    assert len(said) == 1
    assert said[0].startswith("The files were not completely copied to host 'gpu1': ")
    assert "\n" not in said[0]
    assert [job.command for job in far_jobs.list().jobs] == ["true"]
    wait_until(rsyncs, lambda left: not left)
    assert not (copied(far) / "ran").exists()
    monkeypatch.setattr(rsync, "COPYING", rsync.COPYING[:-1])
    assert run(far_jobs, "cmp large large; stat -c %s large", project) == f"{100 << 20}\n"
    assert (copied(far) / "large").read_bytes() == (project / "large").read_bytes()
    assert not (copied(far) / rsync.PARTIAL).exists()


def test_copy_that_takes_too_long_is_ended_and_said(
    far: Far, far_jobs: Jobs, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tmuxjobs.verbs.files.PERSON_S", 0.01)
    with pytest.raises(HostError, match="continues where this one stopped"):
        far_jobs.execute("true", sync=str(project))
    wait_until(rsyncs, lambda left: not left)
    assert far_jobs.list().jobs == ()


async def test_tool_fetch_is_there_where_hosts_are(jobs: Jobs, far_jobs: Jobs) -> None:
    assert "fetch" not in {tool.name for tool in await server_of(jobs).list_tools()}
    assert "fetch" in {tool.name for tool in await server_of(far_jobs).list_tools()}


def test_mirror_of_a_log_is_exact_over_cuts(far: Far, far_jobs: Jobs) -> None:
    line = "printf 'line \\351 %s\\r\\n' $i; [ $((i % 100)) -gt 0 ] || sleep 0.05"
    started = far_jobs.execute(f"i=0; while [ $i -lt 3000 ]; do i=$((i+1)); {line}; done")
    mirror = far_jobs.mirror(started.job_id)
    [path] = mirror.paths.values()
    thread = threading.Thread(target=mirror.run)
    thread.start()
    for number in (10_000, 30_000):
        wait_until(lambda number=number: path.exists() and path.stat().st_size >= number)  # type: ignore[misc]
        far.cut()
    thread.join(60)
    assert not thread.is_alive()
    assert path.read_bytes() == Path(started.log_path).read_bytes()
    assert path.read_bytes().count(b"\xe9") == 3000
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(path.read_bytes()[:1000])
    far_jobs.mirror(started.job_id).run()
    assert path.read_bytes() == Path(started.log_path).read_bytes()


def test_mirror_of_a_log_that_dropped_bytes_is_what_is_there(far_jobs: Jobs) -> None:
    started = far_jobs.execute("yes 0123456789 | head -c 3000000", max_output_size=300_000)
    assert far_jobs.mirror(started.job_id).run() < 400_000
    [path] = far_jobs.mirror(started.job_id).paths.values()
    assert path.read_bytes() == Path(started.log_path).read_bytes()
    assert b"bytes" in path.read_bytes()


def test_job_of_this_machine_is_not_mirrored(jobs: Jobs) -> None:
    started = jobs.execute("true", wait=30)
    with pytest.raises(InvalidInput, match="its log is"):
        jobs.mirror(started.job_id)


def test_doctor_says_what_another_host_lacks(far: Far, far_jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = far_jobs.doctor(host="gpu1")
    assert answer.healthy, answer.text()
    names = [one.name for one in answer.checks]
    assert names == ["reached", "tmux", "tmux options", "state directory", "sync and fetch", "a real job"]
    assert "128894 bytes as printed" in answer.text()
    assert far_jobs.list().jobs == ()
    change(far, f":{LOCAL}/usr/bin", "")
    far.cut()
    wait_until(lambda: not far_jobs._hosts.used()[0].is_reached)
    if shutil.which("rsync") is None or "debian" in str(shutil.which("rsync")):
        assert "has no rsync" in far_jobs.doctor(host="gpu1").text()
    far.down()
    down = far_jobs.doctor(host="gpu1")
    assert (down.healthy, len(down.checks)) == (False, 1)
    assert "'gpu1'" in down.text()


def test_killed_caller_leaves_no_copy_running_and_starts_nothing(far: Far, far_jobs: Jobs, project: Path) -> None:
    far_jobs.execute("true", wait=30)
    with open(project / "large", "wb") as large:
        large.truncate(100_000_000)
    code = "import sys; from tmuxjobs import Jobs, Settings; from tmuxjobs.hosts import rsync; "
    code += f"rsync.COPYING.append({SLOWLY!r}); "
    code += "Jobs.open(Settings.load(ssh=sys.argv[1], host='gpu1')).execute('touch ran', sync=sys.argv[2])"
    caller = subprocess.Popen([sys.executable, "-c", code, far.ssh, str(project)])
    wait_until(lambda: list((far.state / "files").glob("*/.large.*")))
    caller.kill()
    caller.wait()
    wait_until(rsyncs, lambda left: not left)
    assert not (copied(far) / "large").exists()
    assert [job.command for job in far_jobs.list().jobs] == ["true"]

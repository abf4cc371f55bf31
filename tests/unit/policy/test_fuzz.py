"""What bash runs of a line is among what the policy saw in it: real lines, mutated, run with stand-ins on PATH.

FUZZ_LINES=10000 is the long form.
"""

import contextlib
import os
import random
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tmuxjobs.policy.commands import Command, seen
from tmuxjobs.policy.tree import Unclear
from tmuxjobs.policy.words import Word

LINES = int(os.environ.get("FUZZ_LINES", "90"))
PARTS = 6
STAND_INS = "ls git make npm rm cat echo2 touch curl x a b c then do f".split()  # noqa: SIM905
REAL = ["env", "xargs", "timeout", "nice", "nohup", "find", "sh", "bash", "stdbuf", "setsid"]
SEEDS = [
    "git status && make test", "npm run build; ls -la", "git log --oneline | cat", "cd sub && make -j4",
    "ls > out.txt 2>&1", "make || echo failed", "for i in 1 2 3; do ls $i; done", "if ls; then make; else rm x; fi",
    'x=$(ls); echo "$x"', "while read x; do ls $x; done < in.txt", "case $x in a) ls;; *) rm x;; esac",
    "git commit -m 'a; b' && git push", "cat <<E\nhello $(ls)\nE", "cat <<'E'\n$(rm x)\nE\nmake",
    "(cd sub; ls) & make", "{ ls; make; } > out.txt", "! ls a", "f() { ls; }; f", "env A=1 make x",
    "timeout 2 ls a b", "ls | xargs -n 1 git add", "sh -c 'ls; make'", 'bash -c "ls a"',
    "find . -name '*.c' -exec cat {} \\;", "echo `ls`", "[[ -f in.txt && 1 -eq 1 ]] && ls",
    "[ -f in.txt ] && ls || rm x", "a=(1 2); ls ${a[1]}", "echo $((1+2)) ${x:-$(ls)}", "ls # rm x", "ls \\\n -la",
    "eval 'ls a'", "time ls", "nice -n 1 make", "command ls", "exec ls", "set -e; ls", "trap 'ls' EXIT; make",
    "diff <(ls) in.txt; cat in.txt", 'echo "a $(git log) b"', "export A=1; make", "A=1 B=2 ls", "ls;make&git x",
    "r'm' x", "$'\\x6cs' x", "printf '%s\\n' a | xargs ls", "until ls; do rm x; done",
    "for ((i=0;i<2;i++)); do ls $i; done", "ls 2>/dev/null >&2 | cat", "cat <<-E | make\n\thi\n\tE\nls",
    'ls "a\\"b" \'c\' d\\ e', "{ls,rm} x", "echo \"${x:-'a'} b\"", "cat <<E\n${x:-'a'} $(ls)\nE", "echo ${x#'a'}",
    'echo "$((1+2)) ${x:-"a b"}"', "a[0]=1; ls ${a[0]}", "ls @(a|b) ?(x)", "coproc ls", "select x in a; do ls; done",
    "[[ a =~ (a|b) ]] && ls", "{ ls; } 2>&1 | cat", "ls <<< \"$(ls)\"", "x=1; x+=2 ls", "ls >(cat) <(ls)",
    "case a in (a|b) ls;& c) make;;& esac", "declare -a a=(1 2); ls", "printf -v x a; ls $x", "mapfile x < in.txt; ls",
    "function f { ls; }; make", "if [[ -f a ]]; then ls; fi > out.txt", "find . -exec ls {} + -name x", "env -i ls",
    "ls $'a\\'b'",
]  # fmt: skip
BITS = [
    *";&|()<>$`\"'\\{}[]!#~*?= \n\t",
    "$(",
    "`ls`",
    "$(rm x)",
    "<<E\n",
    "\nE\n",
    "&&",
    "||",
    ";;",
    "${",
    "}",
    "x",
    " rm ",
    "{a,b}",
]
BITS += [
    "\\\n",
    "'",
    "$'",
    '$"',
    "((",
    "))",
    "<(",
    "E",
    " do ",
    " done",
    "ls",
    "=",
    "rm",
    " # ",
    "|&",
    "[[",
    "]]",
    " in ",
    "!",
    "$\\\n",
    "${x:-'",
    "'}",
    '"}',
    "\\\\",
    "$[",
    "]",
    "@(",
    ">(",
    ";&",
    "coproc ",
    "function ",
    "select ",
    "esac",
    "time ",
    "\r",
    "\u00a0",
    "<<-",
    "<<<",
    "+=",
    "a[0]",
    "export ",
]
BOUNDED = 'ulimit -t 2; ulimit -f 2048; exec /bin/bash --norc --noprofile -xc "$1"'


def mutated(chance: random.Random) -> str:
    line = chance.choice(SEEDS)
    for _ in range(chance.choice((1, 1, 2, 3))):
        at, end = sorted((chance.randrange(len(line) + 1), chance.randrange(len(line) + 1)))
        end = min(end, at + 4)
        match chance.randrange(6):
            case 0:
                line = line[:at] + chance.choice(BITS) + line[at:]
            case 1:
                line = line[:at] + line[end:]
            case 2:
                line = line[:at] + line[at:end] * 2 + line[end:]
            case 3:
                line += chance.choice([";", "\n", "&&", "|", " ", ""]) + chance.choice(SEEDS)
            case 4:
                line = line[:at] + chance.choice(BITS) + line[end:]
            case 5:
                line = chance.choice(
                    ["({})", "$({})", "echo `{}`", '"{}"', "if {}; then ls; fi", "f() {{ {}\n}}"]
                ).format(line)
    return line


@pytest.fixture(name="scratch")
def _scratch(tmp_path: Path) -> Path:
    """A folder with stand-ins that note how they are called, and what runs them for real."""
    (tmp_path / "bin").mkdir()
    for name in STAND_INS:
        path = tmp_path / "bin" / name
        # One write for a call: two of them may run at once.
        path.write_text(f'#!/bin/sh\nprintf "%s\\0" {name} "$@" "\n" >> "$RAN"\n')
        path.chmod(0o700)
    for name in REAL:
        found = next((one for one in (Path("/usr/bin", name), Path("/bin", name)) if one.exists()), None)
        if found is not None:
            (tmp_path / "bin" / name).symlink_to(found)
    return tmp_path


def ran_by_bash(line: str, scratch: Path) -> list[list[str]]:
    """The stand-ins that ran, with their arguments, and each builtin that the trace names."""
    work, ran, trace = scratch / "work", scratch / "ran", scratch / "trace"
    subprocess.run(["/bin/rm", "-rf", str(work)], check=True)
    (work / "sub").mkdir(parents=True)
    (work / "in.txt").write_text("a\nb\n")
    ran.write_bytes(b"")
    trace.write_bytes(b"")

    with trace.open("ab") as traced:
        process = subprocess.Popen(
            ["/bin/sh", "-c", BOUNDED, "sh", line],
            cwd=work,
            env={"PATH": str(scratch / "bin"), "RAN": str(ran), "PS4": "\n\1", "BASH_XTRACEFD": str(traced.fileno())},
            pass_fds=[traced.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    calls: list[list[str]] = [[]]
    for word in ran.read_bytes().decode(errors="replace").split("\0"):
        if word == "\n":
            calls.append([])
        else:
            calls[-1].append(word)
    builtins = re.findall(
        r"\x01+ (eval|exec|source|\.|cd|trap|alias|command|builtin|set|export|printf|read)(?= |$)",
        trace.read_text(errors="replace"),
        re.M,
    )
    return [call for call in calls if call and call[0]] + [[name, "*"] for name in builtins]


def covers(words: Sequence[Word], call: Sequence[str]) -> bool:
    """Whether that command may have been called so."""
    if not words:
        return not call
    first, rest = words[0], words[1:]
    if first.many:
        return any(covers(rest, call[at:]) for at in range(len(call) + 1))
    return bool(call) and (not first.known or first.text == call[0]) and covers(rest, call[1:])


def is_seen(call: list[str], commands: Sequence[Command]) -> bool:
    if call[-1] == "*":
        return any(one.words[0].text == call[0] for one in commands)
    scripts = [one.words[1:] for one in commands if one.words[0].text in ("sh", "bash")]  # `bash make` reads that file
    return any(covers(words, call) for words in scripts) or any(
        covers(one.words, call) or covers(one.words[:1] + one.words[2:], call) for one in commands
    )


@pytest.mark.parametrize("part", range(PARTS))
def test_bash_runs_nothing_that_the_policy_did_not_see(scratch: Path, part: int) -> None:
    chance = random.Random(f"{os.environ.get('FUZZ_SEED', '1')}-{part}")
    compared = 0
    while compared < LINES // PARTS:
        line = mutated(chance)
        try:
            commands = seen(line).commands
        except Unclear:
            continue
        compared += 1
        for call in ran_by_bash(line, scratch):
            assert is_seen(call, commands), f"{line!r}: bash ran {call}, seen were {[one.text for one in commands]}"


def test_a_line_that_is_not_seen_is_found(scratch: Path) -> None:
    """The comparison can fail: what is hidden from it is named."""
    calls = ran_by_bash("ls a; eval rm b", scratch)
    assert ["ls", "a"] in calls
    assert not all(is_seen(call, seen("ls a").commands) for call in calls)

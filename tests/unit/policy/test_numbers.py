"""A variable whose value bash would evaluate counts as a number only where it surely is one: compared with bash itself.

NUMBER_LINES=20000 is the long form.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tmuxjobs.policy.commands import seen
from tmuxjobs.policy.tree import Unclear

LINE_S = 2.0
"""The time limit for one line; some never end."""
LINES = int(os.environ.get("NUMBER_LINES", "150"))
NAMES = ("n", "count", "N")
SETS = [
    "{v}=1", "{v}=$(({w}+1))", "{v}+=1", "for {v} in 1 2; do :; done", "for (({v}=0;{v}<2;{v}++)); do :; done",
    "for {v} in $PWD; do :; done", "(({v}=1))", "(({v}+=2))", "(({v}++))", "{v}=1 {w}=2", "export {v}=1", "{v}=1 true",
    "read {v}", "printf -v {v} 1", "[[ {v} -eq 1 ]]", "{v}=$#", "for ((;{v}=1;)); do :; done", "{v}[0]=1", "unset {v}",
    "{v}=$((1/0))", "{v}=$((08))", "{v}=$((1=2))", "{v}=$((1%{w}))", "{v}=08", "for (({v}=09;0;)); do :; done",
    "{v}=$((2**-1))", "for {v} in 1 08; do :; done", "read \"{v}\"", "printf -v '{v}' '%s' \"$PWD\"",
    "{v}=$((2*3-{w}))",
    "eval \"{v}\"=$PWD", "{v}=$((3++))", "eval '{v}=5'", "declare -a {v}='(1)'", "RANDOM=5",
    "f() {{ {v}=$((1/0)); }}; f",
    "for {v} in; do :; done", "{v}=$({w}=1)", "echo ${{{v}:=1}}", "true | {v}=1", "((true && ({v}=1)))", "{v}=$PWD",
]  # fmt: skip
AROUND = [
    "{a}", "{a}; {b}", "{a} && {b}", "{a} || {b}", "{a} & {b}", "{a} | {b}", "({a}); {b}", "{{ {a}; }}; {b}",
    "! {a}; {b}",
    "if false; then {a}; else {b}; fi", "if {a}; then {b}; fi", "if true; then {a}; fi; {b}", "f() {{ {a}; }}; {b}",
    "f() {{ {a}; }}; {b}; f", "while false; do {a}; done; {b}", "until true; do {a}; done; {b}", "true || {a}; {b}",
    "case a in b) {a};; c) {b};; esac", "case a in b) {a};; a) {b};; esac", "case a in b) {a};; esac; {b}",
    "false && {a}; {b}",
    "true || {a} && {b}", "false && {a} || {b}", "{{ {a}; }} > /dev/null; {b}", "echo $({a}); {b}",
    "for i in; do {a}; done; {b}",
    "if false; then {a}; elif {b}; then :; fi", "{a}\n{b}", "{a} &\n{b}", "{{ {a} & {b}; }}", "false && {a} & {b}",
    "if {a} & {b}; then :; fi", "echo $({a} & {b})", "for ((;0;)); do {a}; done; {b}", "while {a}; do {b}; break; done",
]  # fmt: skip
READS = [
    "echo $(({v}))", "(({v}))", "[[ {v} -eq 1 ]]", "echo ${{PWD:{v}}}", "a[{v}]=1", "echo ${{PWD:0:$ {v}}}",
    "echo $((1+${v}))",
    "a=([{v}]=1)", "[[ ! {v} -eq 1 ]]", "exec {{a[{v}]}}>/dev/null", "[[ $(({v})) = 0 ]]", "echo ${{a[{v}]}}",
    "for ((i={v};i<1;i++)); do :; done", "[ ${v} -lt 3 ]",
    "cat <<E\n$(({v}))\nE",
    "{v}=$(({v}+1))", "(({v}+=1))", "echo $(({v}++))", "f() {{ echo $(({v})); }}; f", "bash -c 'echo $(({v}))'",
]  # fmt: skip


def line_of(chance: random.Random, depth: int = 3) -> str:
    v, w = chance.choice(NAMES), chance.choice(NAMES)
    if depth == 0 or chance.random() < 0.2:
        return chance.choice([*SETS, *READS]).format(v=v, w=w).replace("$ ", "$")
    return chance.choice(AROUND).format(a=line_of(chance, depth - 1), b=line_of(chance, depth - 1))


def evaluated(line: str, folder: Path, **variables: str) -> bool:
    """Whether bash runs what stands in a variable's value."""
    canary = folder / "canary"
    env = {"PATH": os.environ["PATH"], **dict.fromkeys(NAMES, f"a[$(>{canary})]"), **variables}
    with (folder / "in").open("w+") as fed:
        fed.write(f"a[$(>{canary})]\n" * 3)
        fed.seek(0)
        null = subprocess.DEVNULL
        argv = ["bash", "-c", line]
        bash = subprocess.Popen(argv, env=env, cwd=folder, stdin=fed, stdout=null, stderr=null, start_new_session=True)
        deadline = time.monotonic() + LINE_S
        while not os.waitid(os.P_PID, bash.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) and time.monotonic() < deadline:
            time.sleep(0.001)
        os.killpg(bash.pid, signal.SIGKILL)  # a loop in the background may live on; its number is taken until `wait`
        bash.wait()
    there = canary.exists()
    canary.unlink(missing_ok=True)
    return there


@pytest.mark.parametrize("part", range(2))
def test_bash_evaluates_no_value_in_what_is_allowed(tmp_path: Path, part: int) -> None:
    chance = random.Random(f"{os.environ.get('FUZZ_SEED', '1')}-{part}")
    compared = 0
    for _ in range(LINES):
        line = line_of(chance)
        try:
            seen(line, inherited=NAMES)
        except Unclear:
            continue
        compared += 1
        assert not evaluated(line, tmp_path), line
    assert compared > LINES / 20


@pytest.mark.parametrize(
    "line",
    [
        "true || X=1; echo $((X))", "(X=1); echo $((X))", "if false; then X=1; fi; echo $((X))", "X=1 & echo $((X))",
        "case a in b) X=1;; esac; ((X))", "true | X=1; echo $((X))", "f() { X=1; }; echo ${PWD:X}",
        "true || X=1; A[X]=1",
        "false && X=1; [[ X -eq 1 ]]", "echo $(X=1) $((X))", "X+=1; echo $((X))", "A=1; A[0]='b[$(ls)]'; echo $((A))",
        "while false; do X=1; done; ((X))", "X=1 true; echo $((X))", "if false; then X=1; else ((X)); fi",
        "set -- 'a[$(ls)]'; echo $(($1))",
        "a=([X]=1)", "a+=([0]=1 [X]=2)", "declare -a a=([X]=1)", "a=([$X]=1)", "a=([\"X\"]=1)", "a=([b[X]]=1)",
        "[[ ! X -eq 1 ]]", "[[ ! (X -lt 1) ]]", "exec {a[X]}>f", "ls {a[X]}<f", "{PATH}>f ls", "cat {a[X]}<<<b",
        "X=$((7 % 0))\necho $((X))", "X=$((09+1))\n((X))", "for ((X=1/0;0;)); do ls; done; ((X))", "X=$((1=2))\n((X))",
        "X=08; Y=$((X))\necho $((Y))", "eval k\\e\"y\"='a[0]'; echo $((key))", "read 'ke'y; ((key))",
        "printf -v k'ey' '%s' \"$X\"; ((key))", "mapfile \"k\"ey; ((key))", "for X in 1 09; do ls; done; ((X))",
        "bash -c 'echo $((n))'", "eval 'echo $((n))'", "OSTYPE=$((OSTYPE))", "for ((;X=1;)); do ((X)); done",
    ],
)  # fmt: skip
def test_variable_that_may_hold_another_value_is_unclear(line: str) -> None:
    with pytest.raises(Unclear):
        seen(line, inherited=["X"])


@pytest.mark.parametrize(
    "line",
    [
        "RANDOM=$X; ls", "SRANDOM='a[$(ls)]'", "for HISTCMD in \"$X\"; do ls; done", "OPTIND+=$X", "read OPTIND < f",
        "printf -v RANDOM '%s' \"$X\"", "SECONDS=\"a[0]\" ls", "set -- \"$X\"; for SECONDS; do ls; done",
        "mapfile -t BASHPID", "declare RANDOM=$X", "read -n 5 SRANDOM",
        "test ! \"$A\" \"$X\"", "test x -o \"$A\" \"$X\"", "test \"$A\" \"$B\" \"$X\"", "test ! ! \"-${A}\" y",
        "test -f y -a \"$A\" \"$X\"", "test \"-$A\" \"$X\"", "test -n \"$A\" -a -n \"$X\"",
        "declare -a k='($(ls))'", "k=(1); export k=\"$X\"", "k[0]=1; readonly k='(a)'", "typeset -gA k=\"$X\"",
        "read -a k; declare k=\"$X\"", "declare DIRSTACK='(a)'", "mapfile k; export k=\"$X\"",
        "read -ra 'k[0]'", "read -p ? \"$X\"", "mapfile -tC ls k", "read -Z k", "read \"$A\" k", "getopts a \"$X\"",
    ],
)  # fmt: skip
def test_what_bash_would_evaluate_is_unclear(line: str) -> None:
    with pytest.raises(Unclear):
        seen(line, inherited=["X"])


@pytest.mark.parametrize(
    ("line", "sets"),
    [
        ("read -p -n X", ["X"]), ("read -rn1 -d '' k v", ["k", "v"]), ("read -ra parts", ["parts"]), ("read", []),
        ("getopts ab: opt \"$@\"", ["opt"]), ("mapfile -t -d '' k", ["k"]),
        ("RANDOM=7; SECONDS=0", ["RANDOM", "SECONDS"]),
        ("IFS=: read -r k < f", ["k"]), ("test $# -gt 1", []), ("test ! -f \"$X\"", []), ("[ $? -ne 0 ]", []),
        ("test \"$X\" = \"$A\"", []), ("wait $!", []), ("export k=\"$X/bin\"", ["k"]), ("export k='(a)'", ["k"]),
        ("declare -a k=(a b)", ["k"]), ("case $1 in a) ls;; esac", []), ("set -- a; ls \"$1\" ${2:-b}", []),
    ],
)  # fmt: skip
def test_what_bash_only_sets_is_clear(line: str, sets: list[str]) -> None:
    found = seen(line, inherited=["X"])
    assert (found.sets, found.exports) == (sets, [])


@pytest.mark.parametrize(
    "line",
    [
        "a=([0]=1 [2]=b c)", "declare -A m=([a]=1 [b]=2)", "a=([a-z]*.c)", "{ ls; }>f", "ls ${X}>f", "[[ ! a = b ]]",
        "n=$((n+1))", "for ((i=0;i<3;i++)); do ls $i; done; echo $((i))", "echo $((1+2))", "x=5; echo $((x*2))",
        "n=0; for f in *.c; do n=$((n+1)); done; ls $n", "X=1; (ls $((X)))", "{ X=1; }; ls $((X))", "X=1 && ls $((X))",
        "X=3; while [ $X -gt 0 ]; do X=$((X-1)); done", "for X in 1 2 3; do ls $((X*2)); done",
        "X=1; if ls; then ls $((X)); fi",
        "X=0; f() { X=$((X+1)); }; f; f", "X=1; ((X++)); ((X+=2)); [[ X -gt 3 ]] && ls", "ls || ls; X=1\nls $((X)) &",
    ],
)  # fmt: skip
def test_number_is_one(line: str) -> None:
    seen(line, inherited=["X"])

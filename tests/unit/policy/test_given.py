"""Options as the programs themselves read them: shortened, bundled, behind a `--`; and the paths that they name."""

from pathlib import Path

import pytest

from tmuxjobs.policy.load import policy_of, table_in
from tmuxjobs.policy.rules import Asked, Policy, verdict_on

RULES = """
[policy]
allow = ["{ls,echo,cat,head,wc,nproc,read,printf,make,gmake,ninja,eval,timeout,:}", "npm {test,run}", "git *",
  "{find,sed,awk,gawk,tar,sort,curl,wget,pytest,py.test,cmake,diff3,sdiff,tee,mapfile,mkdir,xargs,gcc}",
  "python3 -m {pytest,json.tool}",
  "{mysql,psql,zip,hg,svn,rake,gradle,mvn,rsync,less,split,tox,pdflatex,sqlite3,nano}",
  "pnpm run *", "exec"]
"""


@pytest.fixture(name="rules")
def _rules(tmp_path: Path) -> Policy:
    (tmp_path / "rules.toml").write_text(RULES)
    table = table_in(tmp_path / "rules.toml", known=())
    assert table is not None
    return policy_of(table, tmp_path)


def why(rules: Policy, line: str, env: dict[str, str] | None = None, inherited: tuple[str, ...] = ("PATH",)) -> str:
    """Why that line is not allowed; nothing if it is."""
    verdict = verdict_on([rules], Asked(line, rules.roots[0], "/bin/bash", env or {}, inherited))
    return "" if verdict.kind == "allow" else verdict.why


DENIED = {
    "xargs gives no word to what takes its value behind a `=`": [
        "ls | xargs --max-lines rm cat", "ls | xargs --replace rm cat", "ls | xargs --eof rm echo",
        "ls | xargs -l rm cat", "ls | xargs -i rm cat", "ls | xargs -e rm cat", "ls | xargs --max-lines 3 cat",
    ],
    "xargs puts an option where its mark is, or behind": [
        "ls | xargs -I% git diff %", "ls | xargs -I @ git show @", "ls | xargs -i git show {}",
        "ls | xargs -IX git log X", "ls | xargs -I{} -L2 git diff", "ls | xargs -I{} -n 1 git diff",
        "ls | xargs -l -I{} git diff", "ls | xargs --max-args=2 -i git diff",
        "ls | xargs --replace=% --max-lines git diff", "ls | xargs -E -Iq git show",
        "ls | xargs -I \"$x\" git show head", "ls | xargs -Ihead git show head",
    ],
    "find ends a command at a `+` only behind `{}`": [
        "find . -exec gmake + '--eval=$(info x)' ';'", "find . -execdir git log + --output=o ';'",
        "find . -exec rm + ';'", "find . -ok cat {} + -quit ';'", "find . -exec cat +", "find . -exec cat x + {} -o",
    ],
    "make takes blanks before the sign, and has names of its own": [
        "make 'LD = ./x'", "make 'CXX\t= ./x' a.o", "make 'SHELL := ./x'", "make 'RM ?= ./x'", "make 'A != ls'",
        "make 'FC ::= x'", "make '  CC=x'", "make LINK.o=x", "make .SHELLFLAGS=-ec", "make LOADLIBES=x",
        "make VPATH=/x", "make TARGET_MACH=-Bx", "make MAKE_COMMAND=./x", "make CROSS_COMPILE=./x-",
        "make PREPROCESS.S=x", "make CMD=ls", "make EXTRA='-wrapper x'", "make X=' -a'", "make HOSTCC=./x",
        "make CMAKE=./x", "make 'export CC=x'", "make 'A\\=b'", "make CHECKOUT,v=./x",
    ],
    "a number of jobs is one only where it surely is": [
        "nproc() { echo '-f x'; }; make -j$(nproc)", "function nproc { echo x; }; make -j$(nproc)", "make -j$(cat x)",
        "make -j$(nproc)x", "make $(nproc --ignore=$x)", "eval 'nproc () { cat x; }'; make -j $(nproc)",
        "make -j$(echo 4)",
    ],
}  # fmt: skip
ALLOWED = [
    "ls | xargs -n 2 cat", "ls | xargs -L 1 cat", "ls | xargs -l cat", "ls | xargs --max-lines=1 cat",
    "ls | xargs -0 cat", "ls | xargs -I{} cat {}", "ls | xargs -i cat {}", "ls | xargs -I% cat a/%",
    "ls | xargs -P4 -n1 cat", "ls | xargs -r wc", "find . -exec wc {} +", "find . -exec wc + ';'",
    "find . -exec wc {} ';' -exec cat {} +", "find . -execdir cat {} +", "make V=1 -j8 -k all",
    "make CONFIG=debug TESTS='a b'", "make ARGS=\"-k 'a b'\"", "make prefix=/opt/x DESTDIR=/tmp/y",
    "make test TEST=tests/a.py::b", "make VERSION=1.2.3 URL=https://h/x", "make -j$(nproc)", "make -j\"$(nproc)\" all",
    "make -j \"$(nproc)\"", "make --jobs=$(nproc --all)", "make --debug --keep-going", "make CFG=a,b:c@d%e+f=g",
    "cmake -S . -B out -G Ninja -DCMAKE_BUILD_TYPE=Debug", "cmake -C cache.cmake -B out",
    "cmake --build out -j4 --target a --config Release",
    "cmake . -DBUILD_COMMANDS=ON -DCMAKE_EXPORT_COMPILE_COMMANDS=1", "cmake --build out -- -j4 VERBOSE=1",
    "ninja -v -j4", "mapfile -t a < <(ls)", "cat a > >(head)", "exec 2> >(cat)", "head < <(ls | wc)", "X='a;b' ninja",
]  # fmt: skip


@pytest.mark.parametrize("line", [line for lines in DENIED.values() for line in lines])
def test_line_that_may_run_or_write_more_is_refused(rules: Policy, line: str) -> None:
    assert why(rules, line)


@pytest.mark.parametrize("line", ALLOWED)
def test_usual_line_is_allowed(rules: Policy, line: str) -> None:
    assert why(rules, line) == ""


@pytest.mark.parametrize(
    "line",
    [
        "FLAG='$(ls)'; make", "for FLAG in '`ls`' b; do gmake; done", "read FLAG; make", "printf -v FLAG %s x; make",
        "mapfile FLAG < a; make", "make; FLAG='a|b'", "eval \"FLAG='a|b'\"; make", "bash -c \"FLAG='a|b'; make\"",
        "echo ${FLAG:='a|b'}; make", "FLAG=ok ls; read FLAG; make", "FLAG=ok; read -r FLAG; timeout 5 make",
        "FLAG+='a>b'; make -s all", "FLAG='a|b' :; make", "FLAG=\"$x\"; make", "if ls; then FLAG='a|b'; fi; make",
        "f() { FLAG='a|b'; }; make", "declare FLAG; eval \"FLAG='a|b'\"; make", "FLAG='a|b'; find . -exec make {} +",
        "REPLY=a; read; make",
    ],
)  # fmt: skip
def test_variable_of_the_environment_that_is_set_again_is_given_to_make(rules: Policy, line: str) -> None:
    for env, inherited in ({"FLAG": "ok", "REPLY": "ok"}, ("PATH",)), ({}, ("PATH", "FLAG", "REPLY")):
        assert why(rules, line, env, inherited), env


def test_variable_that_no_recipe_sees_is_not_given_to_make(rules: Policy) -> None:
    for line in ("OTHER='a|b'; make", "read OTHER; make", "x=$(ls); make all", "FLAG=c; make", "FLAG='a|b'; ls"):
        assert why(rules, line, {"FLAG": "ok"}) == "", line
    assert why(rules, "PYTHONUNBUFFERED=1 make", {"PYTHONHASHSEED": "0"}) == ""
    assert "no rule names 'FLAG=...'" in why(rules, "read FLAG; make", {"FLAG": "ok"})


def test_sentence_says_what_is_wrong(rules: Policy) -> None:
    for line, said in (
        ("ls | xargs -I{} -n1 cat", "both -I and -L or -n"),
        ("make -j$(cat n)", "no rule names '-j$(cat n)'"),
    ):
        assert said in why(rules, line)

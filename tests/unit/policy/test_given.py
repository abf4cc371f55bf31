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
}  # fmt: skip
ALLOWED = [
    "ls | xargs -n 2 cat", "ls | xargs -L 1 cat", "ls | xargs -l cat", "ls | xargs --max-lines=1 cat",
    "ls | xargs -0 cat", "ls | xargs -I{} cat {}", "ls | xargs -i cat {}", "ls | xargs -I% cat a/%",
    "ls | xargs -P4 -n1 cat", "ls | xargs -r wc", "find . -exec wc {} +", "find . -exec wc + ';'",
    "find . -exec wc {} ';' -exec cat {} +", "find . -execdir cat {} +", "mapfile -t a < <(ls)", "cat a > >(head)",
    "exec 2> >(cat)", "head < <(ls | wc)",
]  # fmt: skip


@pytest.mark.parametrize("line", [line for lines in DENIED.values() for line in lines])
def test_line_that_may_run_or_write_more_is_refused(rules: Policy, line: str) -> None:
    assert why(rules, line)


@pytest.mark.parametrize("line", ALLOWED)
def test_usual_line_is_allowed(rules: Policy, line: str) -> None:
    assert why(rules, line) == ""


def test_sentence_says_what_is_wrong(rules: Policy) -> None:
    for line, said in (("ls | xargs -I{} -n1 cat", "both -I and -L or -n"),):
        assert said in why(rules, line)

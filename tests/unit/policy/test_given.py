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


ALLOWED = [
    "mapfile -t a < <(ls)", "cat a > >(head)", "exec 2> >(cat)", "head < <(ls | wc)",
]  # fmt: skip


@pytest.mark.parametrize("line", ALLOWED)
def test_usual_line_is_allowed(rules: Policy, line: str) -> None:
    assert why(rules, line) == ""

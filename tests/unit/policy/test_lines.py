"""The verdict on each line of `lines.toml`, under one policy."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tmuxjobs.policy.load import Table, policy_of
from tmuxjobs.policy.rules import Asked, Policy, verdict_on

POLICY = {
    "allow": [
        "{ls,echo,cat,make,grep,find,cd,pushd,xargs,sed,tee,true,read,printf,sort,tar,export,set,sleep,exit,pytest,test}",
        "git {status,diff,log,commit,add,fetch,grep,rebase}", "npm run *",
        "{wait,jobs,readonly,declare,local}", "source .venv/bin/activate", "bash run.sh",
        "trap", "mapfile", "readarray", "getopts", "function", "unset",
        "{awk,gawk,vim,nvim,view,nano,less,man,rsync,scp,sftp,split,zip,dc,gcc,hg,svn,sqlite3,psql,mysql}",
        "{pandoc,pdflatex,go,uv,poetry,bundle,gh,ip,docker,wget}", "git *",
    ],
    "ask": ["git push"],
    "deny": ["rm", "git push --force", "git reset", "curl"],
}  # fmt: skip


@pytest.fixture(name="policy", scope="module")
def _policy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Path]:
    project = tmp_path_factory.mktemp("project")
    (project / "sub").mkdir()
    (project / "link").symlink_to("/")
    return policy_of(Table(POLICY, str(project / "policy.toml")), project), project


def lines() -> Iterator[tuple[str, str, str]]:
    for group in tomllib.loads((Path(__file__).parent / "lines.toml").read_text())["group"]:
        for kind in ("allow", "ask", "deny"):
            yield from ((group["name"], kind, line) for line in group.get(kind, ()))


@pytest.mark.parametrize(("group", "kind", "line"), list(lines()))
def test_line_gets_its_verdict(policy: tuple[Policy, Path], group: str, kind: str, line: str) -> None:
    verdict = verdict_on([policy[0]], Asked(line, policy[1], "/bin/bash"))
    assert verdict.kind == kind, verdict.findings


def test_there_are_enough_lines() -> None:
    assert len(list(lines())) >= 200


def test_what_another_client_asks_about_is_allowed_for_a_reason() -> None:
    allowed = {line for _, kind, line in lines() if kind == "allow"}
    reasons = tomllib.loads((Path(__file__).parent / "looser.toml").read_text())["reason"]
    looser = [line for reason in reasons for line in reason["lines"]]
    assert len(looser) == len(set(looser))
    assert set(looser) <= allowed
    assert all(reason["why"] for reason in reasons)

"""The rule that `a` writes: exactly what was asked, into the person's own file, which else stays as it was."""

import tomllib
from pathlib import Path

import pytest

from tmuxjobs.errors import SettingsError
from tmuxjobs.policy.load import add, policy_of, quoted, rules_for, table_in
from tmuxjobs.policy.rules import Asked, Policy, verdict_on


def policy(path: Path, text: str) -> Policy:
    path.write_text(text)
    table = table_in(path, known=("jobs", "session", "other"))
    assert table is not None
    return policy_of(table, path.parent)


@pytest.mark.parametrize(
    ("command", "rules"),
    [
        ("git push origin main", ("git push origin main $",)),
        ("git push && echo a && git push", ("git push $",)),
        ("git push 'a b'; git push \"it's\"", ("git push 'a b' $", "git push 'it'\"'\"'s' $")),
        ("FOO=1 git push | cat", ("git push $",)),
        ("timeout 5 git push", ("git push $",)),
        ("git push $x", ()),
        ("git push *", ()),
        ("git push '*'", ()),
        ("git push '{a,b}'", ()),
        ("git push \\$", ()),
        ("git push; rm x", ()),
        ("git push > /tmp/out", ()),
    ],
)
def test_rule_is_for_that_command_alone(tmp_path: Path, command: str, rules: tuple[str, ...]) -> None:
    path = tmp_path / "settings.toml"
    asks = policy(path, '[policy]\nallow = ["{cat,echo}"]\nask = ["git push"]\ndeny = ["rm"]\n')
    asked = Asked(command, tmp_path, "/bin/bash")
    assert rules_for([asks], asked) == (str(path) if rules else "", rules)
    if rules:
        add(str(path), rules)
        wider = policy(path, path.read_text())
        assert verdict_on([wider], asked).kind == "allow"
        for other in ("git push", "git push x y", "git push origin main --force", "git push origin"):
            mine = f"{other} $" in rules
            assert verdict_on([wider], Asked(other, tmp_path, "/bin/bash")).kind == ("allow" if mine else "ask")


def test_always_does_not_overrule_a_denial(tmp_path: Path) -> None:
    text = '[policy]\nalways = ["git push"]\nask = ["git push"]\ndeny = ["git push --force"]\n'
    one = policy(tmp_path / "settings.toml", text)
    kinds = {
        line: verdict_on([one], Asked(line, tmp_path, "/bin/sh")).kind for line in ("git push", "git push --force")
    }
    assert kinds == {"git push": "allow", "git push --force": "deny"}


def test_no_rule_overrules_a_projects_question(tmp_path: Path) -> None:
    mine = policy(tmp_path / "settings.toml", '[policy]\nask = ["make"]\n')
    theirs = policy(tmp_path / "tmuxjobs.toml", '[policy]\ndefault = "allow"\nask = ["make"]\n')
    asked = Asked("make", tmp_path, "/bin/sh")
    assert rules_for([mine], asked) == (mine.where, ("make $",))
    assert rules_for([theirs], asked) == rules_for([mine, theirs], asked) == ("", ())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[policy]\nask = ['make']\n", "[policy]\nalways = ['make $']\nask = ['make']\n"),
        ("a = 1\n[policy] # x\n", "a = 1\n[policy] # x\nalways = ['make $']\n"),
        ("[ policy ]", "[ policy ]\nalways = ['make $']\n"),
        ("[policy]\nalways = []\n", "[policy]\nalways = ['make $', ]\n"),
        ("[policy]\nalways = [\n  # those\n  'x',\n]\n", "[policy]\nalways = ['make $', \n  # those\n  'x',\n]\n"),
        ("[policy]\nalways=['make $']\n", "[policy]\nalways=['make $']\n"),
        ("[policy]\n[other]\nalways = ['x']\n", "[policy]\nalways = ['make $']\n[other]\nalways = ['x']\n"),
    ],
)
def test_file_gets_the_rule_and_nothing_else(tmp_path: Path, before: str, after: str) -> None:
    path, link = tmp_path / "real.toml", tmp_path / "link.toml"
    path.write_text(before)
    link.symlink_to(path)
    add(str(link), ["make $"])
    assert path.read_text() == after
    assert link.is_symlink()
    assert "make $" in tomllib.loads(after)["policy"]["always"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link.toml", "real.toml"]


@pytest.mark.parametrize(
    "text",
    [
        "policy = { ask = ['make'] }\n", "policy.ask = ['make']\n", "x = '''\n[policy]\n'''\n[other]\n", "[policy", "",
        "[policy]\nalways = 'x'\n",
    ],
)  # fmt: skip
def test_file_that_cannot_be_added_to_stays_as_it_was(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(
        SettingsError, match=r"nothing was approved; add this to its \[policy\]: always = \['make \$'\]"
    ):
        add(str(path), ["make $"])
    assert path.read_text() == text
    with pytest.raises(SettingsError, match="nothing was approved"):
        add(str(tmp_path / "none.toml"), ["make $"])


@pytest.mark.parametrize("rule", ["a b $", "it's", "a\"b'c", "a\\b'", "tab\t'x", "'\x7f", "'\u202e"])
def test_rule_is_quoted_as_toml_reads_it(rule: str) -> None:
    assert tomllib.loads(f"x = {quoted(rule)}") == {"x": rule}


@pytest.mark.parametrize("value", ["0", "'soon'", "-1", "[]", "'900d'", "true"])
def test_wrong_bound_stops_the_start(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError, match=r"settings\.toml, line 2: the policy cannot be used: ask_for is"):
        policy(tmp_path / "settings.toml", f"[policy]\nask_for = {value}\n")
    assert policy(tmp_path / "settings.toml", "[policy]\nask_for = '90s'\n").ask_for_s == 90

"""`tmuxjobs policy` as a person types it."""

import json
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

from tmuxjobs.policy.load import Table, policy_of
from tmuxjobs.policy.rules import Asked, verdict_on

Run = Callable[..., subprocess.CompletedProcess[str]]
CLAUDE = {
    "permissions": {
        "allow": [
            "Bash(npm run test:*)", "Bash(go vet *)", "Bash(make)", "Read(./x)", "Bash(docker * prune)", "Bash(a && b)",
            "Bash",
        ],
        "ask": ["Bash(git push:*)"],
        "deny": ["Bash(curl:*)"],
    }
}  # fmt: skip
CODEX = """
# mine
prefix_rule(
    pattern=["gh", ["pr", "issue"], "view"], match=["gh pr view 1", ["gh", "issue", "view"]], not_match=["gh pr"],
)
prefix_rule(pattern=["terraform", "apply"], decision="prompt", justification="it costs")
prefix_rule(pattern=["mkfs"], decision="forbidden")
host_executable(name="git", paths=["/usr/bin/git"])
"""


@pytest.fixture(name="project", autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str) -> Path:
    path = platformdirs.user_config_path("tmuxjobs") / "settings.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_check_prints_each_command_its_verdict_and_the_rule(run: Run) -> None:
    path = write('[policy]\nallow = ["git log", "wc"]\nask = ["git push"]\n')
    done = run("policy", "check", "git log | wc -l")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"✓ allow  git log    rule 'git log' ({path}, line 2)",
        f"✓ allow  wc -l    rule 'wc' ({path}, line 2)",
        "allow",
    ]
    done = run("policy", "check", "--json", "-e", "PATH=secret", "--", "git", "push", "$(reboot)")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["verdict"] == "deny"
    assert [(one["part"], one["verdict"]) for one in answer["findings"]] == [
        ("variable PATH", "deny"),
        ("git push '$(reboot)'", "ask"),
    ]
    assert "secret" not in done.stdout


def test_check_says_that_no_policy_is_set(run: Run) -> None:
    done = run("policy", "check", "reboot")
    assert (done.returncode, done.stdout) == (0, "No policy is set, so everything is allowed.\nallow\n")
    assert run("policy", "check").returncode == 2


def test_test_runs_the_examples(run: Run) -> None:
    path = write('[policy]\nallow = [\n  { rule = "ls", match = ["ls -l"], not_match = ["lsof"] },\n  "wc",\n]\n')
    done = run("policy", "test")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [f"allow  ls    2 examples hold  ({path}, line 3)", f"allow  wc    0 examples hold  ({path}, line 4)"],
    )
    path.write_text(path.read_text().replace("lsof", "ls -a"))
    done = run("policy", "test")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"tmuxjobs: {path}, line 3: the policy cannot be used: rule 'ls' matches 'ls -a'.\n"


def test_rules_of_claude_are_taken(run: Run, isolated: Path, project: Path) -> None:
    home = Path.home() / ".claude"
    home.mkdir()
    (home / "settings.json").write_text(json.dumps(CLAUDE))
    (project / ".claude").mkdir()
    (project / ".claude" / "settings.local.json").write_text('{"permissions": {"allow": ["Bash(pwd)"]}}')
    done = run("policy", "import", "claude")
    assert (done.returncode, done.stderr) == (0, "")
    assert tomllib.loads(done.stdout)["policy"] == {
        "allow": ["npm run test", "go vet", "make $", "pwd $"],
        "ask": ["git push"],
        "deny": ["curl"],
    }
    left = [line for line in done.stdout.splitlines() if line.startswith("# not taken")]
    assert len(left) == 3
    policy = policy_of(Table(tomllib.loads(done.stdout)["policy"], "taken"), project)
    lines = {"make": "allow", "make x": "deny", "npm run test -- a": "allow", "curl x": "deny", "git push": "ask"}
    assert {line: verdict_on([policy], Asked(line, project, "/bin/sh")).kind for line in lines} == lines


def test_rules_of_codex_are_taken_with_their_examples(run: Run, project: Path) -> None:
    rules = Path.home() / ".codex" / "rules"
    rules.mkdir(parents=True)
    (rules / "default.rules").write_text(CODEX)
    done = run("policy", "import", "codex")
    assert (done.returncode, done.stderr) == (0, "")
    taken = tomllib.loads(done.stdout)["policy"]
    assert taken == {
        "allow": [
            {"rule": "gh {pr,issue} view", "match": ["gh pr view 1", "gh issue view"], "not_match": ["gh pr"]},
        ],
        "ask": ["terraform apply"],
        "deny": ["mkfs"],
    }
    assert policy_of(Table(taken, "taken"), project).rules[0].examples == 3
    assert "host_executable" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("client", "path", "text", "said"),
    [
        ("claude", ".claude/settings.json", "{", "cannot be read"),
        ("codex", ".codex/rules/a.rules", "prefix_rule(", "cannot be read"),
        ("claude", "other", "", "There are no rules of claude to take"),
        ("codex", "other", "", "There are no rules of codex to take"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_one_line(run: Run, client: str, path: str, text: str, said: str) -> None:
    file = Path.home() / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    done = run("policy", "import", client)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1

"""Policies as people write them: `[policy]` tables and lists of patterns. A wrong one stops the start.

Also the rule by which what a person was asked about would be allowed. All else in that file of theirs stays as
it is, and it is written only when it then means what it meant before and the rule.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from tmuxjobs import files
from tmuxjobs.arguments import duration
from tmuxjobs.errors import SettingsError
from tmuxjobs.files import Odd
from tmuxjobs.policy.commands import Command, seen
from tmuxjobs.policy.rules import ASK_S, END, STRICT, Asked, Kind, Policy, Rule, Tools, Verdict, reached, verdict_on
from tmuxjobs.policy.tree import Unclear

MOST_S = 365 * 86400.0
SHELLS = ("bash", "sh", "dash", "ash")
THERE = re.compile(r"([\w.@-]+):(/.*)", re.ASCII)
"""A root on another host."""
KEYS = ("default", "allow", "ask", "deny", "always", "ask_for", "roots", "env", "shells", "tools")


@dataclass(frozen=True, slots=True)
class Table:
    """A `[policy]` as it is written, and where."""

    content: Mapping[str, Any]
    file: str
    text: str = ""
    folder: Path = Path("/")
    """What its relative roots are relative to."""

    def place(self, near: str, key: str = "") -> str:
        """The file, and the line of the policy that holds that text; tomllib does not say where a value stood.

        It is the first one, of a rule the first of its list that has nothing else between its quotes.
        """
        lines = self.text.split("\n")
        begins = next((at for at, line in enumerate(lines) if re.match(r"\s*\[?policy\b", line)), 0)
        after = next((at for at in range(begins, len(lines)) if re.match(rf"\s*{key}\s*=", lines[at])), begins)
        written = "|".join(re.escape(one) for one in (f"'{near}'", f'"{near}"', quoted(near)))
        whole = (at for at in range(after, len(lines)) if re.search(written, lines[at])) if key else iter(())
        at = next(whole, next((at for at in range(begins, len(lines)) if near in lines[at]), begins))
        return f"{self.file}, line {at + 1}" if self.text else self.file

    def refused(self, what: str, near: str) -> SettingsError:
        return SettingsError(f"{self.place(near)}: the policy cannot be used: {what}.")


def table_in(path: Path, *, known: tuple[str, ...] = (), needed: bool = False) -> Table | None:
    """The `[policy]` of that file, if it has one; raises SettingsError for a file that cannot be used."""
    try:
        text, content = files.toml(path)
    except (Odd, OSError) as error:
        raise SettingsError(f"{path} cannot be read: {files.why(error)}.") from None
    unknown = sorted(content.keys() - {"policy", *known})
    if unknown:
        raise SettingsError(f"{path} cannot be used: '{unknown[0]}' is not known there; there is [policy].")
    if needed and "policy" not in content:
        raise SettingsError(f"{path} cannot be used as a policy: it has no [policy].")
    return Table(content["policy"], str(path), text, path.parent) if "policy" in content else None


def policy_of(table: Table, project: Path, *, default: Kind = "deny", narrows: bool = False) -> Policy:
    """The policy in that table, checked with its own examples; raises SettingsError with file, line and reason."""
    content = table.content
    if not isinstance(content, Mapping):
        raise table.refused("it is not a table", "policy")
    for key in content:
        if key not in KEYS:
            raise table.refused(f"'{key}' is not known; there are {', '.join(KEYS)}", key)
    default = _one_of(table, "default", get_args(Kind), default)
    tools = _one_of(table, "tools", get_args(Tools), "full")
    shells = _texts(table, "shells", () if narrows else ("bash", "sh"))
    for shell in shells:
        if os.path.basename(shell) not in SHELLS:
            raise table.refused(f"a line of '{shell}' cannot be read; there are {', '.join(SHELLS)}", "shells")
    written = _texts(table, "roots", ())
    named = tuple((found[1], Path(found[2])) for one in written if (found := THERE.fullmatch(one)))
    here = [one for one in written if not THERE.fullmatch(one)]
    roots = tuple(Path(os.path.abspath(table.folder / os.path.expanduser(root))) for root in here)
    for root in roots:
        if not root.is_dir():
            raise table.refused(f"root '{root}' is not a directory", "roots")
    if "roots" in content and not written:
        raise table.refused("roots is empty, which would allow nothing; leave it out for the project's folder", "roots")
    return Policy(
        table.file,
        default,
        tuple(rule for kind in STRICT for rule in _rules(table, kind)),
        None,
        roots or (() if narrows else (project,)),
        _texts(table, "env", ()) if "env" in content else None,
        shells,
        tools,
        tuple(_rules(table, "allow", "always")),
        _seconds(table, "ask_for", ASK_S),
        narrows,
        named,
    )


def _seconds(table: Table, key: str, default: float) -> float:
    value = table.content.get(key, default)
    try:
        found = duration(value) if isinstance(value, str) else 0.0 if value is True else float(value)
    except (TypeError, ValueError):
        found = 0.0
    if not 0 < found < MOST_S:
        raise table.refused(f"{key} is {value!r}; write a time like '30s', '15m' or '2h'", key)
    return found


def _one_of(table: Table, key: str, known: tuple[Any, ...], default: Any) -> Any:
    value = table.content.get(key, default)
    if value not in known:
        raise table.refused(f"{key} is {value!r}; there are {', '.join(known)}", key)
    return value


def _texts(table: Table, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = table.content.get(key, default)
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) and one for one in value):
        raise table.refused(f"{key} must be a list of texts", key)
    return tuple(value)


def _rules(table: Table, kind: Kind, key: str = "") -> list[Rule]:
    written = table.content.get(key or kind, [])
    if not isinstance(written, list):
        raise table.refused(f"{key or kind} must be a list of rules", key or kind)
    return [_rule(table, kind, one, key or kind) for one in written]


def _rule(table: Table, kind: Kind, written: Any, key: str) -> Rule:
    given = {"rule": written} if isinstance(written, str) else written
    if not isinstance(given, Mapping) or not isinstance(given.get("rule"), str):
        raise table.refused(f"a rule of {kind} is neither a text nor a table with `rule`", kind)
    text = given["rule"]
    unknown = sorted(given.keys() - {"rule", "match", "not_match"})
    if unknown:
        raise table.refused(f"'{unknown[0]}' of rule '{text}' is not known; there are rule, match, not_match", text)
    try:
        rule = Rule.parse(text, kind, table.place(text, key))
    except ValueError as error:
        raise table.refused(str(error), text) from None
    for which in ("match", "not_match"):
        examples = given.get(which, [])
        if not isinstance(examples, list) or not all(isinstance(one, str) for one in examples):
            raise table.refused(f"{which} of rule '{text}' must be a list of texts", text)
        for line in examples:
            if applies(rule, line) != (which == "match"):
                said = "does not match" if which == "match" else "matches"
                raise table.refused(f"rule '{text}' {said} '{line}'", text)
    return replace(rule, examples=len(given.get("match", [])) + len(given.get("not_match", [])))


def applies(rule: Rule, line: str) -> bool:
    """Whether the rule is for each command of that line, if it allows, and for any of them, if it restricts."""
    try:
        commands: list[Command] = [one for one in seen(line).commands if not one.wraps]
    except Unclear:
        return False
    if rule.kind == "allow":
        return bool(commands) and all(rule.matches(one) for one in commands)
    return any(rule.may_match(one) for one in commands)


def pattern_policy(patterns: tuple[str, ...], where: str, project: Path) -> Policy:
    return Policy(where, "deny", patterns=patterns, roots=(project,))


SPECIAL = re.compile(r"[*{}]")
"""Characters that mean something else in a rule."""


def rules_for(policies: Sequence[Policy], asked: Asked) -> tuple[str, tuple[str, ...]]:
    """The file and the rules, each for one command word by word; none where they would not do.

    That is where several policies ask, or one that is in no file of the person's, and where a word is not certain.
    """
    asking = [policy for policy in policies if verdict_on([policy], asked).kind == "ask"]
    if len(asking) != 1 or not asking[0].is_persons:
        return "", ()
    policy = asking[0]
    commands = [command for line in asked.lines for command in asked.seen(line).commands]
    texts = tuple(dict.fromkeys(_exact(one) for one in commands if policy.of_command(one).kind == "ask"))
    rules = tuple(Rule.parse(text, "allow", policy.where) for text in texts if text)
    wider = replace(policy, always=policy.always + rules)
    if verdict_on([wider if one is policy else one for one in policies], asked).kind != "allow":
        return "", ()
    return policy.where, texts


def question(policies: Sequence[Policy], verdict: Verdict) -> dict[str, Any]:
    """What the record says of a job that is not refused: where it leads, and what a person must approve first."""
    judged = {"judged": reached(verdict.asked)}
    if verdict.kind != "ask":
        return judged
    file, rules = rules_for(policies, verdict.asked)
    bound_s = min(policy.ask_for_s for policy in policies)
    return {**judged, "ask_why": verdict.why, "ask_s": bound_s, "ask_rules": rules, "ask_file": file}


def _exact(command: Command) -> str:
    words = [word.text or "" for word in command.words if word.known and not word.many]
    if len(words) != len(command.words) or any(SPECIAL.search(word) or word == END for word in words):
        return ""
    return f"{shlex.join(words)} {END}"


def add(file: str, rules: Sequence[str]) -> None:
    """Put the rules into `always` of the file's [policy]; raises SettingsError, and then it is as it was."""
    path = Path(os.path.realpath(file))  # it may be a link into someone's dotfiles
    by_hand = f"add this to its [policy]: always = [{', '.join(map(quoted, rules))}]"
    try:
        text, before = files.toml(path)
    except (Odd, OSError) as error:
        raise SettingsError(f"{file} cannot be read ({error}), so nothing was approved; {by_hand}") from None
    wanted = [rule for rule in rules if rule not in before.get("policy", {}).get("always", [])]
    if not wanted:
        return
    changed = _with(text, wanted)
    with contextlib.suppress(ValueError, RecursionError):
        policy = before.get("policy", {})
        after = before | {"policy": policy | {"always": [*wanted, *policy.get("always", [])]}}
        if tomllib.loads(changed) == after:
            try:
                files.replace_text(path, changed)
            except OSError as error:
                said = f"{path} cannot be written: {error.strerror}. Nothing was approved; {by_hand}"
                raise SettingsError(said) from None
            return
    raise SettingsError(f"{file} is written in a way that cannot be added to, so nothing was approved; {by_hand}")


def _with(text: str, rules: Sequence[str]) -> str:
    """With the rules at the beginning of `always`, or as a new `always` at the beginning of [policy]."""
    head = re.search(r"(?m)^[ \t]*\[[ \t]*policy[ \t]*\][^\n]*\n?", text)
    if head is None:
        return text
    following = re.search(r"(?m)^[ \t]*\[[ \t]*[\w\"']", text[head.end() :])
    end = head.end() + following.start() if following else len(text)
    there = re.compile(r"(?m)^[ \t]*always[ \t]*=[ \t]*\[").search(text, head.end(), end)
    listed = ", ".join(map(quoted, rules))
    if there is not None:
        return f"{text[: there.end()]}{listed}, {text[there.end() :]}"
    newline = "" if head[0].endswith("\n") else "\n"
    return f"{text[: head.end()]}{newline}always = [{listed}]\n{text[head.end() :]}"


def quoted(rule: str) -> str:
    """As TOML has it."""
    if "'" not in rule and rule.isprintable():
        return f"'{rule}'"
    escaped = rule.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in escaped) + '"'

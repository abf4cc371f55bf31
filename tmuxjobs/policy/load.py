"""Policies as people write them: `[policy]` tables and lists of patterns. A wrong one stops the start.

Also adds the rule that allows what a person was asked about. All else in their file stays as it is, and the file is
written only if it then means what it meant before plus the rule.

And translates the rules that a person has given Claude Code or Codex into a `[policy]`. A rule that has no exact
counterpart here becomes a comment with the reason, so that nothing is allowed unseen.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

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
    """A `[policy]` as written, and its file."""

    content: Mapping[str, Any]
    file: str
    text: str = ""
    folder: Path = Path("/")
    """The base of its relative roots."""

    def place(self, near: str, key: str = "") -> str:
        """The file, and the line of the policy that holds that text; tomllib does not say where a value is.

        It is the first such line; for a rule, the first in its list that has nothing else between its quotes.
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
    """Whether the rule matches every command of that line if it allows, or any of them if it restricts."""
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
    """The file and the rules, each for one command word by word; none if they would not suffice.

    That is so if several policies ask, or one that is not in a file of the person's, or if a word is not certain.
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
    """Put the rules into `always` of the file's [policy]; raises SettingsError and then leaves the file as it was."""
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
    """The text with the rules at the beginning of `always`, or in a new `always` at the beginning of [policy]."""
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
    """The rule as a TOML string."""
    if "'" not in rule and rule.isprintable():
        return f"'{rule}'"
    escaped = rule.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in escaped) + '"'


DECISIONS: dict[str, Kind] = {"allow": "allow", "prompt": "ask", "forbidden": "deny"}


class Taken(NamedTuple):
    kind: Kind
    rule: str
    match: tuple[str, ...] = ()
    not_match: tuple[str, ...] = ()


class Left(NamedTuple):
    """A rule that cannot be taken."""

    text: str
    why: str


def taken(client: Literal["claude", "codex"], folder: Path, home: Path, environ: Mapping[str, str]) -> str:
    """TOML with what that client's files say; raises SettingsError when there is none, or one that cannot be read."""
    if client == "claude":
        config = Path(environ.get("CLAUDE_CONFIG_DIR", home / ".claude"))
        paths = [config / "settings.json", folder / ".claude/settings.json", folder / ".claude/settings.local.json"]
        reader = in_claude
    else:
        paths = sorted(Path(environ.get("CODEX_HOME", home / ".codex")).glob("rules/*.rules"))
        paths += sorted(folder.glob(".codex/rules/*.rules"))
        reader = in_codex
    parts = []
    for path in paths:
        text = _text(path)
        if text is None:
            continue
        try:
            rules = list(reader(text))
        except (ValueError, SyntaxError, RecursionError) as error:
            raise SettingsError(f"{path} cannot be read: {' '.join(str(error).split())}.") from None
        parts.append((path, rules))
    if not parts:
        looked = ", ".join(map(str, paths)) or "no rules folder"
        raise SettingsError(f"There are no rules of {client} to take (looked for {looked}).")
    return written(parts)


def _text(path: Path) -> str | None:
    try:
        return files.read(path, follow=True).decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Odd as odd:
        raise SettingsError(f"{path} cannot be read: it {odd}.") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {error}.") from None


def in_claude(text: str) -> Iterator[Taken | Left]:
    """`permissions.{allow,ask,deny}` of a settings.json: `Bash(npm run test:*)`, `Bash(git diff *)`, `Bash(make)`."""
    content = json.loads(text)
    permissions = content.get("permissions", {}) if isinstance(content, dict) else {}
    kinds: tuple[Kind, ...] = ("allow", "ask", "deny")
    for kind in kinds:
        for rule in permissions.get(kind, []):
            found = re.fullmatch(r"Bash(?:\((.*)\))?", rule, re.DOTALL) if isinstance(rule, str) else None
            if found is not None:
                yield _of_claude(kind, rule, found[1])


def _of_claude(kind: Kind, rule: str, inside: str | None) -> Taken | Left:
    if inside is None or inside.strip() in ("", "*", ":*"):
        return Left(f"{kind}: {rule}", f'it is for every command; write default = "{kind}" if that is meant')
    prefix = re.fullmatch(r"(.*?)(?::\*| \*)", inside, re.DOTALL)
    body = prefix[1] if prefix else inside
    if re.search(r"\\\*", body):
        return Left(f"{kind}: {rule}", "an escaped `*` has no counterpart")
    if re.search(r"[;&|<>$`\n(){}\"'\\]", body):
        return Left(f"{kind}: {rule}", "it is about a shell line; here each command in a line is judged by itself")
    if any("*" in word for word in body.split()[:-1]) or (not prefix and body.split()[-1] == "*"):
        return Left(f"{kind}: {rule}", "its `*` stands for several words; write one rule for each form")
    last = body.split()[-1]
    # Theirs is a text of which a `*` may stand for more words; as a beginning ours is for the same lines.
    end = "" if prefix or last.endswith("*") else f" {END}"
    return _checked(kind, f"{body}{end}", rule)


def in_codex(text: str) -> Iterator[Taken | Left]:
    """`prefix_rule(pattern=["git", ["status", "diff"]], decision="allow", match=[...])`; Starlark reads as Python."""
    for statement in ast.parse(text).body:
        call = statement.value if isinstance(statement, ast.Expr) else None
        source = ast.unparse(statement)
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "prefix_rule":
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                yield Left(source, "only `prefix_rule` has a counterpart")
            continue
        try:
            given = {one.arg: ast.literal_eval(one.value) for one in call.keywords}
        except ValueError:
            yield Left(source, "its arguments are not literal")
            continue
        yield _of_codex(given, source)


def _of_codex(given: Mapping[str | None, Any], source: str) -> Taken | Left:
    pattern = given.get("pattern")
    kind = DECISIONS.get(str(given.get("decision", "allow")))
    if not isinstance(pattern, list) or not pattern or kind is None:
        return Left(source, "it has no pattern, or a decision that is not known")
    tokens = []
    for token in pattern:
        texts = token if isinstance(token, list) else [token]
        if not texts or not all(isinstance(one, str) and one for one in texts):
            return Left(source, "its pattern is not made of texts")
        if any(re.search(r"[*{},]", one) for one in texts) or texts == [END]:
            return Left(source, "a text of its pattern has a meaning of its own here")
        tokens.append(shlex.quote(texts[0]) if len(texts) == 1 else "{" + ",".join(map(shlex.quote, texts)) + "}")
    examples = [_lines(given.get(key)) for key in ("match", "not_match")]
    return _checked(kind, " ".join(tokens), source, examples[0], examples[1])


def _lines(examples: object) -> tuple[str, ...]:
    """Command lines; theirs may be lists of words too."""
    if not isinstance(examples, list):
        return ()
    return tuple(one if isinstance(one, str) else shlex.join(map(str, one)) for one in examples)


def _checked(
    kind: Kind, rule: str, source: str, match: tuple[str, ...] = (), not_match: tuple[str, ...] = ()
) -> Taken | Left:
    try:
        parsed = Rule.parse(rule, kind, "")
    except ValueError as error:
        return Left(f"{kind}: {source}", str(error))
    for lines, wanted in ((match, True), (not_match, False)):
        wrong = next((line for line in lines if applies(parsed, line) != wanted), None)
        if wrong is not None:
            return Left(f"{kind}: {source}", f"its example '{wrong}' is judged otherwise here")
    return Taken(kind, rule, match, not_match)


def written(parts: list[tuple[Path, list[Taken | Left]]]) -> str:
    """The whole as TOML."""
    lines = ["[policy]"]
    kinds: tuple[Kind, ...] = ("allow", "ask", "deny")
    for kind in kinds:
        rules = [(path, one) for path, found in parts for one in found if isinstance(one, Taken) and one.kind == kind]
        if not rules:
            continue
        lines.append(f"{kind} = [")
        last = None
        for path, one in dict.fromkeys(rules):
            if path != last:
                lines.append(f"  # {path}")
            last = path
            lines.append(f"  {_as_toml(one)},")
        lines.append("]")
    for path, found in parts:
        for left in found:
            if isinstance(left, Left):
                lines.append(f"# not taken from {path}: {' '.join(left.text.split())}: {left.why}")
    return "\n".join(lines)


def _as_toml(one: Taken) -> str:
    if not one.match and not one.not_match:
        return json.dumps(one.rule, ensure_ascii=False)
    more = "".join(
        f", {key} = {json.dumps(list(lines), ensure_ascii=False)}"
        for key, lines in (("match", one.match), ("not_match", one.not_match))
        if lines
    )
    return f"{{ rule = {json.dumps(one.rule, ensure_ascii=False)}{more} }}"

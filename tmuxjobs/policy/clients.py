"""Rules that a person has given Claude Code or Codex, as a `[policy]`.

A rule that has no exact counterpart here becomes a comment with the reason, so that nothing is widened unseen.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tmuxjobs import files
from tmuxjobs.errors import SettingsError
from tmuxjobs.files import Odd
from tmuxjobs.policy.load import applies
from tmuxjobs.policy.rules import END, Kind, Rule

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
            lines.append(f"  {_rule(one)},")
        lines.append("]")
    for path, found in parts:
        for left in found:
            if isinstance(left, Left):
                lines.append(f"# not taken from {path}: {' '.join(left.text.split())}: {left.why}")
    return "\n".join(lines)


def _rule(one: Taken) -> str:
    if not one.match and not one.not_match:
        return json.dumps(one.rule, ensure_ascii=False)
    more = "".join(
        f", {key} = {json.dumps(list(lines), ensure_ascii=False)}"
        for key, lines in (("match", one.match), ("not_match", one.not_match))
        if lines
    )
    return f"{{ rule = {json.dumps(one.rule, ensure_ascii=False)}{more} }}"

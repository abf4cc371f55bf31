"""A policy's rules, and its verdict on one job. The strictest rule wins; what cannot be known is refused."""

from __future__ import annotations

import fnmatch
import functools
import os
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import regex

from tmuxjobs.policy import options
from tmuxjobs.policy.callers import PROJECT_FILE
from tmuxjobs.policy.commands import OTHER_SHELLS, Command, Seen, seen
from tmuxjobs.policy.places import There, path_of, walk
from tmuxjobs.policy.shell import RUNS, Redirect
from tmuxjobs.policy.tree import Unclear
from tmuxjobs.policy.variables import changes_what_runs
from tmuxjobs.policy.words import Word

Kind = Literal["allow", "ask", "deny"]
Tools = Literal["read-only", "no-input", "full"]
HIDDEN: dict[Tools, set[str]] = {
    "read-only": {"execute", "fetch", "interact", "kill", "pause", "queue", "restart", "resume"},
    "no-input": {"interact"},
    "full": set(),
}
"""{value of `tools`: the verbs that the policy's callers do not have}."""
STRICT: dict[Kind, int] = {"allow": 0, "ask": 1, "deny": 2}
MATCH_S = 0.2
"""The time limit for one pattern on one command."""
FOLDERS = 40
"""How many places a line may change into."""
ASK_S = 3600.0
END = "$"
"""As a rule's last token: the command ends there."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`git {status,diff}`: tokens that a command's words must begin with; `*` matches any one word."""

    text: str
    kind: Kind
    where: str
    tokens: tuple[tuple[str, ...], ...]
    """For each word the texts that it may be; `*` in a text matches any characters."""
    examples: int = 0
    """How many command lines were checked with it."""

    @classmethod
    def parse(cls, text: str, kind: Kind, where: str) -> Rule:
        """The rule in that text; raises ValueError with what is wrong."""
        try:
            tokens = shlex.split(text)
        except ValueError as error:
            raise ValueError(f"'{text}' cannot be read ({str(error).lower()})") from None
        if not tokens:
            raise ValueError("a rule is empty")
        if any(token.count("{") != token.count("}") for token in tokens):
            raise ValueError(f"`{{a,b}}` in '{text}' stands for one word; write a rule for each form")
        if tokens[0].startswith("*") and kind == "allow":
            raise ValueError(f"'{text}' allows every command; write default = \"allow\" if that is meant")
        return cls(text, kind, where, tuple(tuple(alternatives(token)) for token in tokens))

    def matches(self, command: Command) -> bool:
        """Whether the rule certainly matches the command."""
        words = command.words
        for number, token in enumerate(self.tokens):
            last = number == len(self.tokens) - 1
            if token == (END,) and last:
                return len(words) == number
            if number >= len(words):
                return False
            word = words[number]
            if word.many and not (last and token == ("*",) and not _may_vanish(word)):
                return False
            if token != ("*",) and not (word.known and fits(word.text or "", token)):
                return False
            if ".." in (word.text or "").split("/") and word.text not in token and token != ("*",):
                return False  # `./bin/*` does not match `./bin/../../x`
        named = {text for token in self.tokens for text in token}
        return all(any(_named(one, text) for text in named) for one in command.sharp)

    def may_match(self, command: Command) -> bool:
        """Whether the rule may match the command, as far as can be known; options are skipped."""
        return self._may_match(command.words, 0, 0)

    def _may_match(self, words: tuple[Word, ...], at: int, number: int) -> bool:
        if number == len(self.tokens):
            return True
        token = self.tokens[number]
        if token == (END,) and number == len(self.tokens) - 1:
            return all(word.many for word in words[at:])
        if at >= len(words):
            return False
        word = words[at]
        if word.many:
            return True
        text = word.text or ""
        texts = (text, text.rpartition("/")[2]) if number == 0 else (text,)
        hit = not word.known or token == ("*",) or any(fits(one, token) for one in texts)
        if hit and self._may_match(words, at + 1, number + 1):
            return True
        if number and all(one.startswith("-") and one != "-" for one in token):
            rest = words[at:]
            letters = {letter for one in rest for letter in one.text or "" if re.match(r"-[^-]", one.text or "")}
            hit = any(not one.known or fits(one.text or "", token) for one in rest)
            if hit or any(re.fullmatch(r"-\w+", one) and set(one) <= letters for one in token):
                return self._may_match(words, at, number + 1)
        if number and word.may_be_option:
            return any(self._may_match(words, at + step, number) for step in (1, 2))
        return False


def alternatives(token: str) -> list[str]:
    """Expand braces: `{a,b}c` is `ac` and `bc`."""
    found = re.search(r"\{([^{}]*,[^{}]*)\}", token)
    if found is None:
        return [token]
    return [
        more
        for one in found[1].split(",")
        for more in alternatives(token[: found.start()] + one + token[found.end() :])
    ]


def fits(text: str, token: tuple[str, ...]) -> bool:
    return text in token or any("*" in one and _pattern(one).fullmatch(text) for one in token)


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile("".join(".*" if char == "*" else re.escape(char) for char in text), re.DOTALL)


def _named(sharp: str, text: str) -> bool:
    """Whether a rule's token names that argument, or its option."""
    return text not in ("*", END) and text.rstrip("*") != "" and (fits(sharp, (text,)) or text == sharp.split("=")[0])


def _may_vanish(word: Word) -> bool:
    return any(char in word.raw for char in "$`{") or not word.raw


@dataclass(frozen=True, slots=True)
class Asked:
    """A job that is asked for."""

    command: str
    cwd: Path
    shell: str
    env: Mapping[str, str] = field(default_factory=dict)
    inherited: Collection[str] | None = None
    """The names of the variables that it would have beside; None where nobody can tell."""
    there: There | None = None
    shell_options: tuple[str, ...] = ()
    ready: str | None = None
    """The command line that tells that it is ready."""

    @property
    def lines(self) -> tuple[str, ...]:
        """All command lines that it would run."""
        return (self.command,) if self.ready is None else (self.command, self.ready)

    @property
    def bash(self) -> bool:
        """Whether bash would run them."""
        return os.path.basename(os.path.realpath(self.shell)) == "bash"

    def seen(self, line: str) -> Seen:
        """What that line would do; raises Unclear."""
        return seen(line, bash=self.bash, env=self.env, inherited=self.inherited)


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one part of what was asked, and why."""

    part: str
    kind: Kind
    why: str

    @property
    def shown(self) -> str:
        """Without what may be a variable's value."""
        name, equals, _ = self.part.partition("=")
        return f"`{name[:80]}{equals}{'...' if equals or len(name) > 80 else ''}`: {self.why}"


@dataclass(frozen=True, slots=True)
class Policy:
    """One source of rules: a person's settings, a project's file, or a list of patterns."""

    where: str
    default: Kind = "deny"
    rules: tuple[Rule, ...] = ()
    patterns: tuple[str, ...] | None = None
    """Regular expressions instead of rules: each command must match one."""
    roots: tuple[Path, ...] = ()
    env: tuple[str, ...] | None = None
    shells: tuple[str, ...] = ("bash", "sh")
    tools: Tools = "full"
    always: tuple[Rule, ...] = ()
    """Rules that also allow what another rule asks about."""
    ask_for_s: float = ASK_S
    """How long a person is asked before the job is refused."""
    narrows: bool = False
    """Whether another policy holds too, so that this one need not repeat what none allows."""
    named: tuple[tuple[str, Path], ...] = ()
    """Roots on other machines: each machine's name, and the path there."""
    there: There | None = None
    """The other machine that it is about now."""

    def judge(self, asked: Asked) -> list[Finding]:
        """A finding for each part of the request; at least one."""
        return (self if asked.there is None else self._over(asked.there))._judge(asked)

    def _over(self, there: There) -> Policy:
        """The same for a job on that machine: its roots are those paths there, their copies, and what is named."""
        named = [path for host, path in self.named if host == there.host]
        ours = [*self.roots, *([Path(there.sync)] if there.sync and self.covers(Path(there.sync)) else [])]
        return replace(self, roots=(*self.roots, *map(there.copy_of, ours), *named), there=there)

    def _judge(self, asked: Asked) -> list[Finding]:
        found = [*self._folder(asked.cwd), *self._shell(asked.shell), *self._environment(asked.env)]
        found += self._options(asked)
        return found + [one for line in asked.lines for one in self._line(line, asked)]

    def _line(self, line: str, asked: Asked) -> list[Finding]:
        try:
            what = asked.seen(line)
        except Unclear as unclear:
            return [Finding(line, "deny", str(unclear))]
        found = [self.of_command(command) for command in what.commands]
        found += self._variables(what)
        found += self._places(what, asked.cwd)
        if not what.commands and not found:
            found.append(Finding(line, self.default, f"it runs no command; default is {self.default}"))
        return found

    @property
    def hidden(self) -> set[str]:
        """Verbs that its callers do not have."""
        return HIDDEN[self.tools]

    @property
    def is_persons(self) -> bool:
        """Whether it is in a file of the person's, not in a project's."""
        return os.path.isabs(self.where) and os.path.basename(self.where) != PROJECT_FILE

    def of_command(self, command: Command) -> Finding:
        """The verdict on one command."""
        text = command.text
        if self.patterns is not None:
            return self._by_pattern(command, self.patterns)
        strict = [rule for rule in self.rules if rule.kind != "allow" and rule.may_match(command)]
        if strict:
            rule = max(strict, key=lambda one: STRICT[one.kind])
        if strict and (rule.kind == "deny" or not any(one.matches(command) for one in self.always)):
            return Finding(text, rule.kind, f"rule '{rule.text}' ({rule.where})")
        if command.wraps:
            return Finding(text, "allow", "what it runs is judged")
        rule_for = next(
            (rule for rule in (*self.always, *self.rules) if rule.kind == "allow" and rule.matches(command)), None
        )
        if rule_for is not None:
            return Finding(text, "allow", f"rule '{rule_for.text}' ({rule_for.where})")
        if command.sharp and not self.narrows:
            kind: Kind = "ask" if self.default == "ask" else "deny"
            return Finding(text, kind, f"no rule names '{command.sharp[0]}', by which it may run or write anything")
        return Finding(text, self.default, f"no rule is for it; default is {self.default} ({self.where})")

    def _by_pattern(self, command: Command, patterns: Iterable[str]) -> Finding:
        text = command.text
        if command.wraps:
            return Finding(text, "allow", "what it runs is judged")
        plain = " ".join(word.text if word.known and word.text else word.raw for word in command.words)
        for pattern in patterns:
            try:
                hit = regex.search(pattern, plain, regex.IGNORECASE, timeout=MATCH_S)
            except TimeoutError:
                return Finding(text, "deny", f"the pattern '{pattern}' took longer than {MATCH_S} s on it")
            if hit and all(re.escape(one.split("=")[0]) in pattern or one in pattern for one in command.sharp):
                return Finding(text, "allow", f"pattern '{pattern}'")
        return Finding(text, "deny", f"it matches none of the allowed patterns: {', '.join(patterns)}")

    def _folder(self, cwd: Path) -> list[Finding]:
        if self._within(cwd):
            return []
        return [Finding(f"cwd {cwd}", "deny", f"it is not below {self._named_roots()}")]

    def covers(self, path: Path) -> bool:
        """Whether it has roots, and lets jobs write to *path*."""
        return bool(self.roots) and self._within(path)

    def _real(self, path: str | Path) -> str:
        return self.there.real(path) if self.there is not None else os.path.realpath(path)

    def _within(self, path: Path) -> bool:
        real = Path(self._real(path))
        return not self.roots or any(real.is_relative_to(self._real(root)) for root in self.roots)

    def _named_roots(self) -> str:
        named = " or ".join(str(root) for root in self.roots)
        return named if self.there is None else f"{named} there; `roots` may name it as '{self.there.host}:/path'"

    def _shell(self, shell: str) -> list[Finding]:
        real = os.path.realpath(shell)
        if os.path.basename(real) in OTHER_SHELLS:
            return [Finding(f"shell {shell}", "deny", "no policy can read its language; use bash or sh")]
        if self.narrows and not self.shells:
            return []
        for name in self.shells:
            for folder in ("",) if "/" in name else ("/bin", "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"):
                if real == os.path.realpath(os.path.join(folder, name)):
                    return []
        return [Finding(f"shell {shell}", "deny", f"it is not one of {', '.join(self.shells)}")]

    def _options(self, asked: Asked) -> list[Finding]:
        """Those of the shell: a few that are known; a login shell reads files that are the person's alone."""
        odd = options.odd_option(asked.shell_options)
        if odd is not None and not self.narrows:
            known = "-e, -u, -x, -f, -v, -C, -l and -o pipefail"
            return [Finding(f"shell option {odd}", "deny", f"it can change what runs; a policy knows {known}")]
        login = any(re.fullmatch(r"-\w*l\w*|--login", one) for one in asked.shell_options)
        if login and self.covers(Path.home()):
            why = "a login shell reads files below the roots, where the agent may write"
            return [Finding("shell option -l", "deny", why)]
        return []

    def _environment(self, env: Iterable[str]) -> list[Finding]:
        return [one for name in sorted(env) for one in self._variable(name, exported=True)]

    def _variable(self, name: str, *, exported: bool) -> list[Finding]:
        named = self.env is not None and any(one == name for one in self.env)
        if not named and changes_what_runs(name) and not (self.narrows and self.env is None):
            return [Finding(f"variable {name}", "deny", "it changes what runs")]
        if exported and self.env is not None and not any(fnmatch.fnmatchcase(name, one) for one in self.env):
            return [Finding(f"variable {name}", "deny", f"it is not one of {', '.join(self.env) or 'none'}")]
        return []

    def _variables(self, what: Seen) -> list[Finding]:
        shell = [one for name in dict.fromkeys(what.sets) for one in self._variable(name, exported=False)]
        return shell + [one for name in dict.fromkeys(what.exports) for one in self._variable(name, exported=True)]

    def _places(self, what: Seen, cwd: Path) -> list[Finding]:
        """Folders that the line changes into and files that it writes must be below the roots, wherever it is then."""
        places, exact = [cwd], list[list[Path]]()
        for folder, places, here in walk(what, cwd, self.there):
            exact.append(here)
            if not places:
                return [Finding(folder.raw, "deny", "only a run could tell which folder it is")]
            if len(places) > FOLDERS:
                return [Finding(folder.raw, "deny", "it changes its folder too often")]
            if not all(self._within(place) for place in places):
                why = f"it is not below {self._named_roots()}, or would not be if a command before it failed"
                return [Finding(f"cd {folder.raw}", "deny", why)]
        return [
            one
            for redirect in what.redirects
            for one in self._redirect(redirect, exact[redirect.after - 1] if redirect.after else places)
        ]

    def _redirect(self, redirect: Redirect, places: list[Path]) -> list[Finding]:
        operator, target = redirect.operator, redirect.target
        shown = f"{operator}{target.raw}"
        if operator in (">&", "<&") and re.fullmatch(r"\d+-?|-", target.text or ""):
            return []
        path = path_of(target, self.there)
        if path is None:
            return [Finding(shown, "deny", "only a run could tell which file it is")]
        if operator in ("<", "<&") or str(path) == "/dev/null":
            network = path.is_relative_to("/dev/tcp") or path.is_relative_to("/dev/udp")
            return [Finding(shown, "deny", "it opens a connection")] if network else []
        does = "runs" if operator == RUNS else "writes to"
        against = (self.against_writing(place / path, does) for place in places)
        return [Finding(shown, "deny", why) for why in against if why][:1]

    def against_writing(self, path: Path, does: str = "writes to") -> str:
        """Why nothing may be written to that file, if so, in words for what `does` so."""
        real = Path(self._real(path))
        if not self._within(real) or str(real).startswith(("/dev/", "/proc/")):
            return f"it {does} a file that is not below {self._named_roots() or '/'}"
        if real.name.casefold() == PROJECT_FILE or str(real) == os.path.realpath(self.where):
            return f"it {does} a file that says what may run"
        if ".git" in [part.casefold() for part in real.parts]:
            return "it writes into .git, where files are run"
        return ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of all policies on one job: the strictest finding decides."""

    kind: Kind
    findings: tuple[Finding, ...]
    asked: Asked

    @property
    def why(self) -> str:
        """The deciding finding, in one sentence."""
        decisive = next(one for one in self.findings if one.kind == self.kind)
        part = decisive.part if len(decisive.part) <= 200 else f"{decisive.part[:200]}..."
        return f"`{part}`: {decisive.why}"

    @property
    def rule(self) -> str:
        """The deciding findings for the history, without what may be the value of a variable."""
        decisive = [one for one in self.findings if one.kind == self.kind]
        return "; ".join(dict.fromkeys(one.shown for one in decisive))


def reached(asked: Asked) -> tuple[tuple[str, str], ...]:
    """Its folder, where its lines change to and what they write to, each with where it leads now; raises Unclear."""
    found: dict[Path, None] = {asked.cwd: None}
    for line in asked.lines:
        what = asked.seen(line)
        places = [asked.cwd, *(one for _, places, _ in walk(what, asked.cwd, asked.there) for one in places)]
        written = [path_of(one.target, asked.there) for one in what.redirects if one.operator not in ("<", "<&", ">&")]
        found |= dict.fromkeys(places) | {at / path: None for path in written if path for at in places}
    real = os.path.realpath if asked.there is None else asked.there.real
    return tuple((str(path), real(path)) for path in found)


def verdict_on(policies: Iterable[Policy], asked: Asked) -> Verdict:
    """The joint verdict of the policies: that of the strictest."""
    findings = tuple(one for policy in policies for one in policy.judge(asked))
    kind: Kind = max((one.kind for one in findings), key=STRICT.__getitem__, default="allow")
    return Verdict(kind, findings, asked)

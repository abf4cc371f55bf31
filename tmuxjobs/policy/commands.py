"""All that a line would run, with commands that run others unwrapped: `timeout`, `sh -c`, `xargs`, `find -exec`, ..."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from tmuxjobs.policy import given, options, shell
from tmuxjobs.policy.shell import Line, Redirect, Simple
from tmuxjobs.policy.tree import EVALUATED, NAME, Unclear, names, shortened
from tmuxjobs.policy.words import Word

DEPTH = 8
"""How deep commands may wrap each other."""
ANYTHING = Word(None, many=True)
REFUSED = {
    **dict.fromkeys(names("alias unalias"), "changes what names mean"),
    **dict.fromkeys(names("enable hash bind complete compgen compopt fc shopt"), "changes what the shell runs"),
    **dict.fromkeys(names("let select coproc"), "evaluates what it is given"),
}
DECLARING = names("export declare typeset readonly local unset unsetenv")
UNARY = re.compile(r"-[a-hknoprstuwxzGLNOS]")
BINARY = names("= == != < > -eq -ne -lt -le -gt -ge -nt -ot -ef")
BUILTINS = names(
    "command builtin exec eval trap source . cd popd pushd set [ test read mapfile readarray getopts printf"
)
"""Names that are read as builtins only where they are written without a folder."""
FOLDERS = names("/bin /usr/bin /sbin /usr/sbin /usr/local/bin /opt/homebrew/bin")
"""Where a wrapper is the program of that name; elsewhere it may be any program, and needs its own rule."""
FED = re.compile(r"(.*/)?(dev|proc)/.*", re.DOTALL)
"""Scripts whose content is the input."""
SHELLS = names("sh bash dash ash")
OTHER_SHELLS = names("zsh fish ksh mksh csh tcsh rbash yash nu pwsh elvish xonsh")


@dataclass(frozen=True, slots=True)
class Command:
    """A command that would run; if it `wraps` others, those are separate commands that need a rule instead of it."""

    words: tuple[Word, ...]
    wraps: bool = False
    sharp: tuple[str, ...] = ()
    """Its words by which it runs or writes something else: only a rule that names them allows it."""

    @property
    def text(self) -> str:
        return " ".join(word.raw or word.text or "..." for word in self.words)


@dataclass(slots=True)
class Seen:
    """What a line would do."""

    commands: list[Command] = field(default_factory=list)
    redirects: list[Redirect] = field(default_factory=list)
    folders: list[tuple[Word, int]] = field(default_factory=list)
    """The folders that it changes into, in order, each with its `chain`."""
    sets: list[str] = field(default_factory=list)
    """Shell variables that it sets."""
    exports: list[str] = field(default_factory=list)
    """Variables that the commands would see."""
    assigned: list[tuple[str, Word]] = field(default_factory=list)
    """Variables that it sets by assignments, with their values."""
    passed: list[tuple[str, Word]] = field(default_factory=list)
    """Variables that it sets for one command; another shell than bash may keep them."""
    makes: dict[int, list[tuple[str, Word]]] = field(default_factory=dict)
    """For each `make` among the commands the variables that are exported to it in the line itself."""
    renames: bool = False
    """Whether it may define a function `nproc`."""


def seen(
    line: str,
    *,
    bash: bool = True,
    env: Mapping[str, str] = MappingProxyType({}),
    inherited: Collection[str] | None = None,
) -> Seen:
    """All that this line would run and write with those variables; raises Unclear.

    What else its environment has is `inherited`; None where nobody can tell.
    """
    found = Seen()
    try:
        exported = [(name, Word(value, raw="...")) for name, value in env.items()]
        environment = None if inherited is None else {*inherited, *env}
        _Unwrapping(found, exported, bash=bash).line(shell.read(line, bash=bash, environment=environment), line)
        _judge_make(found, environment)
    except RecursionError:
        raise Unclear("it is nested too deeply") from None
    return found


def _judge_make(found: Seen, environment: Collection[str] | None) -> None:
    """A variable of the environment that the line sets, wherever, reaches the recipes of each `make` in it."""
    others = Counter(found.sets) - Counter(name for name, _ in found.assigned)
    if any((command.words[0].text or "") in given.SETTERS for command in found.commands):
        others.update(("REPLY", "OPTARG"))
    assigned = [*found.assigned, *found.passed, *((name, Word(None)) for name in others)]
    for at, exported in found.makes.items():
        command = found.commands[at]
        reach = None if environment is None else {*environment, *(name for name, _ in exported)}
        later = [one for one in assigned if reach is None or one[0] in reach]
        sharp = [f"{name}=..." for name, value in (*exported, *later) if options.reaches_make(name, value.text)]
        own = options.sharp(command.words, counts=not found.renames)
        found.commands[at] = replace(command, sharp=(*own, *dict.fromkeys(sharp)))


def _has(words: tuple[Word, ...], letter: str) -> bool:
    """Whether an option with that letter may be among the words."""
    return any(word.may_be_option and (word.text is None or letter in word.text) for word in words[1:])


def _replaced(word: Word, mark: str, *, many: bool = False) -> Word:
    """A word in which `xargs` or `find` puts what only a run can tell, perhaps an option."""
    before, _, after = (word.text or "").partition(mark)
    return Word(None, many=many, raw=f"{before}{{}}{after}")


class _Unwrapping:
    def __init__(
        self, found: Seen, exported: list[tuple[str, Word]], *, bash: bool, depth: int = 0, looped: bool = False
    ) -> None:
        self.found = found
        self.bash = bash
        self.depth = depth
        self.looped = looped
        self.chain = 0
        self.exported = list(exported)
        """Variables that the commands may see, with their values."""

    def line(self, line: Line, text: str) -> None:
        self.found.sets += [name for name, _ in line.sets]
        self.found.assigned += line.sets
        self.found.renames = self.found.renames or re.search(r"nproc[\s\\]*\(|function", text) is not None
        if any(isinstance(step, Simple) and (step.declares or step.words[0].text == "set") for step in line.steps):
            self.exported += line.sets
        for step in line.steps:
            if isinstance(step, Redirect):
                if not re.fullmatch(r"[<>]\([\s\S]*\)", step.target.raw):  # the commands in it are steps themselves
                    self.found.redirects.append(step)
            else:
                self.found.exports += [name for name, _ in step.sets if (name, step.words[0].text) != ("IFS", "read")]
                self.found.passed += step.sets
                before = self.exported
                self.exported = [*before, *step.sets]
                self.command(step)
                self.exported = before

    def script(self, text: str, *, bash: bool, looped: bool = False) -> None:
        """Read a shell line that is inside a word; `looped` says if this shell may run it more than once."""
        if self.depth >= DEPTH:
            raise Unclear("it is nested too deeply")
        inside = _Unwrapping(self.found, self.exported, bash=bash, depth=self.depth + 1, looped=looped)
        inside.line(shell.read(text, bash=bash), text)

    def inner(self, words: tuple[Word, ...] | list[Word], looped: bool = False) -> None:
        """Read a command that is the end of another command's arguments."""
        if self.depth >= DEPTH:
            raise Unclear("it is nested too deeply")
        self.depth += 1
        self.command(Simple(tuple(words), (), looped))
        self.depth -= 1

    def command(self, simple: Simple) -> None:
        words, self.chain = simple.words, simple.chain
        name = words[0].text
        if name is None or words[0].many or words[0].home or not name:
            raise Unclear(f"only a run could tell which command '{shortened(words[0].raw)}' is")
        if "=" in name or name in shell.RESERVED:  # after `time` it means the same as alone, after `env` it is set
            raise Unclear(f"'{shortened(words[0].raw)}' is not the name of a command")
        folder, slash, base = name.rpartition("/")
        if slash and base in BUILTINS:
            return self._plain(words, simple)
        if slash and folder not in FOLDERS:
            self._plain(words, simple)
        base = {".": "source", "[": "test", "toybox": "busybox"}.get(base, base)
        if base in REFUSED:
            raise Unclear(f"`{base}` {REFUSED[base]}")
        if base in DECLARING and not simple.declares:
            raise Unclear(f"`{base}` is written in a way that hides what it sets")
        if (base == "wait" and _has(words, "p")) or (base == "jobs" and _has(words, "x")):
            raise Unclear(f"`{base}` is given an option that evaluates or runs more")
        if base in SHELLS or base in OTHER_SHELLS:
            self._shell(base, words)
        elif base in options.WRAPPERS:
            rest = options.skipped(words, options.WRAPPERS[base])
            self._wrapper(base, words, rest, simple)
        elif base in given.SETTERS or base == "printf":
            self._setter(base, words)
        else:
            getattr(self, f"_{base}", self._plain)(words, simple) if base in OWN else self._plain(words, simple)
        return None

    def _add(self, words: tuple[Word, ...], *, wraps: bool = False) -> None:
        if (words[0].text or "").rpartition("/")[2] in options.OUTPUTS:
            self.found.redirects += [Redirect(">", word) for word in options.outputs(words)]
        files = given.files(words)
        folders = self.found.folders
        here = len(folders) if self.chain and folders and folders[-1][1] == self.chain else 0
        self.found.redirects += [replace(one, after=here) for one in files.redirects]
        self.found.folders += [(folder, 0) for folder in files.folders]
        self.found.commands.append(Command(words, wraps, () if wraps else options.sharp(words)))

    def _plain(self, words: tuple[Word, ...], simple: Simple) -> None:
        self._add(words)

    def _wrapper(self, base: str, words: tuple[Word, ...], rest: tuple[Word, ...], simple: Simple) -> None:
        """`timeout 5 make`: the inner command must be allowed, and the wrapper must not be denied."""
        if base == "env":
            while rest and re.match(r"[^=]+=", rest[0].raw) and (rest[0].text is None or "=" in rest[0].text):
                set_here, _, value = (rest[0].text or rest[0].raw).partition("=")
                self.found.exports.append(set_here.strip("\"'"))
                self.exported.append((set_here, Word(value if rest[0].known else None)))
                rest = rest[1:]
        if base == "command" and any(word.text in ("-v", "-V") for word in words[1 : len(words) - len(rest)]):
            self._add(words)
            return
        if base == "xargs":
            rest = self._filled(words[1 : len(words) - len(rest)], rest)
        if not rest:
            if base != "exec":
                self._add(words)
            return
        self._add(words, wraps=True)
        self.inner(rest, simple.looped)

    @staticmethod
    def _filled(own: tuple[Word, ...], rest: tuple[Word, ...]) -> tuple[Word, ...]:
        """What `xargs` runs: words from its input follow its own, or replace the mark of -I."""
        if not rest:
            return (Word("echo", raw="echo"), ANYTHING)
        arguments = given.read((Word("xargs", raw="xargs"), *own), given.XARGS)
        marks = [one for one in arguments if one.name in ("I", "i", "replace")]
        if not marks:
            return (*rest, ANYTHING)
        if any(one.name in ("L", "l", "n", "max-lines", "max-args") for one in arguments):
            raise Unclear("`xargs` is given both -I and -L or -n, of which the last one counts")
        last = marks[-1]
        mark = "{}" if last.value is None and last.name != "I" else (last.value or ANYTHING).text
        if mark is None:
            raise Unclear("`xargs -I` is given what only a run could tell")
        return tuple(_replaced(word, mark) if mark in (word.text or "") else word for word in rest)

    def _shell(self, base: str, words: tuple[Word, ...]) -> None:
        """`sh -c LINE` is that line; a script is a command as written; a shell alone would read anything."""
        at = 1
        while at < len(words) and (words[at].text or "").startswith(("-", "+")):
            option = words[at].text or ""
            if not re.fullmatch(r"[-+][euxfC]*(o|c)?|--(norc|noprofile|posix)", option) or option == "-":
                raise Unclear(f"`{base} {shortened(option)}` reads what only a run could tell")
            if option.endswith("c") and not option.startswith("--"):
                script = words[at + 1] if at + 1 < len(words) else ANYTHING
                if not script.known or base in OTHER_SHELLS or script.text is None:
                    raise Unclear(f"`{base} -c` is given a line that cannot be read")
                self._add(words, wraps=True)
                self.script(script.text, bash=base == "bash")
                return
            if option.endswith("o") and not option.startswith("--"):
                at += 1
                if at == len(words) or words[at].text not in options.SET_NAMES:
                    raise Unclear(f"`{base} {shortened(option)}` is given an option that no rule can judge")
            at += 1
        if at >= len(words) or not words[at].known or FED.fullmatch(words[at].text or ""):
            raise Unclear(f"`{base}` reads its commands from its input")
        self._add(words)

    def _setter(self, base: str, words: tuple[Word, ...]) -> None:
        """A name with a subscript would be evaluated, so each must be plain."""
        if base != "printf":
            targets = given.names_set(words, base)
        elif len(words) > 1 and words[1].may_be_option and (words[1].text or "-v").startswith("-v"):
            targets = [words[2] if len(words) > 2 and words[1].text == "-v" else ANYTHING]
        else:
            targets = []
        for word in targets:
            if word.text is None or not NAME.fullmatch(word.text) or EVALUATED.fullmatch(word.text):
                raise Unclear(f"`{base}` in it sets what only a run could tell")
            self.found.sets.append(word.text)
        self._add(words)

    # Commands that are read in their own way, by name: OWN

    def _eval(self, words: tuple[Word, ...], simple: Simple) -> None:
        if not all(word.known for word in words):
            raise Unclear("`eval` is given what only a run could tell")
        self._add(words, wraps=True)
        looped = simple.looped or self.looped
        self.script(" ".join(word.text or "" for word in words[1:]), bash=self.bash, looped=looped)

    def _trap(self, words: tuple[Word, ...], simple: Simple) -> None:
        if not all(word.known for word in words):
            raise Unclear("`trap` is given what only a run could tell")
        self._add(words, wraps=True)
        if len(words) > 1 and (words[1].text or "").startswith("-") and words[1].text not in ("-", "-p", "-l"):
            raise Unclear("`trap` is given what cannot be read")
        if len(words) > 2 and words[1].text not in ("-", "-p", "-l", ""):
            self.script(words[1].text or "", bash=self.bash, looped=True)

    def _source(self, words: tuple[Word, ...], simple: Simple) -> None:
        if len(words) < 2 or not words[1].known or FED.fullmatch(words[1].text or ""):
            raise Unclear(f"`{words[0].text}` reads what only a run could tell")
        self._add(words)

    def _set(self, words: tuple[Word, ...], simple: Simple) -> None:
        text = " ".join(word.text if word.text is not None else "?" for word in words[1:])
        if not re.fullmatch(r"(([-+][euxfCv]*(o (pipefail|errexit|nounset|xtrace|noglob))?) ?)*(-- .*)?", text):
            raise Unclear("`set` is given an option that no rule can judge")
        self._add(words)

    def _test(self, words: tuple[Word, ...], simple: Simple) -> None:
        """A word that only a run can tell must not be able to be the operator `-v`, which evaluates the next one."""
        rest = list(words[1:])
        while len(rest) > 1 and rest[0].text == "!":
            del rest[0]
        texts = [word.text for word in rest]
        plain = (
            None not in texts
            or len(rest) < 2
            or (len(rest) == 2 and UNARY.fullmatch(texts[0] or ""))
            or (len(rest) == 3 and texts[1] in BINARY)
        )
        if any(word.many for word in words) or {"-v", "-R"} & set(texts) or not plain:
            raise Unclear("its `test` may evaluate what it is given; write each test of its own as `[ A = B ]`")
        self._add(words)

    def _cd(self, words: tuple[Word, ...], simple: Simple) -> None:
        rest = [word for word in words[1:] if word.text not in ("-P", "-L", "--")]
        if len(rest) != 1 or rest[0].text is None or rest[0].text.startswith("-"):
            raise Unclear(f"`{words[0].text}` goes where only a run could tell")
        if (simple.looped or self.looped) and ".." in rest[0].text:
            raise Unclear(f"`{words[0].text}` goes up more than once")
        self.found.folders.append((rest[0], simple.chain))
        self._add(words)

    def _popd(self, words: tuple[Word, ...], simple: Simple) -> None:
        if len(words) > 1:
            raise Unclear("`popd` goes where only a run could tell")
        self._add(words)

    def _find(self, words: tuple[Word, ...], simple: Simple) -> None:
        """`-exec` runs a command, `-delete` removes, `-fprint` writes; an expanded word could be any of these."""
        if any(word.may_be_option and word.text is None for word in words[1:]):
            raise Unclear("`find` is given what only a run could tell")
        self._add(words)
        texts = [word.text for word in words]
        for number, text in enumerate(texts):
            if text in ("-exec", "-execdir", "-ok", "-okdir"):
                fills = [at for at in range(number + 2, len(texts)) if texts[at - 1 : at + 1] == ["{}", "+"]]
                stops = sorted([*fills[:1], *[at for at in range(number, len(texts)) if texts[at] == ";"][:1]])
                if not stops or stops[0] == number + 1:
                    raise Unclear(f"`find {text}` has no end")
                many = stops[0] in fills
                if many and text in ("-ok", "-okdir"):
                    raise Unclear(f"`find {text}` ends in a way that not every find knows")
                run = words[number + 1 : stops[0]]
                filled = [_replaced(word, "{}", many=many) if "{}" in (word.text or "") else word for word in run]
                self.inner(filled, True)
            elif text == "-delete":
                self.inner([Word("rm", raw="rm"), Word(None, raw="{}")])
            elif text in ("-fprint", "-fprint0", "-fls", "-fprintf"):
                if number + 1 >= len(words):
                    raise Unclear(f"`find {text}` names no file")
                self.found.redirects.append(Redirect(">", words[number + 1]))

    def _git(self, words: tuple[Word, ...], simple: Simple) -> None:
        """Drop options before the verb, so that a rule for `git push` also covers `git --no-pager push`."""
        at = 1
        while at < len(words) and (words[at].text or "").startswith("-"):
            if words[at].text == "-C" and at + 1 < len(words):
                self.found.folders.append((words[at + 1], 0))
                at += 2
            elif words[at].text in ("--no-pager", "--no-optional-locks", "--literal-pathspecs", "-P"):
                at += 1
            else:
                break
        self._add((words[0], *words[at:]))

    def _make(self, words: tuple[Word, ...], simple: Simple) -> None:
        """Its -C folder counts as one that the line changes into; exported variables reach its recipes too."""
        kept = [words[0]]
        rest = list(words[1:])
        while rest:
            word = rest.pop(0)
            found = re.fullmatch(
                r"(-(?:[bBdikmnpqrRsStvwj]|\d)*)C(.*)|--di[a-z]*(?:=(.*))?", word.text or "", re.DOTALL
            )
            if found is None:
                kept.append(word)
                continue
            folder = found[2] or found[3]
            if not folder and not rest:
                raise Unclear(f"`{words[0].text}` goes where only a run could tell")
            self.found.folders.append((Word(folder, raw=folder) if folder else rest.pop(0), 0))
            if found[1] and found[1] != "-":
                kept.append(Word(found[1], raw=found[1]))
        if words[0].text != "ninja":
            self.found.makes[len(self.found.commands)] = self.exported
        self._add(tuple(kept))

    def _dd(self, words: tuple[Word, ...], simple: Simple) -> None:
        for word in words[1:]:
            if word.text is None or word.text.startswith("of="):
                text = None if word.text is None else word.text.removeprefix("of=")
                home = (text or "").startswith("~")  # bash replaces it as in an assignment
                self.found.redirects.append(Redirect(">", replace(word, text=text, home=home)))
        self._add(words)

    _pushd = _cd
    _gmake = _make
    _ninja = _make

    def _busybox(self, words: tuple[Word, ...], simple: Simple) -> None:
        self._add(words, wraps=len(words) > 1)
        if len(words) > 1:
            self.inner(words[1:], simple.looped)

    def _watch(self, words: tuple[Word, ...], simple: Simple) -> None:
        rest = options.skipped(words, options.Known(flags=names("-t -d -b -e -g -c -x"), valued=names("-n")))
        if not rest or not all(word.known for word in rest):
            raise Unclear("`watch` is given what only a run could tell")
        self._add(words, wraps=True)
        self.script(" ".join(word.text or "" for word in rest), bash=False)


OWN = names("eval trap source set test cd popd pushd find git make gmake ninja busybox watch dd")

"""Arguments as a program's own getopt reads them: its options with their values, and the files that they name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from tmuxjobs.policy.shell import RUNS, Redirect
from tmuxjobs.policy.tree import Unclear, names, shortened
from tmuxjobs.policy.words import Word


@dataclass(frozen=True, slots=True)
class Grammar:
    """The options of a program; letters, and long ones whole. Those not listed take no value."""

    valued: str = ""
    """Options whose value is the rest of the word, or the next one."""
    optional: str = ""
    """Options whose value can only be the rest of the word."""
    long: frozenset[str] = frozenset()
    """Long options whose value is behind a `=`, or the next word."""
    flags: frozenset[str] = frozenset()
    """Other long options that can be shortened."""


@dataclass(frozen=True, slots=True)
class Given:
    """One option with its value, or, without a name, an operand."""

    name: str
    word: Word
    """The word in which it stands."""
    value: Word | None = None


SED = Grammar(
    "efl",
    "i",
    names("expression file line-length"),
    names(
        "in-place null-data zero-terminated quiet silent regexp-extended binary posix debug sandbox separate unbuffered"
    ),
)
TAR = Grammar(
    "bCfFgHIKLNTVX",
    "",
    names(
        "add-file after-date blocking-factor checkpoint-action directory exclude exclude-from exclude-ignore "
        "format file exclude-ignore-recursive exclude-tag exclude-tag-all exclude-tag-under files-from group "
        "group-map hole-detection index-file info-script label level listed-incremental mode mtime "
        "new-volume-script newer newer-mtime owner no-quote-chars owner-map pax-option quote-chars quoting-style "
        "record-size rmt-command rsh-command sort sparse-version starting-file strip-components suffix tape-length "
        "to-command transform use-compress-program volno-file warning xattrs-exclude xattrs-include xform "
        "set-mtime-command set-mtime-format"
    ),
    names(
        "append catenate concatenate create delete extract get update one-top-level verbatim-files-from checkpoint "
        "newer-than exclude-vcs exclude-vcs-ignores exclude-backups exclude-caches list"
    ),
)
TEE = Grammar()
XARGS = Grammar(
    "nPLIdsEa",
    "eil",
    names("max-args max-procs delimiter arg-file max-chars"),
    names("max-lines replace eof"),
)
PYTEST = Grammar(
    "kmrncpoW",
    "",
    names(
        "junitxml junit-xml log-file basetemp html report-log json-report-file resultlog result-log benchmark-json "
        "cov-report alluredir csv md ctrf"
    ),
    names("co cov log debug"),
)

SETTERS = {
    "read": ("ers", "ptnNdui"),
    "mapfile": ("t", "dnOsuc"),
    "readarray": ("t", "dnOsuc"),
    "getopts": ("", ""),
}
"""{builtin that sets the variables it names: its options without a value and with one}."""


def read(words: tuple[Word, ...], grammar: Grammar, *, first_bundled: bool = False) -> list[Given]:
    """Its arguments; raises Unclear where a value looks like an option, for which another version may take it."""
    found: list[Given] = []
    rest = list(words[1:])
    ended = False

    def next_word(word: Word) -> Word | None:
        value = rest.pop(0) if rest else None
        if value is not None and (value.text or "").startswith("-") and value.text != "-":
            both = shortened(f"{words[0].raw} {word.raw} {value.raw}")
            raise Unclear(f"`{both}` cannot be read with certainty; write the value behind a `=`, or in the same word")
        return value

    def letters(word: Word, text: str, *, bundled: bool) -> None:
        while text:
            letter, text = text[0], text[1:]
            value = None
            if letter in grammar.valued and (bundled or not text):
                value = next_word(word)
            elif letter in grammar.valued + grammar.optional and text:
                value, text = replace(word, text=text, raw=text), ""
            found.append(Given(letter, word, value))

    if first_bundled and rest and not (rest[0].text or "").startswith("-"):
        word = rest.pop(0)
        if word.text is None:
            raise Unclear(f"`{words[0].text}` is given what only a run could tell")
        letters(word, word.text, bundled=True)
    while rest:
        word = rest.pop(0)
        text = word.text or ""
        if text == "--" and not ended:
            ended = True
        elif ended or len(text) < 2 or text[0] != "-":
            found.append(Given("", word, word))
        elif text.startswith("--"):
            option, equals, after = text[2:].partition("=")
            name = _whole(option, grammar)
            behind = replace(word, text=after, raw=after) if equals else None
            found.append(Given(name, word, next_word(word) if name in grammar.long and not equals else behind))
        else:
            letters(word, text[1:], bundled=False)
    return found


def names_set(words: tuple[Word, ...], setter: str) -> list[Word]:
    """The names that `read` and the like are given, behind their options; raises Unclear."""
    flags, valued = SETTERS[setter]
    found: list[Word] = []
    at = 1
    while at < len(words):
        text = words[at].text
        if text is None and words[at].may_be_option:
            raise Unclear(f"`{setter}` in it sets what only a run could tell")
        if text is None or not text.startswith("-") or text in ("-", "--"):
            break
        letters = text[1:].lstrip(flags)
        if letters[:1] == "a" and setter == "read":
            found.append(Word(letters[1:]) if letters[1:] else words[at + 1] if at + 1 < len(words) else Word(None))
        elif letters and letters[0] not in valued:
            raise Unclear(f"`{setter} -{letters[0]}` may run or set what only a run could tell")
        at += 2 if len(letters) == 1 else 1
    rest = words[at + 1 if at < len(words) and words[at].text == "--" else at :]
    return [*found, *(rest[1:2] if setter == "getopts" else rest)]


def _whole(option: str, grammar: Grammar) -> str:
    """The option that a shortened one means; where it could be several the program refuses it."""
    if option in grammar.long | grammar.flags:
        return option
    return next((one for one in (*sorted(grammar.long), *sorted(grammar.flags)) if one.startswith(option)), option)


def below(word: Word) -> bool:
    """Whether a pattern matches only what is below the folder in which it is expanded, links aside."""
    plain = re.fullmatch(r"[\w*?\[\]-][\w./*?\[\]-]*", word.raw) is not None
    return word.many and plain and ".." not in word.raw and not re.search(r"/\.[*?\[]", word.raw)


@dataclass(slots=True)
class Files:
    """What a program would do to the paths among its arguments."""

    redirects: list[Redirect] = field(default_factory=list)
    folders: list[Word] = field(default_factory=list)
    """Folders that it changes into."""

    def writes(self, word: Word | None) -> None:
        if word is not None:
            self.redirects.append(Redirect(">", word))

    def runs(self, word: Word | None) -> None:
        if word is not None and not below(word):
            self.redirects.append(Redirect(RUNS, word))


def of_tee(words: tuple[Word, ...]) -> Files:
    files = Files()
    for one in read(words, TEE):
        files.writes(one.value if one.name == "" else None)
    return files


def of_tar(words: tuple[Word, ...]) -> Files:
    """The archive that it writes and the like; the folder of its `-C` counts as one that the line changes into."""
    files = Files()
    arguments = read(words, TAR, first_bundled=True)
    given = {one.name for one in arguments}
    makes = given & names("c r u A create append update catenate concatenate delete")
    for one in arguments:
        if one.name in ("C", "directory"):
            files.folders += [one.value] if one.value is not None else []
        elif one.name in names("g listed-incremental index-file volno-file one-top-level") or (
            one.name in ("f", "file") and makes and (one.value is None or one.value.text != "-")
        ):
            files.writes(one.value)
        elif one.name in ("T", "files-from") and not makes and "verbatim-files-from" not in given:
            raise Unclear("`tar -T` may read options from a file; write --verbatim-files-from before it")
        elif one.name == "" and (one.word.text or "").startswith("-"):
            raise Unclear(f"`tar {shortened(one.word.raw)}` cannot be read with certainty")
    return files


def sed_scripts(arguments: list[Given]) -> list[Given]:
    """Each `-e`, else the first operand."""
    scripts = [one for one in arguments if one.name in ("e", "expression")]
    named = any(one.name in ("f", "file") for one in arguments)
    return scripts or [one for one in arguments if not one.name][: 0 if named else 1]


def of_sed(words: tuple[Word, ...]) -> Files:
    """With `-i` it writes the files that it reads."""
    files = Files()
    arguments = read(words, SED)
    scripts = sed_scripts(arguments)
    if any(one.name in ("i", "in-place") for one in arguments):
        for one in arguments:
            if not one.name and one not in scripts and not below(one.word):
                files.writes(one.value)
    return files


def of_pytest(words: tuple[Word, ...]) -> Files:
    """It runs its operands, and the reports that it writes are files."""
    files = Files()
    for one in read(words, PYTEST):
        value = one.value
        if value is None:
            continue
        if not one.name:
            path = None if value.text is None else value.text.partition("::")[0]
            files.runs(replace(value, text=path))
        elif one.name == "cov-report":
            _, colon, path = (value.text or "").partition(":")
            files.writes(replace(value, text=path) if colon else value if value.text is None else None)
        elif one.name in PYTEST.long | {"debug"}:
            files.writes(value)
    return files


CMAKE_WRITES = names("-B --graphviz --trace-redirect --profiling-output")
CMAKE_RUNS = names("-C -S -H --build --install --toolchain --open")
CMAKE_OTHERS = names("-D -U -G -A -T --prefix --install-prefix --config --target --component --preset --parallel")
"""Options of cmake that take a value, by what it is."""


def of_cmake(words: tuple[Word, ...]) -> Files:
    """It runs what is in its folders and in the scripts of `-C`, and writes to the folder of `-B`."""
    files = Files()
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        text = word.text or ""
        found = re.fullmatch(r"(-[CSBHDUGAT])([\s\S]*)|(--[a-z-]+)(?:=([\s\S]*))?", text)
        if text == "--":
            break
        option = found[1] or found[3] if found is not None else ""
        if found is not None and option in CMAKE_WRITES | CMAKE_RUNS | CMAKE_OTHERS:
            behind = found[2] or found[4]
            value = replace(word, text=behind, raw=behind) if behind else (rest.pop(0) if rest else None)
            if option in CMAKE_WRITES:
                files.writes(value)
            elif option in CMAKE_RUNS:
                files.runs(value)
        elif not text.startswith("-"):
            files.runs(word)
    return files


OF = {"tee": of_tee, "tar": of_tar, "sed": of_sed, "pytest": of_pytest, "py.test": of_pytest, "cmake": of_cmake}
"""Programs that write, or run code from, paths among their arguments."""


def files(words: tuple[Word, ...]) -> Files:
    """What it would do to the paths that it is given; raises Unclear."""
    name = (words[0].text or "").rpartition("/")[2]
    if re.fullmatch(r"python[\d.]*", name) and len(words) > 2 and words[1].text == "-m" and words[2].text in OF:
        return OF[words[2].text](words[2:])
    return OF[name](words) if name in OF else Files()

"""Arguments as a program's own getopt reads them: its options with their values and operands."""

from __future__ import annotations

from dataclasses import dataclass, replace

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


XARGS = Grammar(
    "nPLIdsEa",
    "eil",
    names("max-args max-procs delimiter arg-file max-chars"),
    names("max-lines replace eof"),
)


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


def _whole(option: str, grammar: Grammar) -> str:
    """The option that a shortened one means; where it could be several the program refuses it."""
    if option in grammar.long | grammar.flags:
        return option
    return next((one for one in (*sorted(grammar.long), *sorted(grammar.flags)) if one.startswith(option)), option)

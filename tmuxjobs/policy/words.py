"""The words of a shell line: what each expands to, and its substitutions. Knows no commands."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from tmuxjobs.policy.tree import (
    BY_THE_SHELL,
    DOLLAR,
    NAME,
    NUMBER,
    NUMERIC,
    WORDS,
    Node,
    Source,
    Unclear,
    names,
    shortened,
)

EXPANDERS = names("${ } - :- = := + :+ ? :? # ## % %% / // /# /% ^ ^^ , ,, :")
ARITHMETIC = names("+ - * / % ** << >> < > <= >= == != & ^ | && || ! ~ ++ -- = += -= *= /= %= ? : , ( ) (( )) $(( ;")
ONE_NUMBER = ("$#", "$?", "$$", "$!")
ESCAPES = {"a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command; `text` is None if only a run can tell it."""

    text: str | None
    many: bool = False
    """Whether it may expand to no word, or to several."""
    home: bool = False
    """Whether it begins with a `~` that the shell replaces."""
    raw: str = ""
    """The word as written."""

    @property
    def known(self) -> bool:
        return self.text is not None and not self.home

    @property
    def may_be_option(self) -> bool:
        """Whether it may be an option; the names that a pattern matches do not count, as everywhere in a shell."""
        if self.raw.strip('"') in ONE_NUMBER:
            return False
        first = self.text if self.text is not None else self.raw.lstrip("\"'")
        return first.startswith("-") or (self.text is None and first[:1] in ("", "$", "`", "{", "\\"))


class Words:
    """Reads words; passes the commands of a substitution to `statements`, adds variables that a word sets to `sets`."""

    def __init__(
        self,
        source: Source,
        sets: list[tuple[str, Word]],
        statements: Callable[[Sequence[Node]], None],
        environment: Collection[str] | None,
    ) -> None:
        self._source = source
        self._statements = statements
        self._quoted = False
        self._environment = environment
        self.sets = sets
        self.numbers: set[str] = set()
        """Variables that have certainly been set to a number by now, in this shell."""

    def word(self, node: Node, *, quoted: bool = False) -> Word:
        return replace(self._word(node, quoted=quoted), raw=self._source.text(node))

    @contextlib.contextmanager
    def perhaps(self) -> Iterator[None]:
        """What is set within it may not be set behind it."""
        before = set(self.numbers)
        yield
        self.numbers = before

    @functools.cached_property
    def _others(self) -> set[str]:
        return self._source.other_names()

    def _is_numeric(self, name: str) -> bool:
        """Whether that variable holds a number at this point, or is not set; a shell sets no small names by itself."""
        environment = self._environment
        if not NAME.fullmatch(name) or BY_THE_SHELL.fullmatch(name) or name in self._others:
            return False
        unset = environment is not None and name == name.lower() and name not in environment
        return name in self.numbers or unset

    def is_number(self, node: Node) -> bool:
        """Whether it always expands to one number."""
        text = self._source.text(node)
        name = text.strip("${}")
        return text in ONE_NUMBER or (name in self.numbers and self._is_numeric(name))

    def _word(self, node: Node, *, quoted: bool) -> Word:
        text = self._source.text(node)
        match node.type:
            case "word" | "number":
                return _unquoted(text)
            case "raw_string" | "ansi_c_string" if self._quoted:
                raise Unclear(f"{shortened(text)} in it stands between double quotes, where it quotes nothing")
            case "raw_string":
                return Word(text[1:-1])
            case "ansi_c_string":
                return Word(_decoded(text[2:-1]))
            case "string":
                return self._string(node)
            case "translated_string":
                self._string(node.children[-1])
                return Word(None)
            case "concatenation":
                return self._joined(node)
            case "simple_expansion":
                return Word(None, many=(not quoted and text not in ("$#", "$?", "$$")) or text == "$@")
            case "expansion":
                self._expansion(node)
                return Word(None, many=not quoted or "[@]" in text or text.startswith("${@"))
            case "command_substitution":
                self._substitution(node)
                return Word(None, many=not quoted)
            case "process_substitution":
                self._substitution(node)
                return Word(None)
            case "arithmetic_expansion":
                for child in node.children:
                    self.arithmetic(child)
                return Word(None)
            case "brace_expression":
                return Word(None, many=True)
            case _:
                raise Unclear(f"its word '{shortened(text)}' is of a kind that no rule can judge")

    def _substitution(self, node: Node) -> None:
        first = self._source.text(node.children[0])
        if first not in ("$(", "<(", ">(", "`"):
            raise Unclear(f"'{shortened(first)}' in it cannot be read with certainty")
        if first == "`" and b"\\" in self._source.bytes[node.start_byte : node.end_byte]:
            raise Unclear("backquotes in it hold a backslash")
        if self._source.text(node).startswith("$(("):  # in a here-document the tree has a subshell there
            raise Unclear("`$((` in it may be arithmetic or a command; write `$( (` for a command")
        inside = node.children[1:-1]
        with self._quoting(False), self.perhaps():
            self._statements(inside)

    @contextlib.contextmanager
    def _quoting(self, quoted: bool) -> Iterator[None]:
        """Say if the parts are in double quotes or a here-document, where a single quote is an ordinary character."""
        before, self._quoted = self._quoted, quoted
        yield
        self._quoted = before

    def _string(self, node: Node) -> Word:
        with self._quoting(True):
            return self._in_string(node)

    def _in_string(self, node: Node) -> Word:
        literal: list[str] | None = []
        many = False
        at = node.start_byte
        for child in node.children:
            if literal is not None:
                literal.append(self._source.bytes[at : child.start_byte].decode())  # leading blanks are not a node
            at = child.end_byte
            if child.type == "string_content":
                if literal is not None:
                    literal.append(re.sub(r'\\([$`"\\\n])', lambda one: one[1].strip("\n"), self._source.text(child)))
            elif child.type == "$":
                if literal is not None:
                    literal.append("$")
            elif child.is_named:
                word = self.word(child, quoted=True)
                literal, many = None, many or word.many
            elif self._source.text(child).strip() == '"':
                if literal is not None:
                    literal.append(self._source.text(child).replace('"', ""))
            else:
                raise Unclear(f"its string '{shortened(self._source.text(node))}' cannot be read with certainty")
        return Word(None if literal is None else "".join(literal), many=many)

    def _joined(self, node: Node) -> Word:
        parts = [Word("$") if child.type == "$" else self.word(child) for child in node.children]
        bare = [self._source.text(child) for child in node.children if child.type == "word"]
        braces = "{" in "".join(bare) and re.search(r",|\.\.", self._source.text(node)) is not None
        home = parts[0].home
        text = None if any(part.text is None for part in parts) else "".join(part.text or "" for part in parts)
        return Word(None if braces else text, many=braces or any(part.many for part in parts), home=home)

    def element(self, node: Node, *, keyed: bool) -> None:
        """One of `(...)` as an array's value; the `[...]=` before it is arithmetic unless its keys are texts."""
        text = self._source.text(node)
        found = re.match(r"\[(\w+)\]\+?=", text)
        plain = found is not None and (keyed or NUMBER.fullmatch(found[1]) or self._is_numeric(found[1]))
        if text.startswith("[") and re.search(r"\]\+?=", text) and not plain:
            raise Unclear(f"'{shortened(text)}' in an array of it would evaluate a value that only a run could tell")
        self.word(node)

    def subscript(self, node: Node) -> None:
        for child in node.children[2:-1]:
            if self._source.text(child) not in ("@", "*"):
                self.arithmetic(child)

    def _expansion(self, node: Node) -> None:
        """Read `${...}`; raises Unclear if bash would evaluate a value or look up a name by it."""
        operators = [child.type for child in node.children if not child.is_named]
        if not set(operators) <= EXPANDERS:
            raise Unclear(f"'{shortened(self._source.text(node))}' in it is evaluated in a way that no rule can judge")
        slices = ":" in operators
        if "=" in operators or ":=" in operators:
            self.sets.append((self._source.text(node.children[1]), Word(None)))
        for number, child in enumerate(node.children):
            if not child.is_named or child.type in ("variable_name", "special_variable_name"):
                if slices and number > 1 and child.is_named:
                    self.arithmetic(child)
            elif child.type == "subscript":
                self.subscript(child)
            elif slices:
                self.arithmetic(child)
            elif child.type in WORDS:
                self.word(child, quoted=True)
            elif child.type != "regex":
                raise Unclear(f"'{shortened(self._source.text(node))}' in it cannot be read with certainty")

    def arithmetic(self, node: Node) -> None:
        """Allow numbers, and variables that surely hold one by now: a value may hold a command to evaluate."""
        text = self._source.text(node)
        if node.type in ("number", "word", "variable_name"):
            if not NUMBER.fullmatch(text) and not self._is_numeric(text):
                raise Unclear(
                    f"its arithmetic with '{shortened(text)}' would evaluate a value that only a run could tell"
                )
        elif node.type in ("simple_expansion", "expansion"):
            if not self.is_number(node) and not self._is_numeric(text.strip("${}")):
                raise Unclear(
                    f"its arithmetic with '{shortened(text)}' would evaluate a value that only a run could tell"
                )
        elif node.is_named:
            if node.type not in NUMERIC:
                raise Unclear(f"its arithmetic with '{shortened(text)}' cannot be judged")
            if node.type == "variable_assignment" and node.children[0].type != "variable_name":
                raise Unclear("its arithmetic sets an element of an array")
            sets = node.type == "variable_assignment" and node.children[1].type == "="
            for child in node.children[1:] if sets else node.children:
                self.arithmetic(child)
            if node.type == "variable_assignment":
                self.sets.append((self._source.text(node.children[0]), Word(None)))
        elif text not in ARITHMETIC:
            raise Unclear(f"'{shortened(text)}' in its arithmetic cannot be judged")

    def heredoc_body(self, node: Node) -> None:
        """Read a body that is expanded: each substitution is a node, and the rest must not hold one."""
        at = node.start_byte
        plain = ""
        for child in node.children:
            plain += self._source.bytes[at : child.start_byte].decode()
            at = child.end_byte
            if child.type == "heredoc_content":
                plain += self._source.text(child)
            else:
                with self._quoting(True):
                    self.word(child)
                plain += "_"
        plain += self._source.bytes[at : node.end_byte].decode()
        if not re.fullmatch(rf"(?:[^\\$`]|\\[\s\S]|{DOLLAR})*", plain):
            raise Unclear("its here-document cannot be read with certainty")


def _unquoted(text: str) -> Word:
    """A bare word as the shell passes it on; only a run can tell what patterns and braces expand to."""
    bare = re.sub(r"\\.", "", text)
    plain = re.sub(r"\\(.)", r"\1", text)
    if bare.startswith("~") and text.startswith("~"):
        return Word(plain if re.match(r"~(/|$)", bare) and not re.search(r"[*?\[]", bare) else None, home=True)
    if re.search(r"[*?\[]", bare) and text != "[":
        return Word(None, many=True)
    if "{" in bare and re.search(r",|\.\.", bare):
        return Word(None, many=True)
    return Word(plain)


def _decoded(text: str) -> str | None:
    """The inside of `$'...'`; None for an escape that is not known."""
    known = True

    def one(found: re.Match[str]) -> str:
        nonlocal known
        body = found[1]
        if body[0] in "\\'\"?":
            return body
        if body[0] in "01234567":
            return chr(int(body, 8) & 0xFF)
        if body[0] in "xuU" and len(body) > 1:
            return chr(int(body[1:], 16))
        known = known and body in ESCAPES
        return ESCAPES.get(body, "")

    plain = re.sub(r"\\(x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{1,4}|[0-7]{1,3}|[\s\S])", one, text)
    return plain if known and plain.isascii() and "\0" not in plain else None

"""The syntax tree of a shell line, trusted only where it is plain.

Each leaf must have the shape that makes bash read it the same way, and between two leaves there may be only blanks,
where bash takes blanks too. All else is Unclear, and may not be run. The only module that knows the parser.
"""

from __future__ import annotations

import functools
import re
import time
import unicodedata
from collections.abc import Iterator

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

__all__ = ["Node"]


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


PARSE_S = 1.0
CHUNK = 1 << 16
MOST_CHARS = 20_000
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
NUMBER = re.compile(r"-?(0x[0-9a-fA-F]+|\d+)", re.ASCII)
VALID_NUMBER = re.compile(r"-?(0x[0-9a-fA-F]+|0[0-7]*|[1-9]\d*)", re.ASCII)
"""One that arithmetic takes without an error: `08` is none."""
DOLLAR = r"\$(?![({\[\w@*#?$!'\"-])"
SHAPES = {
    "word": re.compile(r"(?!#)(?:[\w@%+=:,./~^*?!\[\]{}#-]|\\[^\n\r])+"),
    "number": NUMBER,
    "string_content": re.compile(rf"(?:[^\\$`\"]|\\[\s\S]|{DOLLAR})*"),
    "raw_string": re.compile(r"'[^']*'"),
    "ansi_c_string": re.compile(r"\$'(?:[^'\\]|\\[\s\S])*'"),
    "variable_name": NAME,
    "special_variable_name": re.compile(r"[@*#?$!0-9_-]"),
    "file_descriptor": re.compile(r"\d+"),
    "test_operator": re.compile(r"-[a-zA-Z]{1,2}"),
    "regex": re.compile(r"(?:[^\s\\$`\"'<>()&|;{}]|\\[^\n\r]|\$(?=$|/))+"),
    "extglob_pattern": re.compile(r"[\w@%+=:,./^*?!\[\]-]+"),
    "heredoc_start": re.compile(r"\\?\w+|'\w+'|\"\w+\""),
}
"""The shape that the text of a leaf must have, or bash might see more in it than the tree does."""
ADJOINING = frozenset({"concatenation", "variable_assignment", "simple_expansion", "translated_string", "subscript"})
ON_ONE_LINE = frozenset(
    {"command", "file_redirect", "herestring_redirect", "declaration_command", "unset_command", "variable_assignments"}
)
JOINED = ADJOINING | names("string expansion heredoc_body heredoc_redirect command_name")
"""Nodes whose parts may follow each other without a blank."""
LISTS = names("program compound_statement subshell do_group else_clause command_substitution process_substitution")
"""Nodes whose parts are statements."""
WORDS = names(
    "word number string raw_string ansi_c_string translated_string concatenation simple_expansion expansion "
    "command_substitution arithmetic_expansion process_substitution brace_expression"
)
BASH_ONLY = names("[[ (( &> &>> |& <<< ;& ;;& function <( >(") | {"array", "subscript", "ansi_c_string"}
"""Nodes that another shell reads as something else, or not at all."""
BY_THE_SHELL = re.compile(
    r"_|REPLY|MAPFILE|OPTARG|PWD|OLDPWD|DIRSTACK|FUNCNAME|GROUPS|SHELLOPTS|HISTCMD|HOST.*|(BASH|COMP|COPROC|READLINE).*"
)
"""Variables that a shell may set to something other than numbers."""
NEVER_FAIL = names("$(( )) ( ) + - * < > <= >= == != & ^ | && || << >> ? : ! ~")
"""Arithmetic that no number makes an error, which would end the line before anything is set."""
EVALUATED = re.compile(r"S?RANDOM|SECONDS|HISTCMD|OPTIND|BASHPID|EPOCH(SECONDS|REALTIME)|LINENO|PIPESTATUS")
"""Variables whose new value bash may evaluate as arithmetic."""
ARRAYS = re.compile(r"PIPESTATUS|DIRSTACK|FUNCNAME|GROUPS|MAPFILE|(BASH|COMP|COPROC).*")
"""Variables that may be arrays from the start."""
NUMERIC = names(
    "number arithmetic_expansion binary_expression unary_expression postfix_expression parenthesized_expression "
    "ternary_expression variable_assignment"
)


class Unclear(Exception):
    """It cannot be known what a part of the line would run; the text says which."""


class Source:
    """A line with its tree."""

    def __init__(self, text: bytes, root: Node, *, bash: bool) -> None:
        self.bytes = text
        self.root = root
        self.bash = bash
        self._check(root)

    def text(self, node: Node) -> str:
        return self.bytes[node.start_byte : node.end_byte].decode()

    def _check(self, node: Node) -> None:
        if not self.bash and node.type in BASH_ONLY:
            raise Unclear("it is written for bash, and another shell would run it")
        if not node.children:
            return self._check_leaf(node)
        at = node.start_byte
        before: Node | None = None
        for child in node.children:
            gap = self.bytes[at : child.start_byte].decode()
            self._check_gap(node.type, gap)
            if before is not None and before.is_named and child.is_named and child.type != "comment":
                self._check_parts(node.type, before, gap, child)
            self._check(child)
            before = child
            at = max(at, child.end_byte)
        self._check_gap(node.type, self.bytes[at : node.end_byte].decode())
        return None

    def _check_parts(self, kind: str, before: Node, gap: str, after: Node) -> None:
        """Check what separates two parts: bash joins words without a blank, and statements need an end between them."""
        if not gap and kind not in JOINED and not after.type.endswith("_redirect"):
            raise Unclear("it is not clear where its words end")
        if kind in LISTS and "\n" not in gap and not (kind == "command_substitution" and after.type == "file_redirect"):
            raise Unclear("it is not clear where its commands end")

    def _check_leaf(self, node: Node) -> None:
        text = self.text(node)
        if node.is_missing:
            raise Unclear("something is missing in it")
        if node.type == "comment":
            before = self.bytes[: node.start_byte].decode()
            if before and (before[-1] not in " \t\n" or re.search(r"\\[ \t\n]*$", before)):
                raise Unclear("it is not clear where its comment begins")
        elif node.is_named and node.type not in ("string", "heredoc_body", "heredoc_content", "heredoc_end"):
            shape = SHAPES.get(node.type)
            if node.parent is not None and node.parent.type in ("simple_expansion", "expansion") and text.isdecimal():
                return
            if shape is None or not shape.fullmatch(text):
                raise Unclear(f"'{shortened(text)}' in it cannot be read with certainty")

    def _check_gap(self, kind: str, gap: str) -> None:
        if kind in ("heredoc_redirect", "heredoc_body", "string") or not gap:
            return
        plain = re.fullmatch(r"[ \t]+(\\\n[ \t]*)*", gap)
        if kind in ADJOINING or (kind in ON_ONE_LINE and not plain):
            raise Unclear("it is not clear where its words end")
        if not plain and not re.fullmatch(r"([ \t\n]|(?<=[ \t\n])\\\n)+", gap):
            raise Unclear("it is not clear where its words end")

    def other_names(self) -> set[str]:
        """Variables that the line may set to something other than a number, anywhere in it."""
        others: set[str] = set()
        for node in _all(self.root):
            if node.type == "variable_assignment":
                value = node.children[-1]
                plain = value.type != "number" or VALID_NUMBER.fullmatch(self.text(value))
                if node.children[0].type != "variable_name" or value.type not in NUMERIC or not plain:
                    others |= set(NAME.findall(self.text(node.children[0]))[:1])
            elif node.type == "for_statement":
                if not self.counts(node):
                    others.add(self.text(node.children[1]))
            elif node.type in ("command", "declaration_command", "unset_command"):
                # `read`, `printf -v` and the like set what they are given, however it is quoted.
                for child in node.children:
                    texts = list(self._literals(child))
                    others |= set(NAME.findall("\n".join([*texts, "".join(texts)])))
            elif node.type == "expansion" and any(child.type in ("=", ":=") for child in node.children):
                others |= set(NAME.findall(self.text(node.children[1]))[:1])
        return others

    @functools.cached_property
    def goes_unseen(self) -> bool:
        """Whether the folder may change where no `cd` stands: in a function, a trap, or a text that is evaluated."""
        text = re.sub(r"\\\n|[\\'\"]", "", self.bytes.decode())
        return any(node.type == "function_definition" for node in _all(self.root)) or (
            re.search(r"\b(trap|eval|source|command|builtin|pushd|popd)\b|(^|\s)\.\s", text) is not None
        )

    def counts(self, loop: Node) -> bool:
        """Whether that `for` goes over numbers, of which there is one at least."""
        words = [child for child in loop.children if child.type in WORDS]
        return bool(words) and all(VALID_NUMBER.fullmatch(self.text(word)) for word in words)

    def surely_sets(self, node: Node) -> bool:
        """Whether that assignment surely sets a number: arithmetic that fails leaves the value that there was."""
        value = node.children[-1]
        leaves = [one for one in _all(value) if not one.children]
        return node.children[1].type == "=" and all(
            NAME.fullmatch(self.text(one)) or VALID_NUMBER.fullmatch(self.text(one))
            if one.is_named else one.type in NEVER_FAIL for one in leaves
        )  # fmt: skip

    def may_be_array(self, name: str) -> bool:
        return self._arrays is None or name in self._arrays or ARRAYS.fullmatch(name) is not None

    @functools.cached_property
    def _arrays(self) -> set[str] | None:
        """Variables that the line may make arrays; None if that may be any."""
        found: set[str] = set()
        for node in _all(self.root):
            if node.type == "variable_assignment" and {node.children[0].type, node.children[-1].type} & {
                "subscript", "array"
            }:  # fmt: skip
                found |= set(NAME.findall(self.text(node.children[0]))[:1])
            elif node.type in ("declaration_command", "command"):
                words = [re.sub(r"\\\n|[\\'\"]", "", self.text(child)) for child in node.children]
                if {"mapfile", "readarray", "eval"} & set(words) or any(re.match(r"-\w*[aA]", one) for one in words):
                    return None
        return found

    def _literals(self, node: Node) -> Iterator[str]:
        if node.type == "ansi_c_string":
            raise Unclear("it sets what cannot be read with certainty")
        if not node.children:
            yield re.sub(r"\\\n|[\\'\"]", "", self.text(node))
        elif node.type in ("concatenation", "string", "translated_string", "command_name", "variable_assignment"):
            for child in node.children:
                yield from self._literals(child)


def _all(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _all(child)


@functools.cache
def _language() -> Language:
    return Language(tree_sitter_bash.language())


def parsed(line: str, *, bash: bool = True) -> Source:
    """The line as bash reads it, or as any POSIX shell does; raises Unclear."""
    if len(line) > MOST_CHARS:
        raise Unclear(f"it is longer than {MOST_CHARS:,} characters; put it into a file")
    for char in line:
        if char not in "\n\t" and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
            raise Unclear(f"it holds the hidden character U+{ord(char):04X}")
    if "$\\\n" in line:
        raise Unclear("a `$` in it goes on in the next line")
    text = line.encode()
    ends = time.monotonic() + PARSE_S
    try:
        # A new parser for each call, as several threads judge at once.
        root = (
            Parser(_language())
            .parse(lambda at, _: text[at : at + CHUNK], progress_callback=lambda _, __: time.monotonic() > ends)
            .root_node
        )
    except ValueError:
        raise Unclear(f"it could not be parsed within {PARSE_S} s") from None
    if root.has_error:
        raise Unclear("it is not a shell line that can be parsed")
    try:
        return Source(text, root, bash=bash)
    except RecursionError:
        raise Unclear("it is nested too deeply") from None


def shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."

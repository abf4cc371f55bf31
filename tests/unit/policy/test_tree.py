"""Nothing that the parser is not sure of, and no kind of node that is not read on purpose, lets a line through."""

import contextlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tree_sitter_bash
from hypothesis import given
from hypothesis import strategies as st
from tree_sitter import Language, Parser

from tmuxjobs.policy import shell, tree
from tmuxjobs.policy.commands import seen
from tmuxjobs.policy.tree import Unclear

PARSER = Parser(Language(tree_sitter_bash.language()))
ALLOWED = [
    line
    for group in tomllib.loads((Path(__file__).parent / "lines.toml").read_text())["group"]
    for line in group.get("allow", ())
]
PIECES = [
    *";&|()<>$`\"'\\{}[]!#~*?= \n\t0ax-", "$(", "${", "))", "((", "[[ ", " ]]", "<<E\n", "\nE\n", "if ", " then ",
    " fi", "case ", " in ", " esac", ";;", "do ", " done", "for ", "ls", "rm ", "$'", "<(", ":-", "function ", "é",
    "\r",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_line_with_a_parse_error_is_unclear(line: str) -> None:
    if PARSER.parse(line.encode()).root_node.has_error:
        with pytest.raises(Unclear):
            seen(line)


@given(st.text(max_size=40))
def test_any_text_is_read_or_unclear(line: str) -> None:
    with contextlib.suppress(Unclear):
        assert seen(line) is not None


class Renamed:
    """A node of the real tree, one of whose descendants has a kind that no grammar has today."""

    def __init__(self, node: Any, at: int) -> None:
        self._node = node
        self._at = at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    @property
    def type(self) -> str:
        return "novelty" if self._node.id == self._at else self._node.type

    @property
    def children(self) -> list[Any]:
        return [Renamed(child, self._at) for child in self._node.children]


def named(node: Any) -> Iterator[Any]:
    for child in node.children:
        if child.is_named:
            yield child
        yield from named(child)


@pytest.mark.parametrize("line", ALLOWED)
def test_each_node_of_an_unknown_kind_makes_the_line_unclear(line: str) -> None:
    text = line.encode()
    root = PARSER.parse(text).root_node
    shell.Reader(tree.Source(text, Renamed(root, -1), bash=True))  # type: ignore[arg-type]
    for node in named(root):
        with pytest.raises(Unclear):
            shell.Reader(tree.Source(text, Renamed(root, node.id), bash=True))  # type: ignore[arg-type]

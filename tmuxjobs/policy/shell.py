"""What a shell line would run: every simple command in it at any depth, its redirections and assignments."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from tmuxjobs.policy.tree import EVALUATED, VALID_NUMBER, WORDS, Node, Source, Unclear, names, parsed, shortened
from tmuxjobs.policy.words import Word, Words

CHAINS = itertools.count(1)
DEPTH = 40
"""How deep constructs may be nested."""
RESERVED = names("if then else elif fi case esac for select while until do done in function { } [[ ]] ! coproc")
CONTROL = names("; & && || | |& ( ) { } ! if then elif else fi while until do done for in case esac function")
CERTAIN = names("list compound_statement variable_assignment variable_assignments for_statement c_style_for_statement")
"""Statements that keep account themselves of which of their parts surely run."""
NUMERIC_TESTS = names("-eq -ne -lt -le -gt -ge")


RUNS = "runs "
"""The operator of a Redirect that is none, but a path from which a program runs code."""


@dataclass(frozen=True, slots=True)
class Simple:
    """One simple command, and the variables that are set only for it."""

    words: tuple[Word, ...]
    sets: tuple[tuple[str, Word], ...] = ()
    looped: bool = False
    """Whether it may run more than once."""
    chain: int = 0
    """Equal for commands of which each runs in the folder where the one before went, and only then; 0 if not known."""
    declares: bool = False
    """Whether it is `export` or the like, read as such: the variables it sets are in `sets` of the line."""


@dataclass(frozen=True, slots=True)
class Redirect:
    operator: str
    target: Word
    after: int = 0
    """How many changes of the folder there were before it, where it is surely where the last one leads; 0 if not."""


@dataclass(slots=True)
class Line:
    """All that a line would do, in the order of its text."""

    steps: list[Simple | Redirect] = field(default_factory=list)
    sets: list[tuple[str, Word]] = field(default_factory=list)
    """Variables that it sets for itself and, if they are exported, for what it runs."""


def read(source: str, *, bash: bool = True, environment: Collection[str] | None = None) -> Line:
    """What that line would run, read as bash or as any POSIX shell; raises Unclear.

    The environment's names are those of all variables that there are before it; None where nobody can tell.
    """
    return Reader(parsed(source, bash=bash), environment).line


class Reader:
    """Walks over one tree once; a kind of node that is not named here is Unclear."""

    def __init__(self, source: Source, environment: Collection[str] | None = None) -> None:
        self._source = source
        self.line = Line()
        self._words = Words(source, self.line.sets, self._statements, environment)
        self.depth = 0
        self.loops = 0
        self.chain = 0
        self._statements(source.root.children)

    def _statements(self, nodes: Sequence[Node]) -> None:
        """In order; one behind which a `&` stands is run by a shell of its own."""
        for node, after in zip(nodes, [*nodes[1:], None], strict=True):
            with self._words.perhaps() if after is not None and after.type == "&" else contextlib.nullcontext():
                self._statement(node)

    def _statement(self, node: Node, chain: int = 0) -> None:
        if not node.is_named:
            if node.type not in CONTROL or self._source.text(node).strip() != node.type:
                raise Unclear(f"'{shortened(self._source.text(node))}' stands where no command can")
            return
        self.depth += 1
        if self.depth > DEPTH:
            raise Unclear("it is nested too deeply")
        self.chain = chain if node.type == "command" else 0
        with contextlib.nullcontext() if node.type in CERTAIN else self._words.perhaps():
            self._read(node)
        self.depth -= 1

    def _read(self, node: Node) -> None:
        match node.type:
            case "list":
                self._list(node)
            case "pipeline" | "if_statement":
                self._branches(node)
            case "subshell" if self._source.text(node).startswith("(("):
                raise Unclear("`((` in it may be arithmetic or a command; write `( (` for a command")
            case "subshell" | "negated_command" | "variable_assignments" | "elif_clause" | "else_clause" | "do_group":
                self._statements(node.children)
            case "while_statement":
                self.loops += 1
                self._statements(node.children)
                self.loops -= 1
            case "for_statement":
                self._for(node)
            case "c_style_for_statement":
                self._c_style_for(node)
            case "compound_statement":
                self._compound(node)
            case "function_definition":
                self._function(node)
            case "case_statement":
                self._case(node)
            case "test_command":
                self._test(node, double=bool(node.children) and node.children[0].type == "[[")
            case "redirected_statement":
                self._redirected(node)
            case "command":
                self._command(node)
            case "variable_assignment":
                self._set(*self._assigned(node))
                if self._source.surely_sets(node):
                    self._words.numbers.add(self._source.text(node.children[0]))
            case "declaration_command":
                self._declaration(node)
            case "unset_command":
                self._unset(node)
            case "file_redirect":
                self._file_redirect(node)
            case "herestring_redirect":
                self._herestring_redirect(node)
            case "comment":
                pass
            case _:
                raise Unclear(f"its part '{shortened(self._source.text(node))}' is of a kind that no rule can judge")

    def _list(self, node: Node) -> None:
        """Its first command surely runs, and what is before `&&` has run where what is behind it does."""
        parts = [node]
        while parts[0].type == "list":
            parts[:1] = parts[0].children
        chain = next(CHAINS) if self.depth == 1 and not self._source.goes_unseen else 0
        self._statement(parts[0], chain)
        surely, either = set(self._words.numbers), False
        for part in parts[1:]:
            self._statement(part, 0 if either else chain)
            either = either or part.type == "||"
            if either:
                self._words.numbers = set(surely)
        self._words.numbers = surely

    def _branches(self, node: Node) -> None:
        """What one command of a pipeline or one branch sets the next ones do not have."""
        before = set(self._words.numbers)
        for child, after in zip(node.children, [*node.children[1:], None], strict=True):
            if child.type in ("elif_clause", "else_clause", "|", "|&"):
                self._words.numbers = set(before)
            with self._words.perhaps() if after is not None and after.type == "&" else contextlib.nullcontext():
                self._statement(child)

    def _for(self, node: Node) -> None:
        self.loops += 1
        name = ""
        for child in node.children:
            if child.type == "variable_name":
                name = self._source.text(child)
            elif child.type in WORDS:
                self._set(name, self._words.word(child))
            elif child.type == "select":
                raise Unclear("it asks with `select`")
            else:
                if child.is_named and self._source.counts(node):
                    self._words.numbers.add(name)
                self._statement(child)
        if any(child.type in WORDS for child in node.children):
            self.line.sets.append((name, Word(None)))
        else:
            self._set(name, Word(None))
        self.loops -= 1

    def _c_style_for(self, node: Node) -> None:
        self.loops += 1
        begins = True
        for child in node.children:
            begins = begins and child.type != ";"
            if child.type in ("do_group", "compound_statement"):
                with self._words.perhaps():
                    self._statement(child)
            elif child.type != "for":
                self._words.arithmetic(child)
                if begins and child.type == "variable_assignment" and self._source.surely_sets(child):
                    self._words.numbers.add(self._source.text(child.children[0]))
        self.loops -= 1

    def _compound(self, node: Node) -> None:
        if node.children and node.children[0].type == "((":
            for child in node.children:
                self._words.arithmetic(child)
        else:
            self._statements(node.children)

    def _function(self, node: Node) -> None:
        self.loops += 1
        for child in node.children:
            if child.type != "word" and child.type not in ("(", ")", "function"):
                self._statement(child)
        self.loops -= 1

    def _case(self, node: Node) -> None:
        for child in node.children:
            if child.type in WORDS:
                self._words.word(child)
            elif child.type == "case_item":
                with self._words.perhaps():
                    self._case_item(child)
            else:
                self._statement(child)

    def _case_item(self, node: Node) -> None:
        in_pattern = True
        runs: list[Node] = []
        for child in node.children:
            if in_pattern:
                if child.type in WORDS:
                    self._words.word(child)
                elif child.type not in ("extglob_pattern", "|", "(", ")"):
                    raise Unclear("a pattern of its `case` cannot be read with certainty")
                in_pattern = child.type != ")"
            elif child.type not in (";;", ";&", ";;&"):
                runs.append(child)
        self._statements(runs)

    def _test(self, node: Node, *, double: bool, numeric: bool = False) -> None:
        operators = [self._source.text(child) for child in node.children if child.type == "test_operator"]
        if {"-v", "-R"} & set(operators):
            raise Unclear("`-v` in its test would evaluate what it is given")
        numeric = numeric or (double and bool(NUMERIC_TESTS & set(operators)))
        for child in node.children:
            if child.type == "test_operator" or not child.is_named:
                if child.type == "((":
                    raise Unclear("its test holds arithmetic")
            elif child.type in ("binary_expression", "unary_expression", "parenthesized_expression"):
                self._test(child, double=double, numeric=numeric)
            elif numeric:
                self._words.arithmetic(child)
            elif child.type in WORDS:
                if self._words.word(child).many and not double and not self._words.is_number(child):
                    raise Unclear(
                        f"'{shortened(self._source.text(child))}' in its test may become an operator; quote it"
                    )
            elif child.type not in ("regex", "extglob_pattern"):
                raise Unclear(f"its test '{shortened(self._source.text(child))}' cannot be read with certainty")

    def _redirected(self, node: Node) -> None:
        """Here-documents may hold words that belong to the command before them."""
        words: list[Word] = []
        for child in node.children:
            if child.type == "heredoc_redirect":
                words += self._heredoc_redirect(child)
            elif child.type != "command":
                self._statement(child)
        for child in node.children:
            if child.type == "command":
                self._command(child, words)
                words = []
        if words:
            raise Unclear("it is not clear what its here-document belongs to")

    def _command(self, node: Node, more: list[Word] | None = None) -> None:
        words: list[Word] = []
        sets: list[tuple[str, Word]] = []
        end = -1
        for child in node.children:
            if child.type in WORDS or child.type == "command_name":
                if child.start_byte == end:
                    raise Unclear("it is not clear where its words end")
                end = child.end_byte
                inner = child.children[0] if child.type == "command_name" else child
                words.append(self._words.word(inner))
                if child.type == "command_name":
                    self._check_name(inner, words[0])
            elif child.type == "variable_assignment":
                sets.append(self._checked(*self._assigned(child)))
            elif child.type == "file_redirect":
                if child.start_byte == end and child.children[0].type == "file_descriptor":
                    raise Unclear("it is not clear where its words end")
                self._file_redirect(child)
            elif child.type == "herestring_redirect":
                self._herestring_redirect(child)
            elif child.type == "heredoc_redirect":
                words += self._heredoc_redirect(child)
            elif not child.is_named and self._source.text(child) in ("==", "=~", "$", "="):
                words.append(Word(self._source.text(child), raw=self._source.text(child)))
            elif child.type == "regex":
                words.append(Word(None, raw=self._source.text(child)))
            else:
                raise Unclear(f"its part '{shortened(self._source.text(child))}' is of a kind that no rule can judge")
        if not words:
            raise Unclear("a command in it has no name")
        self.line.steps.append(Simple(tuple(words + (more or [])), tuple(sets), self.loops > 0, self.chain))

    def _check_name(self, node: Node, word: Word) -> None:
        if word.text is None or word.home or word.many:
            raise Unclear(f"only a run could tell which command '{shortened(self._source.text(node))}' is")
        if not word.text.isascii() or not word.text or "=" in word.text or word.text.startswith("-"):
            raise Unclear(f"'{shortened(self._source.text(node))}' is not the name of a command")
        if self._source.text(node) in RESERVED:
            raise Unclear(f"`{word.text}` stands where no command can")

    def _assigned(self, node: Node, *, keyed: bool = False) -> tuple[str, Word]:
        name, *rest = node.children
        if name.type == "subscript":
            self._words.subscript(name)
            name = name.children[0]
        value: Word = Word("")
        for child in rest:
            if child.type == "array":
                for one in child.children:
                    if one.type in WORDS:
                        self._words.element(one, keyed=keyed)
                    elif one.is_named:
                        raise Unclear("an array in it cannot be read with certainty")
                value = Word(None)
            elif child.type in WORDS:
                value = self._words.word(child)
            elif self._source.text(child) not in (("=", "+=") if self._source.bash else ("=",)):
                raise Unclear(f"its assignment '{shortened(self._source.text(node))}' cannot be read with certainty")
        return self._source.text(name), value

    def _declaration(self, node: Node) -> None:
        """`export`, `declare` and the like: options that make a reference or evaluate are refused."""
        words = [Word(self._source.text(node.children[0]), raw=self._source.text(node.children[0]))]
        options = "".join(self._source.text(child) for child in node.children if child.type == "word")
        keyed, indexed = "A" in options, "a" in options
        for child in node.children[1:]:
            if child.type == "variable_assignment":
                name, value = self._assigned(child, keyed=keyed)
                if value.many and not self._source.bash:
                    raise Unclear(f"`{words[0].text}` may set more than one variable; quote its value")
                if child.children[-1].type != "array":
                    self._check_no_array(name, value, many=keyed or indexed)
                self._set(name, value)
                words.append(Word(None, raw=self._source.text(child)))
            elif child.type == "variable_name":
                self.line.sets.append((self._source.text(child), Word(None)))
                words.append(Word(self._source.text(child), raw=self._source.text(child)))
            elif child.type == "word" and re.fullmatch(r"-[gprxaAf]+", self._source.text(child)):
                words.append(Word(self._source.text(child), raw=self._source.text(child)))
            else:
                raise Unclear(f"`{words[0].text}` in it is given what only a run could tell")
        self.line.steps.append(Simple(tuple(words), declares=True))

    def _checked(self, name: str, value: Word) -> tuple[str, Word]:
        if EVALUATED.fullmatch(name) and not (value.known and VALID_NUMBER.fullmatch(value.text or "0")):
            raise Unclear(f"`{name}` is set, and bash evaluates what it is set to")
        return name, value

    def _set(self, name: str, value: Word) -> None:
        self.line.sets.append(self._checked(name, value))

    def _check_no_array(self, name: str, value: Word, *, many: bool) -> None:
        """The text `(...)` in the place of an array's value is expanded as one."""
        if (many or self._source.may_be_array(name)) and (value.text is None or value.text.startswith("(")):
            raise Unclear(f"the value of `{name}` may be expanded as an array; write the array without quotes")

    def _unset(self, node: Node) -> None:
        for child in node.children[1:]:
            if child.type not in ("variable_name", "word") or "[" in self._source.text(child):
                raise Unclear("`unset` in it is given what only a run could tell")
            self.line.sets.append((self._source.text(child), Word(None)))

    # Redirections

    def _check_before(self, node: Node) -> None:
        """`{name}>file` sets a variable, or an element of an array."""
        if re.search(rb"(?<!\$)\{[^\s{}]+\}$", self._source.bytes[: node.start_byte]):
            raise Unclear("a redirection in it sets a variable")

    def _file_redirect(self, node: Node) -> None:
        self._check_before(node)
        operator = next(self._source.text(child) for child in node.children if child.type != "file_descriptor")
        targets = [self._words.word(child) for child in node.children if child.type in WORDS]
        if operator in ("<&-", ">&-") and not targets:
            return
        if (
            len(targets) != 1
            or targets[0].many
            or any(child.is_named and child.type not in WORDS | {"file_descriptor"} for child in node.children)
        ):
            raise Unclear("a redirection in it cannot be read with certainty")
        self.line.steps.append(Redirect(operator, targets[0]))

    def _herestring_redirect(self, node: Node) -> None:
        self._check_before(node)
        for child in node.children:
            if child.type in WORDS:
                self._words.word(child)
            elif child.type not in ("<<<", "file_descriptor"):
                raise Unclear("a redirection in it cannot be read with certainty")

    def _heredoc_redirect(self, node: Node) -> list[Word]:
        """The words of the command that follow the `<<`; anything else there is a statement."""
        start = next((child for child in node.children if child.type == "heredoc_start"), None)
        end = next((child for child in node.children if child.type == "heredoc_end"), None)
        if start is None or end is None:
            raise Unclear("its here-document has no end")
        self._check_before(node)
        quoted = not self._source.text(start)[0].isalnum() and self._source.text(start)[0] != "_"
        mark = self._source.text(start).strip("\\'\"")
        tabs = any(child.type == "<<-" for child in node.children)
        body_at = self._source.bytes.find(b"\n", start.end_byte) + 1
        stop = self._source.bytes.find(b"\n", end.start_byte)
        lines = self._source.bytes[body_at : len(self._source.bytes) if stop < 0 else stop].decode().split("\n")
        ends = [number for number, line in enumerate(lines) if (line.lstrip("\t") if tabs else line) == mark]
        if ends != [len(lines) - 1] or self._source.bytes.count(b"<<", 0, body_at) != self._source.bytes.count(
            b"<<", 0, start.start_byte
        ):
            raise Unclear("it is not clear where its here-document ends")
        if not quoted and any(line.endswith("\\") for line in lines):
            raise Unclear("it is not clear where its here-document ends")
        words = []
        for child in node.children:
            if child.type == "heredoc_body":
                if not quoted:
                    self._words.heredoc_body(child)
            elif child.type in WORDS:
                words.append(self._words.word(child))
            elif child.type in ("heredoc_start", "heredoc_end", "<<", "<<-", "file_descriptor"):
                pass
            elif child.end_byte >= body_at:
                raise Unclear("it is not clear where its here-document begins")
            else:
                self._statement(child)
        return words

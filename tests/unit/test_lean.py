"""What stands in for standard modules does what they do."""

import contextlib
import json
import math
import random
import signal
import subprocess
import sys
from typing import Any

import pytest

from tmuxjobs import lean

TEXTS = [
    "{}", "[]", '""', "0", "-1", "1.5e3", "null", "true", " {}", "{} \n", "\t[1]\r\n", "NaN", "-Infinity", "1e999",
    "", " ", "{", "[1,]", "{'a': 1}", '{"a"}', "nul", "1 2", "[1]]", '"\x01"', '"\\ud800"', '"\\u00e9"', "é",
    '{"é": "日"}', "\ufeff{}", "9" * 5000, "[" * 100_000, '"\n"', '{"a": 1, "a": 2}',
]  # fmt: skip
ODD = [b"\xff", b'"\xed\xa0\x80"', "{}".encode("utf-16"), '"é"'.encode("utf-32"), b"\0"]


def outcome(read: Any, data: Any) -> tuple[str, Any]:
    try:
        return "value", repr(read(data))
    except (ValueError, RecursionError) as error:
        return "error", (type(error), str(error))


@pytest.mark.parametrize("data", [*TEXTS, *(text.encode() for text in TEXTS), *ODD])
def test_json_is_read_as_the_standard_library_reads_it(data: str | bytes) -> None:
    assert outcome(lean.loads, data) == outcome(json.loads, data)


def test_json_is_written_as_the_standard_library_writes_it() -> None:
    chance = random.Random(5)
    leaves = [None, True, False, 0, -7, 1 << 70, 0.1, 1e300, math.nan, math.inf, "", "é\u2028\x00\ud800'\"\\", "a/b"]

    def value(depth: int) -> Any:
        kind = chance.randrange(4 if depth else 2)
        if kind == 2:
            return [value(depth - 1) for _ in range(chance.randrange(4))]
        if kind == 3:
            return {chance.choice(["", "a", "é", "b\n"]): value(depth - 1) for _ in range(chance.randrange(4))}
        return chance.choice(leaves)

    for _ in range(2000):
        one = value(4)
        assert lean.dumps(one) == json.dumps(one)
        assert repr(lean.loads(lean.dumps(one))) == repr(json.loads(json.dumps(one)))


@pytest.mark.parametrize("value", [{1, 2}, object(), {(1,): 2}, b"x"])
def test_what_is_no_json_is_refused(value: object) -> None:
    for dumps in (json.dumps, lean.dumps):
        with pytest.raises(TypeError):
            dumps(value)


def test_suppress_lets_pass_what_is_not_named() -> None:
    for suppress in (contextlib.suppress, lean.suppress):
        with suppress(ValueError, OSError):
            raise FileNotFoundError
        with pytest.raises(KeyError), suppress(ValueError, OSError):
            raise KeyError


def test_signals_are_those_of_the_standard_library() -> None:
    names = [name for name in dir(signal) if name.startswith("SIG") and not name.startswith("SIG_")]
    assert "SIGTERM" in names
    assert {name: getattr(lean.signal, name) for name in names} == {name: getattr(signal, name) for name in names}
    assert lean.signal.valid_signals() == signal.valid_signals()


def test_json_without_its_part_in_c_is_the_standard_library_s() -> None:
    code = (
        "import sys; sys.modules['_json'] = None; from tmuxjobs.lean import loads, dumps; print(loads(dumps({'a': 1})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'a': 1}\n"

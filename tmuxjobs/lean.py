"""Stands in for what a process in a pane would wait for at its start: contextlib, json and signal take 3, 6 and 4 ms.

Stdlib only. The names and what they do are those of the modules that they stand in for.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    import signal
    from contextlib import suppress
    from json import dumps, loads
else:
    import _signal as signal  # the same without `enum`: numbers, not names

    class suppress:
        def __init__(self, *kinds):
            self.kinds = kinds

        def __enter__(self):
            return None

        def __exit__(self, kind, error, trace):
            return kind is not None and issubclass(kind, self.kinds)

    try:
        from _json import encode_basestring_ascii, make_encoder, make_scanner
    except ImportError:  # a Python without json's part in C
        from json import dumps, loads
    else:

        class Reading:
            """What json's scanner asks of a decoder."""

            strict = True
            object_hook = object_pairs_hook = None
            parse_float, parse_int = float, int
            parse_constant = float

        _scan = make_scanner(Reading)

        def loads(data):
            try:
                text = data if isinstance(data, str) else data.decode()
                value, end = _scan(text, 0)
                if not text[end:].strip(" \t\n\r"):
                    return value
            except (StopIteration, ValueError):
                pass
            import json  # says what is wrong with it, and knows other encodings

            return json.loads(data)

        def _unknown(value):
            raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")

        def dumps(value):
            # Anew each time: it keeps the objects that it is in, to find circles.
            encode = make_encoder({}, _unknown, encode_basestring_ascii, None, ": ", ", ", False, False, True)
            return "".join(encode(value, 0))


__all__ = ["dumps", "loads", "signal", "suppress"]

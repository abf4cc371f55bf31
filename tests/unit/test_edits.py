"""Edits of clients' files: what was there is there, to the byte, and taking out undoes putting in."""

import json
import tomllib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tmuxjobs.cli import edit_json, edit_toml, edit_yaml

ENTRY = {"command": "/opt/tools/tmuxjobs", "args": ["serve"], "list": ["A", "B"]}
IN_JSON, IN_TOML, IN_YAML = (["servers", "tmuxjobs"], ["mcp_servers", "tmuxjobs"], ["extensions", "tmuxjobs"])

JSON = {
    "tabs, a remark behind the last, trailing commas": """{
	"n": 1.50e+3,
	"servers": {
		"o": {}, // keep
	},
}
""",
    "windows, no comma": """{\r
    "a": 1.0,\r
    "servers": {\r
        "o": {\r
            "x": [1, 2]\r
        } /* c */\r
    }\r
}\r
""",
    "on one line": '{"servers": {"other": {"command": "x"}}, "é": -0.0}',
    "empty section": '{"servers":{}}',
    "a remark in an empty section, a mark of the encoding": """\ufeff// hi
{
  // none
  "servers": {
    // nothing yet
  }
}""",
    "section on one line": '{\n  "servers": {"o": {}}\n}\n',
    "strings that look like comments": """{
   "a": "// no, }", /* x
 y */
   "servers": {
      "b": "\\"/*", "c": ",}"
   }
}
""",
    "the same key twice": '{\n  "servers": {"a": 1},\n  "servers": {\n    "b": 2\n  }\n}\n',
}
TOML = {
    "empty": "",
    "a value": "a = 1 # one\n",
    "a table, a remark at the end": '[mcp_servers.other]\ncommand = "x"\n# end\n',
    "windows": "# mine\r\na = 0x1F\r\n",
    "inline": 'mcp_servers = {a = {command="x"}} # c\n',
    "dotted": 'mcp_servers.a.command="y"\n',
    "a string that looks like it": """[mcp_servers]
o = {command="z"} # it's "so"
[x]
y = \"\"\"
[mcp_servers.tmuxjobs]
\"\"\"
z = 1
""",
}
YAML = {
    "entries and remarks": """# my
extensions:
  # the dev
  developer:
    enabled: yes   # 1

# model
MODEL: gpt
""",
    "empty": "extensions: {} # none\n",
    "windows": "extensions:\r\n    a:\r\n        b: 1.0\r\n",
    "a block of text, lists": """extensions:
  a:
    d: |
      text

  # c
  b:
    x: [1,
     2]
    y:
    - 1
    - 2
""",
    "on one line": "extensions: {a: {b: 1}, c: {}} # two\n",
    "not the first": "A: 1\nextensions:\n  a: {}\n",
}


def cases(texts: dict[str, str]) -> Any:
    return pytest.mark.parametrize("text", texts.values(), ids=texts.keys())


@cases(JSON)
def test_json_is_kept_and_restored(text: str) -> None:
    put = edit_json.put(text, IN_JSON, ENTRY)
    expected = edit_json.load(text)
    expected["servers"]["tmuxjobs"] = ENTRY
    assert edit_json.load(put) == expected
    assert is_spread_over(text, put)
    assert ("\r\n" in put) == ("\r\n" in text)
    assert put.count("\r\n") in (0, put.count("\n"))
    assert edit_json.take(put, IN_JSON) == text


@cases(TOML)
def test_toml_is_kept_and_restored(text: str) -> None:
    put = edit_toml.put(text, IN_TOML, ENTRY)
    expected = tomllib.loads(text)
    expected.setdefault("mcp_servers", {})["tmuxjobs"] = ENTRY
    assert tomllib.loads(put) == expected
    assert is_spread_over(text, put)
    assert edit_toml.take(put, IN_TOML) == text


@cases(YAML)
def test_yaml_is_kept_and_restored(text: str) -> None:
    put = edit_yaml.put(text, IN_YAML, ENTRY)
    expected = yaml.safe_load(text)
    expected["extensions"] = expected["extensions"] | {"tmuxjobs": ENTRY}
    assert yaml.safe_load(put) == expected
    assert edit_yaml.take(put, IN_YAML) == text


def is_spread_over(text: str, longer: str) -> bool:
    """Whether every character stands in the longer text, in this order."""
    rest = iter(longer)
    return all(one in rest for one in text)


def test_toml_table_goes_with_what_is_below_it_and_remarks_of_the_next_stay() -> None:
    before = 'a = 1\n\n[mcp_servers.one]\ncommand = "x"\n\n'
    ours = '[mcp_servers."tmuxjobs"] # ours\nargs = [\n  "serve",\n]\n\n[mcp_servers.tmuxjobs.env]\nA = "1"\n\n'
    after = '# about two\n[mcp_servers.two]\ncommand = "y"\n'
    assert edit_toml.take(before + ours + after, IN_TOML) == before + after


@pytest.mark.parametrize("text", ["{tmuxjobs: {a: 1}}", "{b: 2, tmuxjobs: {a: 1}}", "{b: 2, tmuxjobs: {}, c: 3}"])
def test_yaml_entry_on_one_line_is_taken_out(text: str) -> None:
    taken = yaml.safe_load(edit_yaml.take(f"extensions: {text}\n", IN_YAML))
    assert taken["extensions"] == {key: one for key, one in yaml.safe_load(text).items() if key != "tmuxjobs"}


def test_value_is_changed_in_its_place() -> None:
    text = '{\n  "servers": {\n    "tmuxjobs": {\n      "command": "old", // mine\n      "env": {}\n    }\n  }\n}\n'
    assert edit_json.put(text, [*IN_JSON, "command"], "new") == text.replace("old", "new")
    text = '[mcp_servers.tmuxjobs]\ncommand = "old" # mine\nenabled = true\n'
    assert edit_toml.put(text, [*IN_TOML, "command"], "new") == text.replace("old", "new")


TRICKY = st.sampled_from(["//", "/*", "*/", ",}", '"', "\\"])
LEAF = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=6), TRICKY)
KEY = st.text(max_size=4)
TREE = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=3))
GAP = st.sampled_from(["", " ", "\n", "\n\t", "\r\n  ", " // remark, } {\n", "/* a, \n } */", "\n  // one\n  "])


def written(value: Any, draw: Any) -> str:
    """The value as JSON, with blanks, comments and trailing commas anywhere they may be."""

    def gap() -> str:
        return str(draw(GAP))

    if isinstance(value, dict):
        parts = [f"{gap()}{json.dumps(key)}{gap()}:{gap()}{written(one, draw)}{gap()}" for key, one in value.items()]
        return "{" + ",".join(parts) + ("," if parts and draw(st.booleans()) else "") + gap() + "}"
    if isinstance(value, list):
        parts = [gap() + written(one, draw) + gap() for one in value]
        return "[" + ",".join(parts) + ("," if parts and draw(st.booleans()) else "") + gap() + "]"
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


@given(st.dictionaries(KEY, TREE, max_size=3), st.dictionaries(KEY, TREE, max_size=3), st.data())
def test_any_json_keeps_what_it_said(config: dict[str, Any], servers: dict[str, Any], data: st.DataObject) -> None:
    config["servers"] = servers
    text = written(config, data.draw)
    assert edit_json.load(text) == config
    put = edit_json.put(text, IN_JSON, ENTRY)
    assert edit_json.load(put) == config | {"servers": servers | {"tmuxjobs": ENTRY}}
    assert is_spread_over("".join(text.split()), put)
    assert edit_json.load(edit_json.take(put, IN_JSON)) == config

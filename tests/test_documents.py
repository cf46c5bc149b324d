"""The one reader of YAML: what is ambiguous or bottomless is refused, with the line; the rest means what it says."""

import contextlib
import json
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gessl.documents import Document, from_words, merge, parse, read_document
from gessl.errors import UserError
from gessl.nodes import DEPTH, Tree

AMBIGUOUS = [
    ("a: 010", "readers of YAML differ on 010"),  # 8 in YAML 1.1
    ("a: -017", "readers of YAML differ on -017"),
    ("a: 0o17", "readers of YAML differ on 0o17"),
    ("a: 0x1F", "readers of YAML differ on 0x1F"),
    ("a: 0b11", "readers of YAML differ on 0b11"),
    ("a: 1:30", "readers of YAML differ on 1:30"),  # 90
    ("a: 1_000", "readers of YAML differ on 1_000"),
    ("a: 1_000.5", "readers of YAML differ on 1_000.5"),
    ("a: 2020-01-31", "readers of YAML differ on 2020-01-31"),
    ("a: 2020-13-45", "readers of YAML differ on 2020-13-45"),
    ("a: yes", "`yes` is true or false to some"),
    ("a: Off", "`Off` is true or false to some"),
    ("a: .inf", "must be a finite number, got .inf"),
    ("a: -.INF", "must be a finite number, got -.INF"),
    ("a: .nan", "must be a finite number, got .nan"),
    ("a: NaN", "must be a finite number, got NaN"),
    ("a: -Infinity", "must be a finite number, got -Infinity"),
    ("a: 1e999", "must be a finite number, got 1e999"),
    ("a: " + "9" * 5000, "a number of 5000 characters"),
    ("a: !!python/object/apply:os.getcwd []", "tag !!python/object/apply:os.getcwd is not supported"),
    ("a: !!binary AAAA", "tag !!binary is not supported"),
    ("a: !mine x", "tag !mine is not supported"),
    ('a: "\\ud800"', "holds half of a character"),
    ("1: x", "key '1' is not text"),
    ("null: x", "key 'null' is not text"),
    ("yes: x", "key 'yes' is not text"),
    ("? [1, 2]\n: x", "a list or mapping is no key"),
    ("<<: 3", "merges what is no mapping"),
]


@pytest.mark.parametrize(("text", "complaint"), AMBIGUOUS, ids=[text[:20] for text, _ in AMBIGUOUS])
def test_what_readers_understand_differently_is_refused(text: str, complaint: str) -> None:
    document = parse(f"first: 1\n{text}", "f.yaml")
    (line,) = document.lines(document.problems)
    assert line.startswith("f.yaml:2: ") and complaint in line


@pytest.mark.parametrize(
    "text", ["{}", "a: [1, -2, +3, 0, 1.5, .5, 2., 1e-3, 1.0e+3, -0.0]", "a: {b: ~, c: null, d: }"]
)
def test_what_is_plain_means_what_json_and_yaml_say(text: str) -> None:
    expected = yaml.safe_load(text.replace("1e-3", "1.0e-3"))
    document = parse(text, "f")
    assert (document.tree, document.problems) == (expected, ())
    assert [type(value) for value in document.tree.get("a", ())] == [type(value) for value in expected.get("a", ())]


def test_text_in_quotes_is_text() -> None:
    assert parse("a: '010'\nb: \"yes\"\n'1': |\n  1:30\n", "f").tree == {"a": "010", "b": "yes", "1": "1:30\n"}


def test_a_key_twice_is_refused_with_both_lines() -> None:
    document = parse("a:\n  b: 1\n  c: 2\n  b: 3\nd: {e: 1, e: 2}\n", "f")
    assert document.lines(document.problems) == [
        "f:2: a.b: given twice, in lines 2 and 4; keep one of them",
        "f:5: d.e: given twice, in lines 5 and 5; keep one of them",
    ]


def test_keys_and_elements_know_their_lines() -> None:
    document = parse("a:\n  - 1\n  - {b: 2,\n     c: 3}\n", "f")
    lines = {loc: mark.line for loc, mark in document.marks.items()}
    assert lines == {("a",): 1, ("a", 0): 2, ("a", 1): 3, ("a", 1, "b"): 3, ("a", 1, "c"): 4}
    assert str(document.mark(("a", 1, "nowhere"))) == "f:3" and str(document.mark(("x",))) == "f"


def test_anchors_and_merges_are_those_of_pyyaml() -> None:
    text = "a: &a {x: 1, y: {z: 2}}\nb: {<<: *a, x: 3}\nc: {y: 4, <<: [*a, {w: 5}]}\nd: [*a, *a]\n"
    assert parse(text, "f").tree == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("over", "merged"),
    [
        ({"s": {"name": "b"}}, {"name": "x", "s": {"name": "b"}}),
        ({"s": {"name": "a", "m": 2}}, {"name": "x", "s": {"name": "a", "k": 1, "m": 2}}),
        ({"s": {"m": 2}}, {"name": "x", "s": {"name": "a", "k": 1, "m": 2}}),
        ({"s": "b"}, {"name": "x", "s": "b"}),
        ({"name": "y"}, {"name": "y", "s": {"name": "a", "k": 1}}),  # whole files keep what they share
    ],
)
def test_a_mapping_of_another_name_replaces_and_others_merge(over: Tree, merged: Tree) -> None:
    base = {"name": "x", "s": {"name": "a", "k": 1}}
    assert merge(base, over) == merged
    assert Document(base, "f").under(Document(over, "g")).tree == merged
    assert merge({"r": base}, {"r": {**over, "name": "x"}}) == {"r": {**merged, "name": "x"}}, "at any depth"


BOTTOMLESS = {
    "deep-flow": "a: " + "[" * 1000 + "]" * 1000,
    "deep-block": "\n".join(" " * depth + "a:" for depth in range(1000)),
    "very-deep": "a: " + "[" * 200_000,
    "within-itself": "a: &a [*a]",
    "key-within-itself": "a: &a {b: *a}",
    "billion-laughs": "\n".join(
        ["l0: &l0 [x, x]", *(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 12))]
    ),
    "aliases-in-a-row": "\n".join(["l0: &l0 [x]", *(f"l{i}: &l{i} [*l{i - 1}]" for i in range(1, 100))]),
}


@pytest.mark.parametrize("name", BOTTOMLESS)
def test_what_has_no_bottom_is_one_line(name: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(BOTTOMLESS[name], "f")
    (line,) = str(caught.value).splitlines()
    assert line.startswith("f:") and ("nested more than" in line or "too much to read" in line)


def test_a_document_may_be_as_deep_as_the_limit() -> None:
    deep = "a: " + "[" * (DEPTH - 2) + "]" * (DEPTH - 2)
    assert parse(deep, "f").tree == yaml.safe_load(deep)


def test_only_regular_files_of_a_bearable_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_bytes(b"a: " + b"x" * 9_000_000)
    with pytest.raises(UserError, match="larger than"):
        read_document(tmp_path / "big.yaml")
    with pytest.raises(UserError, match="no regular file"):
        read_document(Path("/dev/zero"))
    with pytest.raises(UserError, match="no such file; run x"):
        read_document(tmp_path / "none.yaml", "; run x")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("title: Größe\n".encode("utf-16"), ":1: not in UTF-8 (invalid start byte); save the file in UTF-8"),
        ("a: 1\ntitle: Größe\n".encode("latin-1"), ":2: not in UTF-8 (invalid start byte); save the file in UTF-8"),
        (b"a: 1\r\nb: 2\0", ":2: holds the character U+0000; save the file in UTF-8, without it"),
        ("a: 1".encode("utf-16-le"), ":1: holds the character U+0000; save the file in UTF-8, without it"),
        (b"a: 1\nb: 'x\nc: 3\n", ":4: not valid YAML (found unexpected end of stream, while scanning a quoted scalar"
         " that begins in line 2)"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_named_with_its_line(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_document(path)
    assert str(caught.value) == f"{path}{complaint}"


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa: 1\n", b"a: 1\r\n", b"a: 1\r", b"a: 1"])
def test_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.yaml").write_bytes(content)
    assert read_document(tmp_path / "f.yaml").tree == {"a": 1}


def test_what_lies_over_another_document_keeps_its_own_lines() -> None:
    whole = (
        parse("a: {x: 1, y: 2}", "one")
        .under(parse("\na:\n  y: 3\n", "two"))
        .under(from_words({"a": {"z": "4"}}, "--config"))
    )
    assert whole.tree == {"a": {"x": 1, "y": 3, "z": 4}}
    assert str(whole.mark(("b",))) == "one"
    assert [str(whole.mark(("a", key))) for key in "xyz"] == ["one:1", "two:3", "--config"]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(string.ascii_letters, max_size=4), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), PLAIN, max_size=4))
@settings(max_examples=100, deadline=None)
def test_json_is_read_as_json_does(tree: dict[str, Any]) -> None:
    document = parse(json.dumps(tree), "f")
    assert (document.tree, document.problems) == (tree, ())
    assert json.dumps(document.tree) == json.dumps(tree)


@given(st.text(st.sampled_from(list("ab:,-?[]{}&*!|>'\"%@#\n \t01_.<~e")), max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_text_is_a_traceback(text: str) -> None:
    with contextlib.suppress(UserError):
        json.dumps(parse(text, "f").tree, allow_nan=False)


def test_a_quoted_merge_key_is_text() -> None:
    assert parse('{"<<": null}', "x").tree == {"<<": None}
    assert parse("{a: &a {b: 1}, c: {<<: *a}}", "x").tree == {"a": {"b": 1}, "c": {"b": 1}}


def test_on_is_text_as_a_key_and_refused_as_a_value() -> None:
    assert parse("{protocol: x, on: [a]}", "x").tree == {"protocol": "x", "on": ["a"]}
    assert parse("a: on", "x").problems
    assert parse("yes: 1", "x").problems

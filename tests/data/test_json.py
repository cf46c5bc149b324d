"""Lists in JSON, element by element, against Python's own reader of the whole."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gessl.data.readers._json import json_lists, parse_json

numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
documents = st.dictionaries(st.sampled_from(["images", "info", "a b", "", "annotations"]) | st.text(), values)


@settings(max_examples=200, deadline=None)
@given(documents, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_the_elements_are_those_of_the_whole(document: dict[str, Any], indent: Any, escaped: bool) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=escaped)
    wanted = [key for key, value in document.items() if isinstance(value, list)][:2]
    expected = [(key, element) for key in document if key in wanted for element in document[key]]
    assert list(json_lists(f" {text}\n", *wanted)) == expected
    assert parse_json(text) == document


@settings(max_examples=300, deadline=None)
@given(documents, st.data())
def test_a_document_that_is_cut_is_refused(document: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(document)
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    with pytest.raises(ValueError):  # noqa: PT011  # whatever it says
        list(json_lists(cut))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match="is no number"):
        list(json_lists(f'{{"a": [{number}]}}'))
    with pytest.raises(ValueError, match="is no number"):
        parse_json(number)


@pytest.mark.parametrize("deep", ["[" * 200_000, '{"a":' * 200_000])
def test_deep_nesting_is_refused(deep: str) -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json(deep)
    with pytest.raises(ValueError, match="nested too deep"):
        list(json_lists(f'{{"a": [{deep}'))

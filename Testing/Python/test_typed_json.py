"""Test the JSON parser."""

from __future__ import annotations

import json

import pytest
from dcamt.io.typed_json import MAX_DEPTH, parse_json


@pytest.mark.parametrize(
    "text", ["1", "null", '"a"', "[]", "{}", '[{"a": [1, 2.5, null]}, "[["]', b'{"\xc3\xa9": true}']
)
def test_parsed_value_is_the_same_as_from_json_loads(text: str | bytes) -> None:
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}"), ('[0, {"a": ', "}]")])
@pytest.mark.parametrize("levels", [2, MAX_DEPTH, MAX_DEPTH + 2, 2000, 100_000])
def test_only_values_with_more_levels_than_the_limit_are_refused(levels: int, opening: str, closing: str) -> None:
    pairs = levels // sum(map(opening.count, "[{"))
    text = opening * pairs + "1" + closing * pairs
    if levels <= MAX_DEPTH:
        assert parse_json(text) == json.loads(text)
    else:
        with pytest.raises(ValueError, match=f"nested in more than {MAX_DEPTH} levels"):
            parse_json(text)


@pytest.mark.parametrize("text", ["", "{", "[1,]", "9" * 5000, b"\xff\xff"])
def test_text_that_is_not_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Exceeds|decode"):
        parse_json(text)

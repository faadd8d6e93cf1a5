"""JSON as it is written, of NumPy's numbers too, and of those that it does not know."""

from __future__ import annotations

import json

import numpy as np
import pytest

from refbert.files.json import jsonable, read_json, write_json


def test_numbers():
    x = {"a": np.float32(0.5), "b": (np.int64(3), True, None), "c": np.array([[1.0, np.nan], [np.inf, -np.inf]])}
    assert jsonable(x) == {"a": 0.5, "b": [3, True, None], "c": [[1.0, "nan"], ["inf", "-inf"]]}
    assert json.loads(json.dumps(jsonable(x), allow_nan=False)) == jsonable(x)


def test_what_is_no_number():
    with pytest.raises(TypeError, match="set has no JSON form"):
        jsonable([{1}])
    assert jsonable([{1}], other=str) == ["{1}"]


def test_what_is_written_is_read(tmp_path):
    value = {"ü": [1, 0.5, None], "漢": "\t"}
    write_json(tmp_path / "x", value)
    assert read_json(tmp_path / "x") == value
    assert "漢" in (tmp_path / "x").read_text(encoding="utf-8")


def test_half_a_surrogate_pair_is_written_as_its_escape(tmp_path):
    write_json(tmp_path / "x", ["\udc80"])
    assert json.loads((tmp_path / "x").read_text(encoding="utf-8")) == ["\udc80"]

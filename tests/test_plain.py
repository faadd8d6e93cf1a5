"""What JSON is given of NumPy's numbers, and of those that it does not know."""

from __future__ import annotations

import json

import numpy as np
import pytest

from refbert.files.as_json import plain


def test_numbers():
    x = {"a": np.float32(0.5), "b": (np.int64(3), True, None), "c": np.array([[1.0, np.nan], [np.inf, -np.inf]])}
    assert plain(x) == {"a": 0.5, "b": [3, True, None], "c": [[1.0, "nan"], ["inf", "-inf"]]}
    assert json.loads(json.dumps(plain(x), allow_nan=False)) == plain(x)


def test_what_is_no_number():
    with pytest.raises(TypeError, match="set has no JSON form"):
        plain([{1}])
    assert plain([{1}], other=str) == ["{1}"]

"""What refbert's conformance suite cannot see from outside; the rest is `refbert conform --backend jax`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refbert_jax import JaxBackend


def aligned(x):
    """A copy of x where JAX would use NumPy's memory as it is: at a multiple of 64 bytes."""
    raw = np.zeros(x.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    y = raw[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


def test_both_dtypes_in_one_process_which_keeps_its_own_setting():
    single, double = JaxBackend(), JaxBackend(dtype="float64")
    before = jax.config.jax_enable_x64
    for backend in (single, double, single):
        y, back = backend.gelu(backend.asarray(np.linspace(-2, 2, 8)), form="erf")
        assert backend.to_numpy(y).dtype == backend.to_numpy(back(y)[0]).dtype == backend.dtype
        assert jax.config.jax_enable_x64 == before
    assert jnp.ones(1).dtype == ("float64" if before else "float32")


def test_the_caller_may_use_its_memory_again():
    backend = JaxBackend()
    host, keep = aligned(np.ones((4, 256), np.float32)), aligned(np.ones((4, 256), bool))
    x = backend.asarray(host)
    y, back = backend.dropout(x, keep=keep, rate=0.5)
    host[:], keep[:] = 7, False
    for result in (y, *back(x)):
        np.testing.assert_array_equal(backend.to_numpy(result), 2.0)


@pytest.mark.parametrize("device", ["cuda", "cpu:99", "cpu:x", "abacus"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(RuntimeError, match=f'"{device}"') as caught:
        JaxBackend(device=device)
    assert "\n" not in str(caught.value)


def test_shapes_that_do_not_fit_are_value_errors():
    backend = JaxBackend()
    x = backend.asarray(np.ones((2, 3)))
    with pytest.raises(ValueError, match="reshape"):
        backend.reshape(x, (4, 2))
    with pytest.raises(ValueError, match="permutation"):
        backend.transpose(x, (0, 0))

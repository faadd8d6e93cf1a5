"""The backend "cupy": without a GPU as far as that goes (device_stand_in.py), and on a GPU where there is one."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import importlib
import importlib.util
import inspect
import math
import subprocess
import sys
import threading
from pathlib import Path

import device_stand_in as stand_in
import numpy as np
import pytest
from op_cases import BAD_ARGUMENTS, CASES, RATES, SHARED, check, model_difference

from refbert import ops
from refbert.backend import REQUIRED, Backend, registry
from refbert.errors import BackendUnavailable, Unsupported

PACKAGE = Path(__file__).parents[2] / "backends" / "refbert_cupy"
DTYPES = ("float64", "float32", "float16")


def cupy_installed():
    return importlib.util.find_spec("cupy") is not None


def gpu():
    """Whether CuPy is here and sees a GPU. The stand-in is never asked."""
    if not cupy_installed():
        return False
    import cupy

    try:
        return bool(cupy.is_available())
    except RuntimeError:  # before CuPy 14, a missing driver raises
        return False


needs_cupy = pytest.mark.skipif(not cupy_installed(), reason="CuPy is not installed")
needs_compiler = pytest.mark.skipif(stand_in.compiler() is None, reason="no C++ compiler (g++) to run the kernels with")


@contextlib.contextmanager
def imported_with(cupy):
    """refbert_cupy, freshly imported with another module in the place of cupy (None: not installed)."""
    ours = [name for name in sys.modules if name.split(".")[0] == "refbert_cupy"]
    kept = {name: sys.modules.pop(name) for name in [*ours, "cupy"] if name in sys.modules}
    sys.modules["cupy"] = cupy
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in ("refbert_cupy", "cupy")]:
            if name == "cupy" or name.startswith("refbert_cupy"):
                del sys.modules[name]
        sys.modules.update(kept)


@pytest.fixture
def on_stand_in():
    with imported_with(stand_in.module()):
        yield importlib.import_module("refbert_cupy").CupyBackend


# Being unavailable


def test_without_cupy_the_import_says_how_to_get_it():
    code = "import sys; sys.modules['cupy'] = None\nimport refbert_cupy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("ImportError: CuPy cannot be imported")
    assert 'pip install "refbert[cuda13x]"' in last
    assert '"refbert[cuda12x]"' in last
    assert "nvidia-smi" in last


def test_without_cupy_the_registry_says_so_in_one_line():
    with imported_with(None), pytest.raises(BackendUnavailable, match=r'refbert\[cuda13x\]"') as caught:
        registry.create("refbert_cupy:CupyBackend")
    assert "\n" not in str(caught.value)


@needs_cupy
@pytest.mark.skipif(gpu(), reason="there is a CUDA device")
def test_with_cupy_and_no_gpu_the_constructor_says_so_in_one_line():
    from refbert_cupy import CupyBackend

    with pytest.raises(RuntimeError, match=r"driver|CUDA device") as caught:
        CupyBackend()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("machine", "device", "message"),
    [
        ({"devices": 0}, None, "CuPy sees no CUDA device"),
        ({"devices": 2}, "cuda:2", "there is no CUDA device 2: CuPy sees 2"),
        ({"failure": "cudaErrorInsufficientDriver", "driver": 0}, None, "no NVIDIA driver"),
        ({"failure": "cudaErrorInsufficientDriver", "driver": 11080}, None, "supports CUDA 11.8, but .* needs 12.9"),
        ({"failure": "cudaErrorUnknown: unknown error"}, "cuda:0", r"does not answer \(cudaErrorUnknown"),
    ],
)
def test_a_missing_device_or_driver(machine, device, message):
    with imported_with(stand_in.module(**machine)):
        backend = importlib.import_module("refbert_cupy").CupyBackend
        with pytest.raises(RuntimeError, match=message) as caught:
            backend(device=device)
        assert "\n" not in str(caught.value)


def test_a_device_that_cannot_compute(monkeypatch):
    broken = stand_in.module()

    def fail(shape, dtype):
        raise OSError("libnvrtc.so: cannot open\nshared object file")

    broken.ones = fail
    with (
        imported_with(broken),
        pytest.raises(RuntimeError, match=r"cuda:0 \(libnvrtc.so: cannot open shared") as caught,
    ):
        importlib.import_module("refbert_cupy").CupyBackend()
    assert 'pip install "cupy-cuda12x[ctk]"' in str(caught.value)


@pytest.mark.parametrize("device", ["cpu", "cuda:", "cuda:-1", "cuda:x", "cuda0", "rocm:0"])
def test_other_devices_are_unsupported(on_stand_in, device):
    with pytest.raises(Unsupported, match=f'not on "{device}"'):
        on_stand_in(device=device)


def test_other_dtypes_are_unsupported(on_stand_in):
    with pytest.raises(Unsupported, match="bfloat16"):
        on_stand_in(dtype="bfloat16")


def test_tf32_is_said(on_stand_in, monkeypatch):
    monkeypatch.delenv("CUPY_TF32", raising=False)
    assert "TF32" not in on_stand_in().library
    monkeypatch.setenv("CUPY_TF32", "1")
    assert "TF32" in on_stand_in().library


def test_the_stand_in_says_what_it_is(on_stand_in):
    backend = on_stand_in()
    assert "stand-in" in backend.library
    assert "no GPU" in backend.library
    assert backend.device == "cuda:0"


# Threads: the current device is each thread's own, in CuPy as here.


@needs_compiler
def test_ops_and_pullbacks_run_in_any_thread_and_in_two_at_once(on_stand_in):
    backend = on_stand_in("float32")

    def begun(case):
        op, arrays, options = CASES[case]
        y, back = getattr(backend, op)(*(backend.asarray(a) for a in arrays), **options)
        return lambda: [backend.to_numpy(one) for one in (y, *back(y))]

    names = [name for name, (op, _, _) in CASES.items() if op not in ("embedding", "gather")]
    want = {name: begun(name)() for name in names}
    here = {name: begun(name) for name in names}
    wrong, errors = [], []

    def compare(order):
        try:
            for name in order:
                for found in (begun(name)(), here[name]()):
                    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found, want[name], strict=True)):
                        wrong.append(name)
        except BaseException as error:  # noqa: BLE001  shown below
            errors.append(error)

    everyone = [threading.Thread(target=compare, args=(order,)) for order in (names, names[::-1])]
    for one in everyone:
        one.start()
    for one in everyone:
        one.join(120)
    assert (wrong, errors) == ([], [])


# What CuPy has


def chains(tree):
    """Every a.b.c in a syntax tree that starts at the name cupy or at _RUNTIME (= cupy.cuda.runtime)."""
    for node in ast.walk(tree):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in ("cupy", "_RUNTIME") and parts:
            prefix = ["cuda", "runtime"] if node.id == "_RUNTIME" else []
            yield ".".join(prefix + parts[::-1])


@needs_cupy
def test_everything_that_is_used_exists_in_cupy():
    import cupy

    used = {chain for path in PACKAGE.glob("*.py") for chain in chains(ast.parse(path.read_text("utf-8")))}
    assert {"RawModule", "cuda.Device", "cuda.runtime.getDeviceCount", "cuda.compiler.CompileException"} <= used
    missing = []
    for chain in used:
        thing = cupy
        for part in chain.split("."):
            thing = getattr(thing, part, None)
        if thing is None:
            missing.append(chain)
    assert not missing, f"CuPy {cupy.__version__} has no {missing}"


@needs_cupy
def test_the_stand_in_offers_only_what_cupy_has():
    import cupy

    functions = [*stand_in.UFUNCS, *stand_in.FUNCTIONS]
    functions += [name for name in vars(stand_in.module()) if not name.startswith("__")]
    assert not [name for name in functions if not hasattr(cupy, name)]
    private = ("_a", "__weakref__")
    methods = [name for name in vars(stand_in.DeviceArray) if name not in private]
    assert not [name for name in methods if not hasattr(cupy.ndarray, name)]


# The kernels' source


def nvrtc():
    """NVIDIA's run-time compiler, which CuPy uses, from its pip package; it needs no GPU."""
    for package in ("cuda_nvrtc", "cu13"):
        with contextlib.suppress(ModuleNotFoundError):
            spec = importlib.util.find_spec(f"nvidia.{package}")
            for folder in spec.submodule_search_locations if spec else ():
                for path in sorted(Path(folder).glob("lib/libnvrtc.so.*")):
                    return ctypes.CDLL(str(path))
    return None


@pytest.mark.skipif(nvrtc() is None, reason="NVRTC (pip install nvidia-cuda-nvrtc-cu12) is not installed")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernels_compile(dtype):
    """To machine code (sm_75, the oldest that CUDA 12 and 13 share), so that the assembler sees them, too."""
    with imported_with(stand_in.module()):
        source = importlib.import_module("refbert_cupy.kernels").source(dtype)
    library, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    assert library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None) == 0
    status = library.nvrtcCompileProgram(program, 2, (ctypes.c_char_p * 2)(b"-std=c++17", b"-arch=sm_75"))

    def result(what):
        getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(library, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw

    log = result("ProgramLog").strip(b"\0 \n").decode()
    assert status == 0, log
    assert not log  # no warnings
    assert len(result("CUBIN")) > 0
    ptx = result("PTX").decode()
    for name in KERNELS:
        assert f".entry {name}(" in ptx
    assert ("cvt.f32.f16" in ptx) == (dtype == "float16")
    assert (".f64" in ptx) or dtype != "float64"


KERNELS = (
    "gelu_erf", "gelu_erf_back", "gelu_tanh", "gelu_tanh_back", "layer_norm", "layer_norm_back", "softmax",
    "softmax_back", "cross_entropy", "cross_entropy_back",
)  # fmt: skip


# The ops


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_op_on_the_stand_in(on_stand_in, case, dtype):
    """Host/device mixing, dispatch, kernels (run by the CPU), pullbacks, rounding. Not a GPU run."""
    check(on_stand_in(dtype=dtype), case, exact=dtype == "float64" and CASES[case][0] in SHARED)


def test_every_required_op_is_tried():
    methods = {*REQUIRED, "softmax"} - {"asarray", "to_numpy"}
    assert {op for op, _, _ in CASES.values()} == methods


def test_signatures_are_the_contract_s(on_stand_in):
    for name in REQUIRED:
        ours, theirs = inspect.signature(getattr(on_stand_in, name)), inspect.signature(getattr(Backend, name))
        assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
            (p.name, p.kind, p.default) for p in theirs.parameters.values()
        ], name


@needs_compiler
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_masked_key_counts_for_nothing_whatever_its_score(on_stand_in, value):
    backend = on_stand_in(dtype="float64")
    q = np.ones((1, 3, 2))
    k = np.ones((1, 3, 2))
    k[0, 1] = value
    p, _ = backend.attention_probabilities(
        backend.asarray(q), backend.asarray(k), mask=np.array([[1, 0, 1]]), heads=1, mask_value=-math.inf
    )
    np.testing.assert_array_equal(backend.to_numpy(p)[0, 0], np.tile([0.5, 0, 0.5], (3, 1)))


@needs_compiler
def test_float16_does_not_overflow_inside(on_stand_in):
    """Squares, sums and exponentials beyond 65504 in between, results within."""
    backend = on_stand_in(dtype="float16")
    x = np.array([[60000.0, -60000, 30000, 0] * 8])
    y, _ = backend.layer_norm(backend.asarray(x), *(backend.asarray(a) for a in (np.ones(32), np.zeros(32))), eps=1e-12)
    reference, _ = ops.layer_norm(x.astype(np.float16).astype(float), np.ones(32), np.zeros(32), eps=1e-12)
    np.testing.assert_allclose(backend.to_numpy(y), reference, rtol=2**-11 + 1e-5)  # stored once; float32 inside
    norm = backend.global_norm({"a": backend.asarray(x)})
    assert norm == pytest.approx(np.linalg.norm(x.astype(np.float16).astype(float)), rel=1e-5)
    z, dz = backend.cross_entropy(backend.asarray(x), np.array([0]), denominator=1)
    assert backend.to_numpy(z) == pytest.approx(math.log(8), rel=2**-11)
    assert np.isfinite(backend.to_numpy(dz(backend.asarray(np.ones(())))[0])).all()


@needs_compiler
@pytest.mark.parametrize(
    ("op", "arrays", "options", "error"),
    BAD_ARGUMENTS,
)
def test_bad_arguments_raise_what_the_reference_raises(on_stand_in, op, arrays, options, error):
    backend = on_stand_in()
    with pytest.raises(error):
        getattr(ops, op)(*(np.ones(shape) for shape in arrays), **options)
    with pytest.raises(error):
        getattr(backend, op)(*(backend.asarray(np.ones(shape)) for shape in arrays), **options)


# Optimizers


@pytest.mark.parametrize("rule", ["bert_adam", "adamw", "lamb"])
def test_updates_are_the_reference_s(on_stand_in, rule):
    rng = np.random.default_rng(0)
    p, g, m = (rng.standard_normal((5, 4)) for _ in range(3))
    v = rng.random((5, 4))
    # NumPy scalars, as a schedule may produce, must not reach the device arrays
    options = {name: np.float64(value) for name, value in RATES.items()}
    reference = getattr(ops, rule)(p, 0.3 * g, m, v, **options, **({} if rule == "bert_adam" else {"step": 3}))
    options |= {"scale": np.float64(0.3), "step": np.int64(3)}
    backend = on_stand_in(dtype="float64")
    got = backend.update(rule, *(backend.asarray(a) for a in (p, g, m, v)), **options)
    for ours, theirs in zip(got, reference, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(ours), theirs)
    narrow = on_stand_in(dtype="float32")
    for ours in narrow.update(rule, *(narrow.asarray(a) for a in (p, g, m, v)), **options):
        assert ours.dtype == np.float32
    with pytest.raises(NotImplementedError, match="sgd"):
        backend.update("sgd", *(backend.asarray(a) for a in (p, g, m, v)), **options)


def test_the_norm_is_the_reference_s(on_stand_in):
    rng = np.random.default_rng(0)
    gradients = {"a": rng.standard_normal((5, 4)), "b": rng.standard_normal(3)}
    backend = on_stand_in(dtype="float64")
    device = {name: backend.asarray(g) for name, g in gradients.items()}
    assert backend.global_norm(device) == ops.clip_by_global_norm(gradients, max_norm=1.0)[1]
    assert backend.global_norm({}) == 0.0
    assert backend.global_norm({"a": backend.asarray(np.array([np.inf, 1.0]))}) == np.inf


# The whole model


@needs_compiler
@pytest.mark.parametrize("profile", ["hf", "google"])
def test_the_spec_on_the_stand_in(on_stand_in, profile):
    """Every head's loss and gradients through the plumbing, dropout included. Not a GPU run.

    The bound: about 40 roundings in a row per layer, each growing by sums of at most 62 terms (B·S rows, 31 words,
    20 units, 3 layers deep with the head): 40 · 62 · 3 · 2⁻⁵³ < 2⁻⁴⁰; the same count in float32 ends at 2⁻¹¹.
    """
    assert model_difference(on_stand_in(dtype="float64"), profile) < 2**-40
    assert model_difference(on_stand_in(dtype="float32"), profile) < 2**-11


# The stand-in itself must be able to fail


def test_the_stand_in_refuses_what_cupy_refuses():
    with stand_in.working():
        x = stand_in._ones((2, 2), "float32")
        for mixing in (
            lambda: np.asarray(x),
            lambda: x + np.ones((2, 2)),
            lambda: np.ones((2, 2)) * x,
            lambda: np.float64(2) * x,
            lambda: np.where(np.ones((2, 2), bool), x, 0.0),
            lambda: np.cumsum(x),
            lambda: np.arctan(x),
        ):
            with pytest.raises(TypeError):
                mixing()
        with pytest.raises(ValueError, match="zero-size"):
            x[:0].max(axis=-1)
    with pytest.raises(AssertionError, match="outside"):
        x + x


RACE = """
extern "C" __global__ void race(const float* x, float* y, long long n) {
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    %s
    y[threadIdx.x] = s[(threadIdx.x + 1) %% n];
}
"""


@needs_compiler
@pytest.mark.parametrize(
    ("middle", "complaint"),
    [
        ("__syncthreads();", None),
        ("", "missing barrier"),
        ("if (threadIdx.x < 3) __syncthreads();", "a barrier that not all threads reach"),
        ("__syncthreads(); y[n] = 1;", "writes outside"),
        ("__syncthreads(); ((float*)x)[0] = 5;", "writes to its input"),
    ],
)
def test_the_stand_in_catches_wrong_kernels(on_stand_in, middle, complaint):
    code = "typedef float scalar;\ntypedef float wide;\n" + RACE % middle
    with stand_in.working():
        x = stand_in._asarray(np.arange(8, dtype=np.float32))
        y = stand_in._empty(8, np.float32)
        launch = stand_in.RawModule(code=code).get_function("race")
        if complaint is None:
            launch((1,), (8,), (x, y, np.int64(8)))
            np.testing.assert_array_equal(stand_in._asnumpy(y), np.roll(np.arange(8), -1))
        else:
            with pytest.raises(AssertionError, match=complaint):
                launch((1,), (8,), (x, y, np.int64(8)))
        for wrong in ((x, y, 8), (x, y), (y, stand_in._ones(8, "float64"), np.int64(8))):
            with pytest.raises(TypeError):
                launch((1,), (8,), wrong)


# On a GPU


@pytest.fixture
def on_gpu():
    from refbert_cupy import CupyBackend

    return CupyBackend


gpu_only = [pytest.mark.gpu, pytest.mark.skipif(not gpu(), reason="no CUDA device")]


class TestOnTheGpu:
    pytestmark = gpu_only

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("case", CASES)
    def test_op(self, on_gpu, case, dtype):
        check(on_gpu(dtype=dtype), case)

    @pytest.mark.parametrize("profile", ["hf", "google"])
    def test_the_spec(self, on_gpu, profile):
        assert model_difference(on_gpu(dtype="float64"), profile) < 2**-40
        assert model_difference(on_gpu(dtype="float32"), profile) < 2**-11

    def test_the_library_line(self, on_gpu):
        assert "stand-in" not in on_gpu().library
        assert on_gpu().library.startswith("CuPy ")

    @pytest.mark.parametrize("rule", ["bert_adam", "adamw", "lamb"])
    def test_updates(self, on_gpu, rule):
        rng = np.random.default_rng(0)
        arrays = [rng.standard_normal((5, 4)) for _ in range(3)] + [rng.random((5, 4))]
        options = RATES | ({} if rule == "bert_adam" else {"step": 3})
        backend = on_gpu(dtype="float64")
        got = backend.update(rule, *(backend.asarray(a) for a in arrays), scale=1.0, step=3, **RATES)
        for ours, reference in zip(got, getattr(ops, rule)(*arrays, **options), strict=True):
            # about 20 roundings and, in LAMB, norms over 20 entries
            np.testing.assert_allclose(backend.to_numpy(ours), reference, rtol=40 * 2**-53, atol=40 * 2**-53)

"""Finding backends: names, classes, and what is said when one cannot be had."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib import metadata

import pytest
from hostile import assert_one_line

from refbert.backend import REQUIRED, missing_ops, registry
from refbert.backend.reference import ReferenceBackend
from refbert.errors import BackendError, BackendUnavailable, UnknownBackend, Unsupported


def module(tmp_path, monkeypatch, name, source):
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(str(tmp_path))


def test_our_own_come_first():
    assert registry.names()[:5] == ("reference", "numpy", "torch", "cupy", "array-api")


def test_our_own_are_what_the_package_declares():
    """And so in the same form that a third party's package declares its own."""
    declared = {
        entry.name: entry.value for entry in metadata.distribution("refbert").entry_points.select(group=registry.GROUP)
    }
    assert declared == registry.OWN


def test_by_name_and_by_class():
    assert isinstance(registry.create("reference"), ReferenceBackend)
    assert isinstance(registry.create("refbert.backend.reference:ReferenceBackend"), ReferenceBackend)


@pytest.mark.parametrize("name", ["reference", "numpy", "torch"])
def test_the_contract_is_complete(name):
    backend = registry.create(name)
    assert missing_ops(backend) == ()
    assert backend.name == name
    assert backend.dtype == backend.dtypes[0]
    for attribute in ("library", "device"):
        assert getattr(backend, attribute)


def test_a_class_without_ops_is_told_which(tmp_path, monkeypatch):
    made = "class Bare:\n    dtype = 'float32'\n    def __init__(self, dtype=None, device=None): pass\n"
    held = "    def asarray(self, x): return x\n    def to_numpy(self, x): return x\n"
    module(tmp_path, monkeypatch, "bare_backend", made + held)
    assert set(missing_ops(registry.create("bare_backend:Bare"))) == set(REQUIRED) - {"asarray", "to_numpy"}


def installed(tmp_path, monkeypatch, package, name, target):
    """A package that is installed, as far as its paperwork goes."""
    place = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (place / "entry_points.txt").write_text(f"[refbert.backends]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_a_plugin_by_the_name_of_our_own(tmp_path, monkeypatch, name):
    """Neither shadows the other. The default alone is made without a look at what is installed."""
    installed(tmp_path, monkeypatch, "refbert-mine", name, "mine:Mine")
    with pytest.raises(BackendError, match=f'called "{name}": {registry.OWN[name]} and mine:Mine;') as caught:
        registry.names()
    assert_one_line(caught.value)
    with pytest.raises(BackendError, match="mine:Mine"):
        registry.create("torch")
    assert registry.create(registry.DEFAULT).name == "numpy"


def test_two_plugins_of_one_name(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch, "refbert-a", "mine", "a:Mine")
    installed(tmp_path, monkeypatch, "refbert-b", "mine", "b:Mine")
    with pytest.raises(BackendError, match='called "mine": [ab]:Mine and [ab]:Mine;'):
        registry.create("mine")


def test_a_plugin_that_is_found_twice_is_one(tmp_path, monkeypatch):
    for package in ("refbert-a", "refbert-a-old"):
        installed(tmp_path, monkeypatch, package, "mine", "mine:Mine")
    assert registry.names().count("mine") == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nunpy", 'did you mean "numpy"'),
        ("tpu", 'unknown backend "tpu". Installed: reference, numpy, torch, cupy, array-api'),
        ("no_such_module_here:Backend", 'no module "no_such_module_here"'),
        ("refbert.backend.reference:NoSuchClass", 'no "NoSuchClass"'),
        (":Backend", 'unknown backend ":Backend".* package.module:Class'),
        ("refbert.backend.reference:", 'unknown backend "refbert.backend.reference:".* package.module:Class'),
        (":", 'unknown backend ":".* package.module:Class'),
    ],
)
def test_unknown(name, says):
    with pytest.raises(UnknownBackend, match=says):
        registry.create(name)


class Simulator(ReferenceBackend):
    argument = "the name of a simulator"

    def __init__(self, dtype=None, device=None, *, argument=None):
        super().__init__(dtype, device)
        self.given = argument


def test_a_backend_with_an_argument(tmp_path, monkeypatch):
    """What follows an installed backend's name is its own; the others have classes of their module there."""
    installed(tmp_path, monkeypatch, "refbert-simulator", "simulator", f"{__name__}:Simulator")
    for name, given in (("simulator:a b:c", "a b:c"), ("simulator:", ""), ("simulator", None)):
        assert registry.create(name).given == given
    assert registry.create(f"{__name__}:Simulator").given is None
    with pytest.raises(Unsupported, match='"simulator:a" does not offer dtype "float16"'):
        registry.create("simulator:a", dtype="float16")
    installed(tmp_path, monkeypatch, "refbert-plain", "test_registry", "refbert.backend.reference:ReferenceBackend")
    assert isinstance(registry.create(f"{__name__}:Simulator"), Simulator)


def test_a_dtype_or_device_that_is_not_offered():
    with pytest.raises(Unsupported, match="bfloat16.*float64, float32"):
        registry.create("reference", dtype="bfloat16")
    with pytest.raises(Unsupported, match='"cpu" only'):
        registry.create("reference", device="cuda")
    for name in ("reference", "numpy", "torch"):
        with pytest.raises(Unsupported, match="a device has a name"):
            registry.create(name, device="")


def test_a_device_that_is_not_here():
    import torch

    if torch.cuda.is_available():
        index = torch.cuda.device_count()
        with pytest.raises(BackendUnavailable, match=f"no CUDA device {index}"):
            registry.create("torch", device=f"cuda:{index}")
    else:
        with pytest.raises(BackendUnavailable, match="no CUDA device"):
            registry.create("torch", device="cuda")
    with pytest.raises(BackendUnavailable, match='"banana"'):
        registry.create("torch", device="banana")


def test_a_missing_library_is_unavailable_and_named(tmp_path, monkeypatch):
    module(tmp_path, monkeypatch, "needs_library", "import a_library_that_nobody_has\nclass B: pass")
    with pytest.raises(BackendUnavailable, match="a_library_that_nobody_has"):
        registry.create("needs_library:B")


def test_a_constructor_that_refuses_is_unavailable(tmp_path, monkeypatch):
    source = """
        class B:
            def __init__(self, dtype=None, device=None):
                raise RuntimeError("no accelerator found;\\n plug one in")
        """
    module(tmp_path, monkeypatch, "needs_device", source)
    with pytest.raises(BackendUnavailable, match="no accelerator found; plug one in"):
        registry.create("needs_device:B")


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("not a word")


@pytest.mark.parametrize("error", [BackendUnavailable(""), BackendUnavailable(" \n\t"), ValueError(), Mute()])
def test_a_constructor_that_does_not_say_why(tmp_path, monkeypatch, error):
    module(
        tmp_path, monkeypatch, "mute", "class B:\n    def __init__(self, dtype=None, device=None):\n        raise ERROR"
    )
    registry.backend_class("mute:B").__init__.__globals__["ERROR"] = error
    with pytest.raises(BackendError, match=type(error).__name__) as caught:
        registry.create("mute:B")
    assert_one_line(caught.value)


def test_a_plugin_that_breaks_on_import_is_an_error_not_a_traceback(tmp_path, monkeypatch):
    module(tmp_path, monkeypatch, "breaks", "1 / 0")
    with pytest.raises(BackendError, match="importing breaks failed .ZeroDivisionError: division by zero"):
        registry.create("breaks:B")


def test_without_torch_the_install_command_is_given():
    code = """
        import sys
        sys.modules["torch"] = None
        from refbert.backend import registry
        from refbert.errors import BackendUnavailable
        try:
            registry.create("torch")
        except BackendUnavailable as error:
            print(error)
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert 'pip install "refbert[torch]"' in done.stdout

"""The plugin contract: its versions, what it lists, and that nobody reads more from a backend."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pytest
from hostile import assert_one_line

import refbert
from refbert import ops
from refbert.backend import (
    ATTRIBUTES,
    OPTIONAL,
    OPTIONAL_ATTRIBUTES,
    OPTIONAL_PROTOCOLS,
    REQUIRED,
    REQUIRED_BY_VERSION,
    TRAINING,
    VERSION,
    Backend,
    KeepMasks,
    ModelChoices,
    TokenBatch,
    contract_note,
    contract_of,
    methods,
    registry,
    require_updates,
    require_whole,
    says_contract,
)
from refbert.backend.reference import ReferenceBackend
from refbert.errors import BackendError, Unsupported
from refbert.spec.choices import Choices
from refbert.training import Optimizer

ROOT = Path(__file__).parents[1]


def test_the_versions_are_frozen():
    """To change one of these is to break plugins: add a version instead."""
    first = """asarray to_numpy add reshape transpose embedding gather linear layer_norm gelu relu tanh
        attention_probabilities attention dropout cross_entropy mean_squared_error"""
    assert dict(REQUIRED_BY_VERSION) == {1: tuple(first.split())}


def test_the_newest_version_is_the_protocol():
    assert methods(Backend) == REQUIRED == REQUIRED_BY_VERSION[VERSION]
    assert set(TRAINING) <= set(REQUIRED)
    assert not set(REQUIRED) & set(OPTIONAL)
    assert ATTRIBUTES == ("name", "library", "dtype", "device", "dtypes")
    assert OPTIONAL_ATTRIBUTES == ("contract", "gradients", "arithmetic", "threads", "compiles", "argument")


def members(protocol):
    return [member for name, member in vars(protocol).items() if not name.startswith("_") and callable(member)]


@pytest.mark.parametrize("protocol", [Backend, *OPTIONAL_PROTOCOLS], ids=lambda p: p.__name__)
def test_no_argument_is_any(protocol):
    for member in members(protocol):
        assert inspect.getdoc(member), member
        for name, annotation in member.__annotations__.items():
            assert "Any" not in str(annotation), (member.__qualname__, name)
    assert inspect.getdoc(protocol).startswith("Required" if protocol is Backend else "Optional")


def test_what_objective_receives_is_what_the_types_say():
    """`refbert.Batch`, `Choices` and `Dropout` have what the contract's types list, and `Choices` has no more."""
    assert list(ModelChoices.__annotations__) == [f.name for f in dataclasses.fields(Choices)]
    batch = refbert.Batch([[1, 2]])
    for name in TokenBatch.__annotations__:
        assert getattr(batch, name).dtype == np.int64
    assert list(inspect.signature(refbert.Dropout.keep).parameters) == list(
        inspect.signature(KeepMasks.keep).parameters
    )


class Speaks(ReferenceBackend):
    contract = 2


class Mumbles(ReferenceBackend):
    contract = "1"


class Learns(ReferenceBackend):
    """Whose version is only known once it is made."""

    def __init__(self, dtype=None, device=None):
        super().__init__(dtype, device)
        self.contract = 3


@pytest.mark.parametrize(
    ("cls", "says"),
    [
        (Speaks, "speaks contract 2, but this refbert speaks contract 1"),
        (Learns, "speaks contract 3, but this refbert speaks contract 1"),
        (Mumbles, "contract must be a whole number, as 1 is, not '1'"),
    ],
)
def test_a_version_that_is_not_known(cls, says):
    with pytest.raises(BackendError, match=says) as caught:
        registry.create(f"{__name__}:{cls.__name__}")
    assert_one_line(caught.value)
    with pytest.raises(BackendError, match=says):
        require_whole(cls())


def test_one_that_says_nothing_is_taken_as_1():
    class Silent:
        pass

    assert contract_of(Silent()) == 1
    assert not says_contract(Silent())
    assert contract_note(1, said=False) == "says no contract version: taken as 1"
    assert says_contract(ReferenceBackend())


# What holds a backend is called one of these; so is what ends with one of them, as `model.backend` does.
_HELD = {"backend", "_backend", "ops", "target"}


def reads():
    """(file, line, name) of every read of a name, by getattr, hasattr or a dot, from what is called like a backend."""
    for folder in ("refbert", "conformance", "inspection", "audit"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[on, ast.Constant(value=name), *_]):
                        pass
                    case ast.Attribute(value=on, attr=name) if ast.unparse(on).endswith("backend"):
                        pass  # what is called ops may be refbert.ops as well
                    case _:
                        continue
                if ast.unparse(on).split(".")[-1] in _HELD:
                    yield file.relative_to(ROOT).as_posix(), node.lineno, name


def test_what_is_read_off_a_backend_is_in_the_contract():
    found = list(reads())
    assert {"encoder_layer", "arithmetic", "compiles", "contract", "cast", "recomputed"} <= {
        name for _, _, name in found
    }
    # A report is called backend, and so is a module; what is in another process has a connection to it.
    others = {"get", "properties", "connection"}
    listed = {*ATTRIBUTES, *OPTIONAL_ATTRIBUTES, *REQUIRED, *OPTIONAL, *others}
    assert [(file, line, name) for file, line, name in found if name not in listed] == []


class Former(ReferenceBackend):
    """Trained with before there were versions."""

    update = global_norm = None
    bert_adam = staticmethod(ops.bert_adam)
    adamw = staticmethod(ops.adamw)
    lamb = staticmethod(ops.lamb)
    clip_by_global_norm = staticmethod(ops.clip_by_global_norm)


class Untrained(ReferenceBackend):
    global_norm = None


def small(backend):
    config = refbert.BertConfig(
        vocab_size=20, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=4
    )
    made = refbert.from_config(config, heads=("masked_lm",), seed=1)
    return refbert.Model(config, made.state_dict(), backend=backend, heads=("masked_lm",))


def test_a_backend_of_before_contract_1_goes_on_working_but_for_training():
    model, reference = small(Former()), small(ReferenceBackend())
    batch, labels = refbert.Batch([[1, 2, 3]]), {"labels": np.array([[4, -100, 5]])}
    assert np.array_equal(model(batch).last_hidden_state, reference(batch).last_hidden_state)
    (loss, gradients), (want, wanted) = (m.loss_and_gradients(batch, labels) for m in (model, reference))
    assert loss == want
    assert all(np.array_equal(gradients[name], wanted[name]) for name in wanted)
    before = model.state_dict()
    with pytest.raises(
        Unsupported, match="has bert_adam, adamw, lamb, clip_by_global_norm, which contract 1"
    ) as caught:
        model.train_step(batch, labels, Optimizer(), lr=0.1)
    assert_one_line(caught.value)
    assert all(np.array_equal(model.state_dict()[name], x) for name, x in before.items())


def test_what_a_backend_lacks_for_training_is_named():
    with pytest.raises(Unsupported, match='"reference" cannot train: it lacks global_norm$'):
        require_updates(Untrained())
    require_updates(ReferenceBackend())


def test_conform_says_what_to_change():
    pytest.importorskip("hypothesis")
    from refbert_conformance.engine import runner
    from refbert_conformance.engine.subject import Subject
    from refbert_conformance.properties.table import selected

    for id in ("training/adamw/accuracy", "training/global_norm/calls", "training/lamb/trajectory"):
        (property,) = selected([id])
        found = runner.run(property, Subject("former", Former), effort="quick")
        assert found.outcome == "unsupported"
        assert "it has bert_adam, adamw, lamb, clip_by_global_norm, which contract 1 replaces" in found.message


class OneRule(ReferenceBackend):
    """As small as a backend for training may be."""

    @staticmethod
    def update(rule, *arrays, **options):
        if rule != "adamw":
            raise NotImplementedError
        return ReferenceBackend.update(rule, *arrays, **options)


def test_a_rule_that_a_backend_does_not_have_is_unsupported():
    pytest.importorskip("hypothesis")
    from refbert_conformance.engine import runner
    from refbert_conformance.engine.subject import Subject
    from refbert_conformance.properties.table import selected

    outcomes = {
        "contract/update/errors": "passed",
        "training/adamw/first call": "passed",
        "training/bert_adam/accuracy": "unsupported",
        "training/lamb/trajectory": "unsupported",
    }
    for property in selected(list(outcomes)):
        found = runner.run(property, Subject("one rule", OneRule), effort="quick")
        assert found.outcome == outcomes[property.id], found.message
    with pytest.raises(Unsupported, match='"reference" does not offer the optimizer "lamb"'):
        Optimizer(rule="lamb").step(OneRule(), {"w": np.ones(2)}, {"w": np.ones(2)}, lr=0.1)


def test_softmax_is_optional():
    """The spec never calls it."""

    class Bare(ReferenceBackend):
        softmax = None

    model, batch = small(Bare()), refbert.Batch([[1, 2, 3]])
    assert np.array_equal(model(batch).last_hidden_state, small(ReferenceBackend())(batch).last_hidden_state)
    model.train_step(batch, {"labels": np.array([[4, -100, 5]])}, Optimizer(), lr=0.1)


@pytest.mark.parametrize("name", [*REQUIRED, *OPTIONAL])
def test_every_signature_is_looked_at(name):
    pytest.importorskip("hypothesis")
    from refbert_conformance.engine.measure import Failure
    from refbert_conformance.engine.subject import Subject
    from refbert_conformance.properties.table import selected

    (property,) = selected(["contract/backend/signatures"])
    subject = Subject("misfit", lambda: type("Misfit", (ReferenceBackend,), {})())
    property.check(subject, None, None)
    setattr(type(subject.backend), name, lambda self, *, nothing: None)
    with pytest.raises(Failure, match=rf"{name}\(.*cannot be called as the contract does"):
        property.check(subject, None, None)

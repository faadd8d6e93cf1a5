"""The suite's own properties, on the examples of a kit and answers from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refbert.backend import REQUIRED, TRAINING, Host, host_dtype
from refbert.errors import InputError
from refbert_conformance.engine import runner
from refbert_conformance.engine.measure import Failure, Record
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.kit.asking import OPS, Asking, Call, digest
from refbert_conformance.kit.files import differing, reasons
from refbert_conformance.kit.recording import left_out
from refbert_conformance.process.facts import described, versions
from refbert_conformance.process.records import Row, row_of
from refbert_conformance.process.supervisor import Run

_NAMED = 5  # of what is missing, so many in a message


class _Missing(Exception):
    """There is no answer to a call."""


class Judge:
    """A kit's manifest and results for it. missing: outputs that the results lack."""

    def __init__(self, manifest: Mapping[str, Any], results: Mapping[str, Host], *, gradients: bool = True) -> None:
        self.manifest, self.results, self.gradients = manifest, results, gradients
        cases = manifest["cases"]
        self.outputs = {tensor: output for case in cases for tensor, output in case["outputs"].items()}
        unknown = sorted(set(results).difference(self.outputs))
        if unknown:
            raise InputError(
                f"the results have {len(unknown)} that the kit does not ask for, {unknown[0]} the first; it asks for "
                f"{_few(list(self.outputs))}"
            )
        self._tensors = {
            (case["digest"], case["cotangent_digest"] if output != "y" else None, output): tensor
            for case in cases for tensor in case["outputs"] for output in (tensor.rpartition("/")[2],)
        }  # fmt: skip
        answered = {case["op"] for case in cases if not set(case["outputs"]).isdisjoint(results)}
        wanted = {case["op"] for case in cases}
        required = set(REQUIRED).difference(() if gradients else TRAINING)
        # An optional op without any answer is one that the target does not have.
        self.offers = [op for op in OPS if op in required or op in answered or op not in wanted]
        asked = [case for case in cases if case["op"] in self.offers]
        self.missing = [
            tensor for case in asked for tensor in case["outputs"]
            if tensor not in results and (gradients or tensor.endswith("/y"))
        ]  # fmt: skip
        self._foreign = False
        self._looked_at: dict[str, None] = {}  # cases of the example that is being tried
        self._blamed: list[str] = []  # cases of the one that failed

    def give(self, call: Call, dy: Host | None, name: str) -> Host:
        """What the results have for it."""
        tensor = self._tensors.get((call.digest, None if dy is None else digest(dy), name))
        if tensor is None:
            self._foreign = True
            raise _Missing
        self._looked_at[tensor.rpartition("/")[0]] = None
        x = self.results.get(tensor)
        if x is None:
            raise _Missing
        shape, want = tuple(self.outputs[tensor]["shape"]), np.dtype(host_dtype(self.manifest["dtype"]))
        if x.shape != shape:
            raise Failure(f"{tensor} has shape {x.shape}, expected {shape}")
        if x.dtype == np.float16 and self.manifest["dtype"] == "float16":
            x = x.astype(want)
        if x.dtype != want:
            raise Failure(f"{tensor} is {x.dtype}, but results of {self.manifest['dtype']} are {want}")
        return x

    def run(self, properties: Sequence[Property], name: str) -> Run:
        """What came of the properties; raises `InputError` if the kit is not one for them."""
        told = self.manifest
        subject = Subject(name, lambda: Asking(
            name, told["dtype"], told["arithmetic"], self.give, offers=self.offers, gradients=self.gradients
        ))  # fmt: skip
        absent = [p.id for p in properties if not left_out(p) and not told["properties"].get(p.id)]
        if absent:
            raise InputError(f"the kit has nothing of {absent[0]}: {differing(told)}")
        rows = {p.id: _unseen(p) if left_out(p) else self._row(p, subject) for p in properties}
        unseen = "; ".join(f"{len(ids)} properties ({why})" for why, ids in reasons(properties).items())
        note = f"judged from a record of {len(told['cases']):,} cases" + (f"; not in it: {unseen}" if unseen else "")
        return Run({**described(subject), "note": note}, versions(), ["asarray", "to_numpy", *self.offers], rows)

    def _row(self, property: Property, subject: Subject) -> Row:
        lacking = False

        def check(subject: Subject, example: Any, record: Record) -> None:
            nonlocal lacking
            self._looked_at.clear()
            try:
                property.check(subject, example, record)
            except _Missing:
                lacking = True
            except Exception:
                self._blamed = list(self._looked_at)
                raise

        # Nothing is drawn, and nothing made smaller: the kit has no other cases.
        examples = self.manifest["properties"].get(property.id, ())
        fixed = replace(property, check=check, draw=None, corpus=examples, larger=(), largest=())
        result = runner.run(fixed, subject, effort="quick")
        if self._foreign:
            raise InputError(f"the kit has no case for a call of {property.id}: {differing(self.manifest)}")
        row = row_of(result)
        if row.outcome == "failed":
            cases = f"case{'s' if len(self._blamed) > 1 else ''} {_few(self._blamed)}"
            return replace(row, message=f"{cases}: {row.message}")
        if row.outcome == "passed" and lacking:
            own = [tensor for tensor, output in self.outputs.items() if property.id in output["properties"]]
            absent = [tensor for tensor in own if tensor not in self.results]
            said = f"{len(absent)} of {len(own)} results are missing: {_few(absent)}"
            return replace(row, outcome="inconclusive", message=said)
        return row


def _unseen(p: Property) -> Row:
    return Row(
        id=p.id, level=p.level, op=p.op, says=p.says, outcome="unavailable", examples=0, seconds=0.0, rho=None,
        ulps=None, unchecked=0.0, message=left_out(p), waived=None, failure=None,
    )  # fmt: skip


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:_NAMED], *(["…"] if len(names) > _NAMED else [])])

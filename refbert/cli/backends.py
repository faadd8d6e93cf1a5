"""``refbert backends``: every installed backend, and whether it can run here."""

from __future__ import annotations

from typing import Any

import click

from refbert.backend import contract_note, contract_of, missing_ops, registry, says_contract
from refbert.cli import options
from refbert.cli.output import print_json
from refbert.cli.tables import Table, print_table
from refbert.errors import BackendError


def status(name: str, device: str | None = None) -> dict[str, Any]:
    """Try to make the backend, and say what came of it, as plain data: ``reason`` is why it is not available.

    contract: the version of the plugin contract that it speaks; contract_said: whether it says so itself.
    """
    out: dict[str, Any] = {
        "name": name, "available": False, "contract": None, "contract_said": False, "library": "", "device": "",
        "dtypes": (), "missing": (), "reason": "",
    }  # fmt: skip
    try:
        backend = registry.create(name, device=device)
    except BackendError as error:
        return out | {"reason": str(error).removeprefix(f'backend "{name}" is unavailable: ')}
    declared = {what: str(getattr(backend, what, "")) for what in ("library", "device")}
    return out | declared | {
        "available": True, "contract": contract_of(backend), "contract_said": says_contract(backend),
        "dtypes": tuple(getattr(backend, "dtypes", ())), "missing": missing_ops(backend),
    }  # fmt: skip


@click.command()
@click.option("--device", help='Try the backends on this device ("cpu", "cuda", …); default: each one\'s own.')
@options.json_option(each="backend")
def backends(device: str | None, as_json: bool) -> None:
    """List every backend: version, device, dtypes; available, or why not."""
    found = [status(name, device) for name in registry.names()]
    if as_json:
        for one in found:
            print_json(one)
        return
    table = Table(None, ("backend", "id"), ("available", "id"), "contract", "library", "device", "dtypes", "note")
    for one in found:
        notes = [one["reason"]] if one["reason"] else []
        if one["available"] and not one["contract_said"]:
            notes.append(contract_note(one["contract"], said=False))
        if one["missing"]:
            notes.append(f"lacks {', '.join(one['missing'])}")
        available, contract = "yes" if one["available"] else "no", str(one["contract"] or "")
        dtypes, note = " ".join(one["dtypes"]), "; ".join(notes)
        table.add_row(one["name"], available, contract, one["library"], one["device"], dtypes, note)
    print_table(table)

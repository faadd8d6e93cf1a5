"""``refbert backends``: every installed backend, and whether it can run here."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import click

from refbert.backend import contract_note, contract_of, missing_ops, registry, says_contract
from refbert.cli import options
from refbert.cli.output import print_json
from refbert.cli.tables import Table, print_table
from refbert.errors import BackendError


@dataclass(frozen=True)
class Status:
    """One backend: what it is where it is available, ``reason`` where it is not.

    contract: the version of the plugin contract that it speaks; contract_said: whether it says so itself.
    """

    name: str
    available: bool
    contract: int | None = None
    contract_said: bool = False
    library: str = ""
    device: str = ""
    dtypes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    reason: str = ""


def status(name: str, device: str | None = None) -> Status:
    """Try to make the backend, and say what came of it."""
    try:
        backend = registry.create(name, device=device)
    except BackendError as error:
        return Status(name, available=False, reason=str(error).removeprefix(f'backend "{name}" is unavailable: '))
    return Status(
        name,
        available=True,
        contract=contract_of(backend),
        contract_said=says_contract(backend),
        library=str(getattr(backend, "library", "")),
        device=str(getattr(backend, "device", "")),
        dtypes=tuple(getattr(backend, "dtypes", ())),
        missing=missing_ops(backend),
    )


@click.command()
@click.option("--device", help='Try the backends on this device ("cpu", "cuda", …); default: each one\'s own.')
@options.json_option(each="backend")
def backends(device: str | None, as_json: bool) -> None:
    """List every backend: version, device, dtypes; available, or why not."""
    found = [status(name, device) for name in registry.names()]
    if as_json:
        for one in found:
            print_json(asdict(one))
        return
    table = Table()
    for column in ("backend", "available"):
        table.add_column(column, "id")
    for column in ("contract", "library", "device", "dtypes", "note"):
        table.add_column(column)
    for one in found:
        notes = [one.reason] if one.reason else []
        if one.contract is not None and not one.contract_said:
            notes.append(contract_note(one.contract, said=False))
        if one.missing:
            notes.append(f"lacks {', '.join(one.missing)}")
        table.add_row(
            one.name,
            "yes" if one.available else "no",
            str(one.contract or ""),
            one.library,
            one.device,
            " ".join(one.dtypes),
            "; ".join(notes),
        )
    print_table(table)

"""`espalier devices`: what programs can run on here."""

from __future__ import annotations

from rich.table import Table

from ..errors import DeviceError
from .shared import console


def devices_command() -> None:
    """List the installed devices and their options."""
    from ..runtime import device

    table = Table("device", "options")
    for name in device.names():
        try:
            text = device.text_option(name)
            shown = f"{name}:{text.upper()}" if text else name
            table.add_row(shown, ", ".join(device.options_of(name)) or "none")
        except DeviceError as error:
            table.add_row(name, f"[yellow]not usable: {error}[/]")
    console.print(table)

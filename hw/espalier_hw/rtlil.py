"""Amaranth to RTLIL with identical modules shared.

Amaranth emits one module per instance: 256 lanes are 256 equal modules. Merging them makes Verilog,
simulation builds and synthesis several times shorter and keeps the hierarchy readable.
"""

from __future__ import annotations

import re

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

_MODULE = re.compile(r"^module (\\\S+)\n(.*?)^end\n", re.MULTILINE | re.DOTALL)
_HEADER = 'attribute \\generator "Amaranth"\n'
_TOP = "attribute \\top 1\n"
_PORT = re.compile(r"^(\s+wire width \d+ (?:input|output)) \d+ ", re.MULTILINE)
_CELL = re.compile(r"^(\s+cell )(\\\S+)( )", re.MULTILINE)
_NUMBERED = re.compile(r"\\port\$(\d+)\$(\d+)")
_CONNECT = re.compile(r"^(\s+connect )(\S+)( .*)$")


def convert(component: Elaboratable, name: str = "top", platform: object = None) -> str:
    """RTLIL of `component`, a component with a signature, with equal modules merged."""
    return share_modules(rtlil.convert(component, name=name, emit_src=False, platform=platform))


def share_modules(text: str) -> str:
    """Merge modules whose bodies are equal, from the leaves up, keeping the first of each kind."""
    bodies = _number_ports(dict(_MODULE.findall(text)))
    top = next(iter(bodies))
    while True:
        first: dict[str, str] = {}
        kept = {name: first.setdefault(_meaning(body), name) for name, body in bodies.items()}
        merged = {name: other for name, other in kept.items() if other != name}
        if not merged:
            break
        bodies = {
            name: _redirect(body, merged) for name, body in bodies.items() if name not in merged
        }
    return "".join(
        _HEADER + (_TOP if name == top else "") + f"module {name}\n{body}end\n\n"
        for name, body in bodies.items()
    )


def _number_ports(bodies: dict[str, str]) -> dict[str, str]:
    """Ports without a name of their own are numbered through the whole design: number them through
    each module, or no two modules that have one are ever equal.
    """
    names = {}
    for module, body in bodies.items():
        found = sorted({(int(a), int(b)) for a, b in _NUMBERED.findall(body)})
        names[module] = {f"\\port${a}${b}": f"\\port${n}" for n, (a, b) in enumerate(found)}

    def rename(module: str, body: str) -> str:
        own, cell, lines = names[module], {}, []
        for line in body.split("\n"):
            if begin := _CELL.match(line):
                cell = names.get(begin[2], {})
            elif (connect := _CONNECT.match(line)) and connect[1].startswith("    "):
                head = connect[1] + cell.get(connect[2], connect[2])
                line = head + _NUMBERED.sub(lambda m: own[m[0]], connect[3])
                lines.append(line)
                continue
            lines.append(_NUMBERED.sub(lambda m: own[m[0]], line))
        return "\n".join(lines)

    return {module: rename(module, body) for module, body in bodies.items()}


def _redirect(body: str, merged: dict[str, str]) -> str:
    """A module's body with its cells pointing at the modules that were kept."""
    return _CELL.sub(lambda m: m[1] + merged.get(m[2], m[2]) + m[3], body)


def _meaning(body: str) -> str:
    """A module's body without the order of its ports, which are connected by name."""
    return "\n\n".join(sorted(part.strip("\n") for part in _PORT.sub(r"\1 ", body).split("\n\n")))

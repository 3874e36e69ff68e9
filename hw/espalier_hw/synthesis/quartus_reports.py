"""What Quartus says of a fit: resources by unit, slacks and clocks, from its report files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .cyclonev import Usage, by_unit
from .yosys import SynthesisError

ENTITIES = "Fitter Resource Utilization by Entity"
COLUMNS = (
    "ALMs needed [=A-B+C]",
    "M10Ks",
    "ALMs used for memory",
    "DSP Blocks",
    "Dedicated Logic Registers",
)
FMAX = re.compile(r"(.*) Model Fmax Summary$")
CLOCK = re.compile(r"([\d.]+) MHz$")


@dataclass(frozen=True)
class Slack:
    """The worst path of one check in one corner: positive when it is in time."""

    check: str
    nanoseconds: float


@dataclass(frozen=True)
class Fit:
    """One fit. usage: by unit, the whole under ''. clocks_mhz: fastest clock by name, in the
    slowest corner. version: what Quartus calls itself."""

    usage: dict[str, Usage]
    slacks: list[Slack]
    clocks_mhz: dict[str, float]
    version: str

    @property
    def worst(self) -> Slack:
        return min(self.slacks, key=lambda slack: slack.nanoseconds)


def read(folder: Path, name: str) -> Fit:
    """The reports of project `name` in `folder`. Raises SynthesisError naming what is missing."""
    summary = _pairs(_text(folder / f"{name}.fit.summary"))
    if not summary.get("Fitter Status", "").startswith("Successful"):
        raise SynthesisError(f"the fit ended with {summary.get('Fitter Status', 'no status')!r}")
    slacks = read_slacks(_text(folder / f"{name}.sta.summary"))
    if not slacks:
        raise SynthesisError(f"{name}.sta.summary has no slack: no clock was constrained")
    return Fit(
        usage=read_usage(_text(folder / f"{name}.fit.rpt")),
        slacks=slacks,
        clocks_mhz=read_clocks(_text(folder / f"{name}.sta.rpt")),
        version=summary.get("Quartus Prime Version", "Quartus of unknown version"),
    )


def _text(path: Path) -> str:
    if not path.exists():
        raise SynthesisError(f"{path} is missing: Quartus has not come so far; see *.rpt beside it")
    return path.read_text(errors="replace")


def _pairs(text: str) -> dict[str, str]:
    """Lines `key : value`."""
    pairs = (line.split(" : ", 1) for line in text.splitlines() if " : " in line)
    return {key.strip(): value.strip() for key, value in pairs}


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """Quartus' tables by title: one dictionary a row, with the columns' heads as keys."""
    result: dict[str, list[dict[str, str]]] = {}
    title, head = "", None
    for line in text.splitlines():
        cells = [cell.rstrip() for cell in line.strip()[1:-1].split(";")]
        if not line.startswith((";", "+")):
            title, head = "", None
        elif line.startswith(";"):
            stripped = [cell.strip() for cell in cells]
            if not title:
                title = stripped[0]
            elif head is None:
                head = stripped
                result[title] = []
            elif len(cells) == len(head):
                result[title].append(dict(zip(head, cells, strict=True)))
    return result


def read_slacks(text: str) -> list[Slack]:
    """All checks of a `.sta.summary`."""
    found = re.findall(r"^Type\s*: (.+)\nSlack\s*: (\S+)", text, re.MULTILINE)
    return [Slack(check, float(value)) for check, value in found]


def read_clocks(text: str) -> dict[str, float]:
    """Fastest clock by name, the slowest over all corners, from a `.sta.rpt`."""
    clocks: dict[str, float] = {}
    for title, rows in tables(text).items():
        for row in rows if FMAX.match(title) else []:
            found = CLOCK.match(row["Fmax"].strip())
            name = row["Clock Name"].strip()
            if found:
                clocks[name] = min(clocks.get(name, float("inf")), float(found[1]))
    return clocks


def read_usage(text: str) -> dict[str, Usage]:
    """Resources by unit from the entity table of a `.fit.rpt`.

    A cell `12.5 (3.0)` is the unit with all below it and the unit alone. Block columns have the
    first number only, so that every unit is taken with all below it, less what its children have.
    """
    found = [rows for title, rows in tables(text).items() if title.startswith(ENTITIES)]
    if not found:
        raise SynthesisError(f"the fitter's report has no table {ENTITIES!r}")
    whole = {_path(row): [_number(row[column]) for column in COLUMNS] for row in found[0]}
    own = {path: list(values) for path, values in whole.items()}
    for path, values in whole.items():
        if path:
            own[path[:-1]] = [a - b for a, b in zip(own[path[:-1]], values, strict=True)]
    units = by_unit(
        {
            path: Usage(max(alms, 0), round(m10k), round(2 * mlab), dsp, round(flip_flops))
            for path, (alms, m10k, mlab, dsp, flip_flops) in own.items()
        }
    )
    return {unit: sum(parts, start=Usage()) for unit, parts in units.items()}


def _path(row: dict[str, str]) -> tuple[str, ...]:
    """`|top|fabric:fabric|x:y` is ("fabric", "y")."""
    levels = row["Full Hierarchy Name"].strip().strip("|").split("|")[1:]
    return tuple(level.rpartition(":")[2] for level in levels)


def _number(cell: str) -> float:
    return float(cell.strip().partition(" ")[0] or 0)

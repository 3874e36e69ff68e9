"""Whether an instruction stays inside the memories of a configuration."""

from __future__ import annotations

from collections.abc import Mapping

from .config import SCALARS, SLOTS, Config
from .expansion import height, words
from .isa import (
    MOST_GAIN,
    MOST_ROW_GROUPS,
    Finish,
    Function,
    Instruction,
    Mode,
    Opcode,
    Scale,
    Source,
    Sums,
    reduction_target,
)
from .memory import Memory, load_fits
from .numerics import MOST_ELEMENTS


def check(instruction: Instruction, config: Config) -> None:
    """Raise ValueError unless every on-chip address of the instruction lies inside its memory."""
    f = instruction.fields
    if instruction.opcode is Opcode.LOAD and not load_fits(
        config, Memory(f["memory"]), f["address"], f["count"]
    ):
        name = Memory(f["memory"]).name.lower()
        raise ValueError(
            f"LOAD of {f['count']} at {f['address']} does not fit the {name} memory "
            f"of {config.name}"
        )
    if instruction.opcode is Opcode.PRODUCT:
        _inside("PRODUCT", "activations", f["activations"], f["groups"], config.column_depth)
        if f["mode"] != Mode.PLAIN:
            _inside("PRODUCT", "last", f["last"], f["groups"], config.column_depth)
        if f["mode"] != Mode.CLEAR:
            _inside(
                "PRODUCT", "descriptors", f["descriptors"], f["groups"], config.descriptor_depth
            )
    if instruction.opcode is Opcode.VECTOR:
        _check_vector(f, config)
    if instruction.opcode is Opcode.EXPAND:
        _check_expand(f, config)


def _check_vector(f: Mapping[str, int], config: Config) -> None:
    n = f["count"]
    if n < 1:
        raise ValueError(f"VECTOR count must be at least 1, not {n}")
    if not config.reductions and (f["bounded"] or f["sums"] >= Sums.MAXIMUM):
        raise ValueError(
            f"a VECTOR with sums {f['sums']} and bounded {f['bounded']} needs reductions, which "
            f"{config.name} does not have: transformers need a larger config"
        )
    if f["source"] in (Source.DRAIN, Source.DRAIN_PLANES):
        stride = f["plane_stride"] if f["source"] == Source.DRAIN_PLANES else 0
        _inside("VECTOR", "drain", f["drain"] + stride, n, config.tile_chunks)
    if f["sums"] >= Sums.MAXIMUM:
        _check_reduction(f, config)
    elif f["sums"]:
        _inside("VECTOR", "sum_address", f["sum_address"], n, config.sum_depth)
    if f["bounded"] and f["store"]:
        raise ValueError("a VECTOR's register holds a bound or a DDR address, not both")
    if f["scale"] == Scale.ROWS:
        _inside("VECTOR", "parameters", f["parameters"], n, config.parameter_depth)
    if f["scale"] == Scale.SCALAR:
        _inside("VECTOR", "scalar", f["parameters"], 1, SCALARS)
    if f["source"] == Source.OPERAND or f["finish"] == Finish.INTERPOLATE:
        _inside("VECTOR", "operand0", f["operand0"], n, config.vector_depth)
    if f["combine"]:
        _inside("VECTOR", "operand1", f["operand1"], n, config.vector_depth)
    if f["finish"]:
        _inside("VECTOR", "operand2", f["operand2"], n, config.vector_depth)
    if f["write_vector"]:
        _inside("VECTOR", "vector_address", f["vector_address"], n, config.vector_depth)
    if f["write_columns"]:
        groups = -(-n * config.chunk_groups // config.arrays)
        _inside("VECTOR", "column_address", f["column_address"], groups, config.column_depth)
    if f["function"] >= Function.TABLE0 and f["function"] - Function.TABLE0 >= config.tables:
        raise ValueError(
            f"VECTOR function must be one of {config.tables} tables, "
            f"not {f['function'] - Function.TABLE0}"
        )


def _check_reduction(f: Mapping[str, int], config: Config) -> None:
    _, gain = reduction_target(f["sum_address"])
    kind, most = Sums(f["sums"]), MOST_GAIN[f["sums"]]
    if gain > most:
        raise ValueError(f"gain of a {kind.name} must be at most {most}, not {gain}")
    if f["count"] * config.vector_lanes > MOST_ELEMENTS:
        raise ValueError(
            f"a {kind.name} takes at most {MOST_ELEMENTS} elements, "
            f"not {f['count'] * config.vector_lanes}"
        )


def _check_expand(f: Mapping[str, int], config: Config) -> None:
    for name in ("most", "heads", "groups", "slots"):
        if f[name] < 1:
            raise ValueError(f"EXPAND {name} must be at least 1, not {f[name]}")
    if config.lanes % config.group:
        raise ValueError(f"EXPAND needs lanes of whole groups, not {config.lanes} lanes")
    if f["heads"] * f["groups"] > MOST_ROW_GROUPS:
        raise ValueError(
            f"EXPAND takes rows of at most {MOST_ROW_GROUPS} groups, not {f['heads'] * f['groups']}"
        )
    _inside("EXPAND", "slot", f["slot"], 2 * f["heads"] * f["slots"], SLOTS)
    tall = height(f, config, f["most"])
    if tall > f["slots"]:
        raise ValueError(f"EXPAND needs {tall} slots for a digit plane, not {f['slots']}")
    _inside("EXPAND", "address", f["address"], words(f, config, f["most"]), config.weight_depth)


def _inside(name: str, what: str, first: int, count: int, depth: int) -> None:
    if count < 1 or first + count > depth:
        raise ValueError(
            f"{name} {what} must lie in 0..{depth - 1}, not {first}..{first + count - 1}"
        )

"""Units run late: whatever order the waits allow, the results are those of strict order."""

import random as standard_random
from collections import deque

import numpy as np
import pytest
from integer_graphs import (
    DEEP,
    Bench,
    bidirectional_graph,
    evaluate,
    gru_graph,
    linear_graph,
    random_inputs,
)
from token_graphs import decoder, encoder

from espalier.compiler import hazards
from espalier.compiler.hazards import Access, Step, Waits
from espalier.compiler.tokens.build import build_tokens
from espalier.runtime.driver import Driver
from espalier.runtime.token_machine import TokenMachine
from espalier.spec import isa
from espalier.spec.config import SMALL, TINY
from espalier.spec.isa import Opcode
from espalier.spec.memory import Memory
from espalier.tokens.evaluate import evaluate as tokens_evaluate
from espalier_sim.reference import device
from espalier_sim.reference.machine import Machine

UNITS = {
    Opcode.LOAD: "load",
    Opcode.EXPAND: "weights",
    Opcode.PRODUCT: "engine",
    Opcode.VECTOR: "vector",
}


class LateMachine(Machine):
    """Each unit does its instructions in order, but at any time that the waits of later ones allow.

    DDR addresses are taken at issue. The store's half of a VECTOR reaches DDR on its own.
    """

    seed = 0

    def run(self, entry, length):
        self.chance = standard_random.Random(self.seed)
        self.queues = {unit: deque() for unit in isa.UNITS}
        super().run(entry, length)
        assert not any(self.queues.values()), "HALT must wait for every unit"

    def _decode(self, word):
        i = super()._decode(word)
        for unit, queue in self.queues.items():
            wait = i.fields.get(f"wait_{unit}", isa.NO_WAIT)
            while len(queue) > (wait if wait < isa.NO_WAIT else 5):
                self.do_some()
        while self.chance.random() < 0.3:
            self.do_some()
        if i.opcode not in UNITS:
            return i
        registers = list(self.registers)
        if i.opcode is Opcode.LOAD:
            where = i["register"]
            self.registers[where] = (self.registers[where] + i["increment"]) & 0xFFFFFFFF
        stores = i.opcode is Opcode.VECTOR and i["store"]
        ready = deque()
        weights = i.opcode is Opcode.LOAD and i["memory"] == Memory.WEIGHTS
        for unit in ("weights" if weights else UNITS[i.opcode], *("store",) * bool(stores)):
            self.queues[unit].append((i, registers, ready))
        return isa.Instruction(Opcode.SET, {"use_source": 1, "source": 0, "target": 0, "value": 0})

    def do_some(self):
        """The oldest instruction of some unit; a store only after its VECTOR."""
        able = [u for u, q in self.queues.items() if q and (u != "store" or q[0][2])]
        if able:
            self.do(self.chance.choice(able))

    def do(self, unit):
        i, registers, ready = self.queues[unit].popleft()
        if unit == "store":
            super()._store(*ready.popleft())
            return
        now, self.registers = self.registers, registers
        self.ready = ready
        self._execute[i.opcode](i)
        self.registers = now

    def _store(self, address, values):
        self.ready.append((address, values))
        return 0


def cases():
    yield "gru", lambda r: gru_graph(r, 30, 13, density=0.5)
    yield "layers", lambda r: gru_graph(r, 5, 9, layers=3, delta=False)
    yield "blocks", lambda r: gru_graph(r, 5, 90, density=0.05, bits=(8, 8))
    yield "bidirectional", lambda r: bidirectional_graph(r, 5, 7, 2)
    yield "linear", lambda r: linear_graph(r, 20, 150, density=0.2)


@pytest.mark.parametrize(("name", "make"), list(cases()))
@pytest.mark.parametrize("config", [TINY, DEEP], ids=lambda c: c.name)
def test_any_order_that_the_waits_allow(monkeypatch, config, name, make):
    monkeypatch.setattr(device, "Machine", LateMachine)
    graph = make(np.random.default_rng(1))
    for seed in range(4):
        monkeypatch.setattr(LateMachine, "seed", seed)
        Bench(graph, config).check(random_inputs(np.random.default_rng(seed), graph, 4))


def test_any_order_of_late_vectors(monkeypatch):
    monkeypatch.setattr(device, "Machine", LateMachine)
    graph = gru_graph(np.random.default_rng(2), 60, 200, density=0.05)
    for seed in range(4):
        monkeypatch.setattr(LateMachine, "seed", seed)
        Bench(graph, SMALL).check(random_inputs(np.random.default_rng(seed), graph, 4))


@pytest.mark.parametrize("config", [TINY, SMALL], ids=lambda c: c.name)
@pytest.mark.parametrize("causal", [False, True])
def test_any_order_of_a_transformer(monkeypatch, config, causal):
    """Weights that come early, EXPANDs beside products, scalars: two layers of two groups of
    heads."""
    monkeypatch.setattr(device, "Machine", LateMachine)
    make, most = (decoder if causal else encoder), 9 if config is TINY else 40
    graph = make(
        7, width=64 if config is SMALL else 16, heads=8 if config is SMALL else 2, inner=40
    )
    program = build_tokens(graph, config, most_tokens=most, notes={})
    x = np.random.default_rng(0).integers(
        -12000, 12000, (most - 2, graph.operations[0].output.width)
    )
    for seed in range(3):
        monkeypatch.setattr(LateMachine, "seed", seed)
        machine = TokenMachine(Driver(device.open_reference()(config), program), program)
        result = tokens_evaluate(graph, x)[next(iter(graph.outputs.values()))]
        np.testing.assert_array_equal(machine.run(x), result)


def test_the_late_machine_notices_missing_waits(monkeypatch):
    monkeypatch.setattr(device, "Machine", LateMachine)
    monkeypatch.setattr(hazards, "must_wait", lambda new, old: False)
    graph = gru_graph(np.random.default_rng(1), 30, 13, density=0.5)
    values = random_inputs(np.random.default_rng(0), graph, 4)
    result = Bench(graph, TINY).run(values)["output"].reshape(4, 13)
    assert (result != evaluate(graph, values)["output"]).any()


def waits(steps, entries=(0,)):
    return Waits(steps, list(entries)).waits


def unit(name, reads=(), writes=()):
    opcode = {"load": Opcode.LOAD, "engine": Opcode.PRODUCT, "vector": Opcode.VECTOR}[name]
    return Step(opcode, (Access(name, tuple(reads), tuple(writes)),))


HALT = Step(Opcode.HALT)
A, B = ("columns", 0, 4), ("columns", 4, 8)


def test_a_wait_lets_younger_instructions_run():
    found = waits([unit("load", (), [A]), unit("load", (), [B]), unit("engine", [A]), HALT])
    assert found[2] == {"load": 1} and found[3] == dict.fromkeys(isa.UNITS, 0)


def test_other_ranges_and_order_within_a_unit_need_no_wait():
    found = waits([unit("load", (), [A]), unit("load", (), [A]), unit("engine", [B]), HALT])
    assert found[1] == {} and found[2] == {}


def test_the_vector_unit_waits_for_its_own_results():
    found = waits([unit("vector", (), [A]), unit("vector", [A]), unit("vector", (), [A]), HALT])
    assert found[1] == {"vector": 0} and found[2] == {}


def test_what_is_written_must_have_been_read():
    found = waits([unit("engine", [A]), unit("vector", (), [A]), HALT])
    assert found[1] == {"engine": 0}


def test_a_loop_is_followed_around_and_past():
    """The load at the loop's head waits for the product at its end; behind the loop both count."""
    loop, end = Step(Opcode.LOOP, (), 3, True), Step(Opcode.END)
    found = waits(
        [loop, unit("load", (), [A]), unit("engine", [A]), end, unit("load", (), [A]), HALT]
    )
    assert found[1] == {"engine": 0} and found[2] == {"load": 0} and found[4] == {"engine": 0}


def test_an_instruction_far_back_still_counts():
    many = [unit("vector", (), [("vector", n, n + 1)]) for n in range(12)]
    found = waits([*many, unit("load", (), [("vector", 0, 1)]), HALT])
    assert found[12] == {"vector": 2}


def test_nobody_waits_for_a_scalar():
    """The vector unit does by itself; what else its reduction writes still counts."""
    scalar = ("scalars", 3, 4)
    reducing = unit("vector", (), [scalar, B])
    found = waits([reducing, unit("vector", [scalar]), unit("vector", [scalar, B]), HALT])
    assert found[1] == {} and found[2] == {"vector": 1}

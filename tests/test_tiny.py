"""Start here: the whole chain on one 4 x 4 layer, every number small enough for pencil and
paper."""

import numpy as np
import pytest

import espalier
from espalier.spec.config import TINY

torch = pytest.importorskip("torch")

WEIGHT = [[7, 0, 0, 0], [0, -7, 0, 0], [0, 0, 7, 7], [1, 2, 3, 7]]
X = [[1.0, 0.5, -1.0, 0.25]]


def layer() -> torch.nn.Module:
    linear = torch.nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(WEIGHT) / 7)
    return linear.eval()


def compressed() -> torch.nn.Module:
    """All weights kept, in 4 bits: levels -7..7, so that these weights are exact."""
    recipe = espalier.Recipe(density=1.0, weight_bits=4, config=TINY)
    return espalier.compress(layer(), recipe, calibration=[torch.tensor(X)])


def test_1_the_compressed_layer_is_the_layer_in_integers():
    small, x = compressed(), torch.tensor(X)
    assert torch.allclose(small(x), layer()(x), atol=0.02)


def test_2_the_program_survives_a_file(tmp_path):
    program = espalier.compile(compressed(), torch.tensor(X), config=TINY)
    again = espalier.Program.load(program.save(tmp_path / "tiny.espalier"))
    assert np.array_equal(program.image, again.image) and again.config == TINY
    assert [port.shape for port in again.inputs] == [(-1, 4)]


def test_3_the_reference_machine_computes_what_the_compressed_layer_does():
    small, x = compressed(), torch.tensor(X)
    program = espalier.compile(small, x, config=TINY)
    with espalier.open("reference") as device:
        y = device.load(program).run(x)
    # The calibrated input scale is 130 / 2^14, so x is (126, 63, -126, 32) in 8 bits, and by hand
    # W·x = (126, -63, -126 + 32, (126 + 2·63 - 3·126 + 7·32) / 7) = (126, -63, -94, 14).
    # A row's scale has 13 bits or more, which is up to two units of the output at 2^14 of them.
    assert program.inputs[0].scale == 130 / 2**14
    by_hand = np.array([[126, -63, -94, 14]]) * 130 / 2**14
    assert np.abs(y - by_hand).max() <= 2 * program.outputs[0].scale
    assert np.array_equal(y, small(x).detach().numpy())


def test_4_zeros_cost_nothing():
    program = espalier.compile(compressed(), torch.tensor(X), config=TINY)
    with espalier.open("reference") as device:
        session = device.load(program)
        session.run(np.array([[0.0, 1.0, 0.0, 0.0]], np.float32))
        assert (session.counters["visits"], session.counters["words"]) == (1, 1)
        session.run(np.zeros((1, 4), np.float32))
        assert (session.counters["visits"], session.counters["words"]) == (0, 0)


def test_5_the_hardware_gives_the_same_bits_and_counts_the_same_events():
    program = espalier.compile(compressed(), torch.tensor(X), config=TINY)
    results = {}
    for name in ("reference", "rtl"):
        with espalier.open(name) as device:
            session = device.load(program)
            results[name] = session.run_integers(np.array([[126, 63, -126, 32]])), session.counters
    assert np.array_equal(results["rtl"][0], results["reference"][0])
    counted = set(session.counters) - {"cycles", "product_cycles"}  # these are the hardware's alone
    assert all(results["rtl"][1][name] == results["reference"][1][name] for name in counted)
    assert 0 < results["rtl"][1]["product_cycles"] < results["rtl"][1]["cycles"] < 300

"""Host operators: rounding by the spec, places in DDR, every order of the axes."""

import numpy as np
import pytest

from espalier.errors import InputError
from espalier.runtime import ports
from espalier.spec.config import SMALL, TINY
from espalier.spec.interface import Kind, Port
from espalier.spec.numerics import quantize


def port(shape=(-1, -1, 5), batch=0, time=1, kind=Kind.COLUMNS, scale=0.1, positions=None) -> Port:
    features = int(np.prod([s for axis, s in enumerate(shape) if axis not in (batch, time)]))
    return Port(
        name="x",
        kind=kind,
        scale=scale,
        shape=shape,
        batch_axis=batch,
        time_axis=time,
        positions=positions or tuple(range(features)),
        elements=max(positions or (features - 1,)) + 1,
        register=1,
        stride_bytes=32,
    )


@pytest.mark.parametrize("kind", list(Kind))
def test_quantization_is_the_contracts(kind):
    scale = 0.0371
    low, high = ports.BOUNDS[kind]
    ties = (np.arange(-9, 9) + 0.5) * scale
    values = np.concatenate(
        [ties, np.random.default_rng(0).normal(0, 40 * scale * high / 127, 500), [1e30, -1e30]]
    )
    expected = [quantize(float(value), scale, low, high) for value in values]
    assert ports.quantize(port(kind=kind, scale=scale), values).tolist() == expected


def test_float32_is_quantized_as_the_value_that_it_is():
    value = np.float32(0.15)
    assert ports.quantize(port(scale=0.1), np.array([value])).tolist() == [
        quantize(float(value), 0.1, -127, 127)
    ]


@pytest.mark.parametrize(
    ("shape", "batch", "time"),
    [
        ((-1, -1, 3, 2), 0, 1),
        ((-1, -1, 6), 1, 0),
        ((3, -1, 2, -1), 3, 1),
        ((-1, 6), None, 0),
        ((6, -1), None, 1),
        ((-1, 6), 0, None),
        ((6, -1), 1, None),
        ((6,), None, None),
        ((2, 3), None, None),
        ((2, -1, 3), 1, None),
    ],
)
def test_axes_go_to_batch_time_features_and_back(shape, batch, time):
    p = port(shape=shape, batch=batch, time=time)
    sizes = [{batch: 4, time: 7}.get(axis, size) for axis, size in enumerate(shape)]
    array = np.arange(np.prod(sizes)).reshape(sizes)
    canonical = ports.to_canonical(p, array)
    assert canonical.shape == (4 if batch is not None else 1, 7 if time is not None else 1, 6)
    index = [0] * len(shape)
    if batch is not None:
        index[batch] = 2
    if time is not None:
        index[time] = 5
    moved = array[
        tuple(slice(None) if size != -1 else i for size, i in zip(shape, index, strict=True))
    ]
    assert np.array_equal(
        canonical[2 if batch is not None else 0, 5 if time is not None else 0], moved.ravel()
    )
    assert np.array_equal(ports.from_canonical(p, canonical), array)


@pytest.mark.parametrize("config", [TINY, SMALL])
def test_columns_lie_in_groups_of_eight_bytes(config):
    positions = (9, 0, 3, 4, 8)
    data = ports.encode(
        port(positions=positions), config, np.array([[1, -2, 3, -4, 5], [0, 0, 0, 0, -127]])
    )
    assert data.shape == (2, 32)
    for value, e in zip([1, -2, 3, -4, 5], positions, strict=True):
        assert data[0, e // config.group * 8 + e % config.group].astype(np.int8) == value
    assert np.count_nonzero(data) == 6


def test_values_are_little_endian_and_come_back():
    p = port(kind=Kind.VALUES, positions=(4, 0, 2, 1, 7), scale=0.5)
    data = ports.encode(p, TINY, np.array([[258, -1, 3, 4, -32768]]))
    assert data[0, 8:10].tolist() == [2, 1] and data[0, :2].tolist() == [255, 255]
    assert ports.decode(p, data).tolist() == [[258, -1, 3, 4, -32768]]
    assert ports.dequantize(p, np.array([3, -1])).tolist() == [1.5, -0.5]


def test_arrays_come_from_anything_with_the_protocols():
    class Array:
        def __array__(self, dtype=None, copy=None):
            return np.ones(3, np.float32)

    class Capsule:
        def __dlpack__(self, **options):
            return np.ones(3).__dlpack__(**options)

        def __dlpack_device__(self):
            return np.ones(3).__dlpack_device__()

    assert (
        ports.as_array(Array(), "x").tolist()
        == ports.as_array(Capsule(), "x").tolist()
        == [1, 1, 1]
    )


def test_torch_tensors_are_arrays_and_a_gradient_is_named():
    torch = pytest.importorskip("torch")
    assert ports.as_array(torch.ones(3), "x").tolist() == [1, 1, 1]
    with pytest.raises(InputError, match=r"'x' cannot be read as an array: .*detach"):
        ports.as_array(torch.ones(3, requires_grad=True), "x")

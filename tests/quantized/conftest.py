"""The machine's linear layer and GRU as loops over Python integers, from the contract's text."""

import math
import sys

import pytest
import torch

from espalier.spec import numerics as nx

torch.set_num_threads(1)


@pytest.fixture
def machine():
    """This module."""
    return sys.modules[__name__]


def sat(value):
    return nx.clip(value, nx.VALUE_MIN, nx.VALUE_MAX)


def columns(values, scale):
    """Real numbers as column inputs."""
    return [nx.clip(math.floor(float(v) / scale + 0.5), -127, 127) for v in values]


def dot(row, vector):
    return sum(int(w) * int(x) for w, x in zip(row, vector, strict=True))


def requantize(total, rows, i):
    return sat(nx.scale_sum(total, int(rows.multiplier[i]), int(rows.shift[i]), int(rows.bias[i])))


def look_up(name, value):
    base, slope = nx.make_table(*nx.FUNCTIONS[name])[nx.table_segment(value)]
    return sat(nx.table_value(value, base, slope))


def linear(parameters, x):
    """16-bit results of one real input vector."""
    x8 = columns(x, parameters.input_scale)
    rows = enumerate(parameters.matrix.weight)
    return [requantize(dot(row, x8), parameters.rows, i) for i, row in rows]


def gru_cell(parameters, sequence, h):
    """16-bit states after every step of a sequence of column inputs, from the 16-bit state h."""
    size, p = parameters.hidden_size, parameters
    sent_x, sent_h, states = [0] * p.input_size, [0] * size, []
    for x8 in sequence:
        h8 = [nx.clip(nx.column_input(v), -127, 127) for v in h]
        sent_x = [
            n if abs(n - s) > p.input_threshold else s for n, s in zip(x8, sent_x, strict=True)
        ]
        sent_h = [
            n if abs(n - s) > p.hidden_threshold else s for n, s in zip(h8, sent_h, strict=True)
        ]
        wx = [dot(row, sent_x) for row in p.weight_ih.weight]
        wh = [dot(row, sent_h) for row in p.weight_hh.weight]
        gate = [look_up("sigmoid", requantize(wx[i] + wh[i], p.gates, i)) for i in range(2 * size)]
        following = []
        for i in range(size):
            u = requantize(wh[2 * size + i], p.new_hidden, i)
            v = requantize(wx[2 * size + i], p.new_input, i)
            n = look_up("tanh", sat(v + sat(nx.multiply_values(u, gate[i]))))
            following.append(sat(nx.interpolate(n, gate[size + i], h[i])))
        h = following
        states.append(h)
    return states

"""Quantized models without training, and their torch results beside those of the imported graph."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from espalier.compiler.evaluate import evaluate
from espalier.compiler.frontend import import_model
from espalier.compiler.ir import Input
from espalier.quantized import QuantGRU, QuantLinear, TableFunctions

torch.set_num_threads(1)


def replace_layers(model, *args, density=1.0, exact=True):
    """A copy of `model` with quantized layers at 8 bits; weights dropped at random.

    Scales come from `args`, but when `exact`, linear layers take states as they are (2^-7)."""
    model = copy.deepcopy(model).eval()
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.GRU | nn.Linear)}
    seen = {}

    def watch(module, inputs, output):
        y = output[0] if isinstance(output, tuple) else output
        for key, tensor in ((0, inputs[0]), (1, y)):
            seen[module, key] = max(seen.get((module, key), 0.1), float(tensor.abs().max()))

    hooks = [layer.register_forward_hook(watch) for layer in layers.values()]
    with torch.no_grad():
        model(*args)
    for hook in hooks:
        hook.remove()
    generator = torch.Generator().manual_seed(0)
    for name, layer in layers.items():
        scale = seen.get((layer, 0), 1.0) / 127
        if exact and isinstance(layer, nn.Linear):
            scale = 2.0**-7
        new = QuantGRU(layer) if isinstance(layer, nn.GRU) else QuantLinear(layer)
        for matrix in new.matrices():
            new.mask(matrix).copy_(
                torch.rand(new.mask(matrix).shape, generator=generator) < density
            )
        new.set_scales(
            scale, *([] if isinstance(layer, nn.GRU) else [1.2 * seen.get((layer, 1), 1.0) / 2**15])
        )
        model.set_submodule(name, new) if name else pytest.fail("the root itself is a layer")
    return model.eval()


class Imported:
    """A quantized model, its graph, and both ways to run one sample or a batch."""

    def __init__(self, model, *args, **options):
        self.model, self.args = model, args
        self.graph, self.notes = import_model(model, args, **options)
        self.inputs = {op.output.name: op for op in self.graph.operations if isinstance(op, Input)}

    def kinds(self):
        return [type(op).__name__ for op in self.graph.operations]

    def torch(self, *args):
        with torch.no_grad(), TableFunctions():
            result = self.model(*args)
        flat, _ = torch.utils._pytree.tree_flatten(result)
        return [tensor.numpy() for tensor in flat]

    def integers(self, name, tensor):
        """The float input as [samples][T, features] or [samples][features] integers."""
        op = self.inputs[name]
        array = np.asarray(tensor, np.float64)
        axes = [axis for axis in (op.batch_axis, op.time_axis) if axis is not None]
        array = np.moveaxis(array, axes, range(len(axes)))
        array = array if op.batch_axis is not None else array[None]
        array = array.reshape(*array.shape[: 1 + op.output.per_step], -1)
        if op.columns:
            return np.clip(np.floor(array / (256 * op.output.scale) + 0.5), -127, 127).astype(int)
        return np.clip(np.floor(array / op.output.scale + 0.5), -32768, 32767).astype(int)

    def evaluate(self, *args):
        """Outputs in the model's shapes as 16-bit integers, with the scale of each."""
        given = {n: self.integers(n, a) for n, a in zip(self.inputs, args, strict=True)}
        samples = max(len(array) for array in given.values())
        runs = [evaluate(self.graph, {n: a[i] for n, a in given.items()}) for i in range(samples)]
        results = []
        for output in self.graph.outputs:
            axes = [a for a in (output.batch_axis, output.time_axis) if a is not None]
            features = [s for a, s in enumerate(output.shape) if a not in axes]
            array = np.stack([run[output.name] for run in runs])
            array = array if output.batch_axis is not None else array[0]
            outer = array.shape[: len(axes)]
            array = np.moveaxis(array.reshape(*outer, *features), range(len(axes)), axes)
            results.append((array, output.view.scale))
        return results

    def check(self, *args, share=1.0, units=0):
        """Equal to torch in `share` of the values, and within `units` of the last place in all."""
        for (found, scale), expected in zip(self.evaluate(*args), self.torch(*args), strict=True):
            assert found.shape == expected.shape
            difference = np.abs(found - np.round(expected.astype(np.float64) / scale))
            assert difference.max() <= units
            assert (difference == 0).mean() >= share
            assert np.abs(found).max() > 0, "all zero: nothing was tested"


@pytest.fixture
def quantize():
    return replace_layers


@pytest.fixture
def imported():
    """imported(model, *args, **options): quantize and import."""

    def build(model, *args, density=1.0, exact=True, **options):
        return Imported(
            replace_layers(model, *args, density=density, exact=exact), *args, **options
        )

    return build

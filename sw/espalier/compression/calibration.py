"""Scales of activations, from what sample inputs do to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..errors import InputError
from ..quantized import QuantGRU, QuantLinear, QuantModule
from ..quantized.activations import FUNCTIONS
from ..quantized.arithmetic import STATE_COLUMN_SCALE
from ..quantized.weights import largest_scale
from ..spec import numerics
from .batches import as_batches, call, tensors
from .convert import quant_modules
from .ranges import Largest

_LAYOUT_NAMES = (
    "relu relu_ dropout view reshape flatten unflatten squeeze unsqueeze permute transpose movedim "
    "swapaxes t contiguous clone detach select narrow chunk split unbind cat concat stack expand "
    "__getitem__ flip index_select gather"
)
LAYOUT: frozenset[Callable] = frozenset(
    getattr(place, name)
    for name in _LAYOUT_NAMES.split()
    for place in (torch, torch.Tensor, functional)
    if hasattr(place, name)
)
"""Functions whose result holds elements of their arguments, or zeros, and nothing else."""
STATE, OTHER = "state", "other"
"""Origins of a tensor beside modules: a multiple of 2^-15 in [-1, 1]; anything else."""
OUTPUT = "output"
"""A use of a tensor beside modules and tables: the model returns it."""
MARGIN = 2.0
"""Headroom of outputs that feed no columns: one of 16 bits, against saturation on unseen inputs."""
DECAY = 0.9
"""A scale follows falling activations no faster than this, from one calibration to the next."""


class Observer(TorchFunctionMode):
    """Follows tensors through a model's float forward: ranges, and which modules feed which.

    Members
    -------
    inputs: by module, the range of its input's magnitudes, of the kind that `make_range` makes.
    outputs: largest magnitude by module.
    origins: what a module's input is made of: linear modules, STATE, OTHER.
    uses: where a linear module's output goes: modules, "sigmoid", "tanh", OUTPUT.
    """

    def __init__(self, make_range: Callable[[], Largest] = Largest) -> None:
        super().__init__()
        self.inputs: dict[QuantModule, Largest] = defaultdict(make_range)
        self.outputs: dict[QuantModule, float] = {}
        self.origins: dict[QuantModule, set[Any]] = defaultdict(set)
        self.uses: dict[Any, set[Any]] = defaultdict(set)
        self._made_of: dict[int, tuple[Tensor, frozenset[Any]]] = {}

    def __torch_function__(
        self,
        func: Callable,
        types: Iterable[type],
        args: tuple = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in FUNCTIONS:
            self._use(args[0], FUNCTIONS[func])
            self._mark(result, {STATE})
        elif func in LAYOUT:
            self._mark(result, set().union(*map(self._origin, tensors((args, kwargs)))))
        return result

    def _origin(self, tensor: Tensor) -> frozenset[Any]:
        return self._made_of.get(id(tensor), (tensor, frozenset({OTHER})))[1]

    def _mark(self, result: Any, origin: set[Any]) -> None:
        for tensor in tensors(result):
            self._made_of[id(tensor)] = tensor, frozenset(origin)

    def _use(self, tensor: Tensor, user: Any) -> None:
        for origin in self._origin(tensor):
            self.uses[origin].add(user)

    def before(self, module: QuantModule, args: tuple, kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of a quantized module."""
        x = args[0] if args else kwargs.get("input")
        if not isinstance(x, Tensor):
            return  # the module itself refuses
        self.origins[module] |= self._origin(x)
        self._use(x, module)
        self.inputs[module].add(_magnitude(module, x))

    def after(self, module: QuantModule, args: tuple, output: Any) -> None:
        """Forward hook of a quantized module."""
        self._mark(output, {STATE} if isinstance(module, QuantGRU) else {module})
        largest = max(float(tensor.abs().amax()) for tensor in tensors(output))
        self.outputs[module] = max(self.outputs.get(module, 0.0), largest)

    def finish(self, output: Any) -> None:
        """Take note of one forward's result and let go of its tensors."""
        for tensor in tensors(output):
            self._use(tensor, OUTPUT)
        self._made_of.clear()


def _magnitude(module: QuantModule, x: Tensor) -> Tensor:
    magnitude = x.detach().abs().flatten().float()
    if not magnitude.numel() or not torch.isfinite(magnitude).all():
        raise InputError(
            f"calibration data must be finite and not empty; input of {module.path!r} is not"
        )
    return magnitude


def calibrate(model: nn.Module, batches: Any, make_range: Callable[[], Largest] = Largest) -> None:
    """Set every scale of a converted model from sample batches, run in real numbers.

    Raises InputError for no batches, values that are not finite, or a module that no batch reaches.
    """
    observer = Observer(make_range)
    with observing(model, observer):
        for batch in as_batches(batches):
            observer.finish(call(model, batch))
    apply_scales(model, observer)


@contextmanager
def observing(model: nn.Module, observer: Observer) -> Iterator[None]:
    """Within the block the model computes in real numbers, for evaluation, under the observer."""
    training = [(module, module.training) for module in model.modules()]
    modules = quant_modules(model)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for module in modules:
            stack.callback(
                module.register_forward_pre_hook(observer.before, with_kwargs=True).remove
            )
            stack.callback(module.register_forward_hook(observer.after).remove)
            stack.callback(setattr, module, "float_mode", False)
            module.float_mode = True
        stack.callback(setattr, model, "function_mode", None)
        model.function_mode = observer
        for module, was in training:
            stack.callback(setattr, module, "training", was)
        model.eval()
        yield


def apply_scales(model: nn.Module, observer: Observer) -> None:
    """Set the scales of all modules from what was observed; earlier ones fall by DECAY at most."""
    modules = quant_modules(model)
    scales = {module: _input_scale(module, observer) for module in modules}
    for module in modules:
        if isinstance(module, QuantLinear):
            module.input_free = _is_free(module, observer)
            scale = _output_scale(module, observer, scales)
            module.feeds = _fed_by(module, observer, scales, scale)
            module.set_scales(scales[module], scale)
        else:
            module.set_scales(scales[module])


def _is_free(module: QuantModule, observer: Observer) -> bool:
    """Whether a scale of its own may be learned for a module's input: no state, no other user."""
    origins = observer.origins[module]
    return origins != {STATE} and all(
        observer.uses[origin] <= {module} for origin in origins - {STATE, OTHER}
    )


def _fed_by(
    module: QuantLinear, observer: Observer, scales: Mapping[QuantModule, float], scale: float
) -> str | None:
    """The path of the one module whose columns are the upper bytes of `module`'s results."""
    users = [user for user in observer.uses[module] if isinstance(user, QuantModule)]
    tied = len(users) == 1 and scale == scales[users[0]] / (1 << 8)
    return users[0].path if tied else None


def _input_scale(module: QuantModule, observer: Observer) -> float:
    earlier = float(module.input_scale)
    if module not in observer.inputs:
        if earlier > 0:
            return earlier
        raise InputError(
            f"calibration batches must reach every layer; none reaches {module.path!r}"
        )
    if observer.origins[module] == {STATE}:
        return STATE_COLUMN_SCALE
    largest = observer.inputs[module].value()
    return max(largest / numerics.COLUMN_MAX, DECAY * earlier) or STATE_COLUMN_SCALE


def _output_scale(
    module: QuantLinear, observer: Observer, scales: Mapping[QuantModule, float]
) -> float:
    """The scale that the result's only kind of use needs, else one from its range.

    Columns take the upper byte, a table its own input scale: so the result needs no rescaling.
    """
    earlier = float(module.output_scale)
    if module not in observer.outputs:
        return earlier
    largest = observer.outputs[module]
    uses = observer.uses[module]
    wanted = {
        numerics.FUNCTIONS[user][1] if isinstance(user, str) else scales[user] / (1 << 8)
        for user in uses - {OUTPUT}
    }
    if len(wanted) == 1:
        (scale,) = wanted
        if OUTPUT not in uses or largest <= scale * numerics.VALUE_MAX:
            return scale
    floor = _smallest_output_scale(module, scales[module])
    return max(MARGIN * largest / numerics.VALUE_MAX, DECAY * earlier, floor)


def _smallest_output_scale(module: QuantLinear, input_scale: float) -> float:
    """Below it the largest row scale does not fit; reached when sample outputs are all but 0."""
    level = numerics.WEIGHT_LEVELS[module.bit_widths["weight"]]
    step = float(module.weight.detach().abs().amax()) / level
    return max(step * input_scale / largest_scale(1.0), STATE_COLUMN_SCALE * 2.0**-24)

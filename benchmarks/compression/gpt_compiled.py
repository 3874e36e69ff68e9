"""Compiled programs of the character model against the compressed modules, on test windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from gpt_compare import setting_of
from gpt_data import CONTEXT, windows
from gpt_model import entropies, sample_inputs, scores
from gpt_settings import Setting
from gpt_study import Study
from intervals import paired_difference
from ledger import append
from progress import Report
from study_errors import DataError
from torch import Tensor
from torch.nn.functional import cross_entropy

import espalier
from espalier.spec.config import DE1_SOC
from espalier.transformer import QuantTransformer, quantize

COLUMNS = (
    "key", "setting", "windows", "float_columns", "module", "program", "difference", "low", "high",
    "equal_windows", "columns_cost", "columns_low", "columns_high",
)  # fmt: skip
SAMPLES = 32


def check(study: Study, keys: Sequence[str], path: Path, count: int) -> str:
    """Compile finished runs for DE1_SOC and compare; rows are added to the table at `path`."""
    known = {row["key"]: setting_of(row) for row in study.ledger.rows()}
    usable = {k: s for k, s in known.items() if s.weight_bits != 32}
    for each in keys:
        if each not in usable:
            raise DataError(
                f"a key must be of a run with rounded weights: {', '.join(usable)}; not {each!r}"
            )
    return append(path, (compare(study, each, usable[each], count) for each in keys))


def compare(study: Study, key: str, setting: Setting, count: int) -> dict[str, object]:
    """Mean cross-entropies (nats) of the test's first windows.

    float_columns: the retrained model, weights rounded and activations floats; module: the same
    with the machine's integers; program: compiled, on the reference machine. difference: program
    minus module; columns_cost: program minus float_columns.
    """
    model, test = study.restore(setting), study.text.test
    bits = {f"transformer.{m}": setting.weight_bits for m in _matrices(model)}
    samples = sample_inputs(study.text.training, SAMPLES)
    small = quantize(model, (), samples[0], calibration=samples, weight_bits={**bits, "": 8})
    program = espalier.compile(small, max_length=CONTEXT, config=DE1_SOC)
    rows = windows(test)[:count]
    exact, given = module_scores(small, rows), program_scores(program, rows, str(setting))
    floats = entropies(model, test, count)
    module, answers = (entropy(logits, rows) for logits in (exact, given))
    difference, cost = paired_difference(answers, module), paired_difference(answers, floats)
    equal = torch.tensor([torch.equal(*pair) for pair in zip(exact, given, strict=True)])
    values = [
        key, str(setting), len(answers), floats.mean(), module.mean(), answers.mean(),
        difference.value, difference.low, difference.high, float(equal.float().mean()),
        cost.value, cost.low, cost.high,
    ]  # fmt: skip
    rounded = [round(float(v), 5) if isinstance(v, float | np.floating) else v for v in values]
    return dict(zip(COLUMNS, rounded, strict=True))


def _matrices(model: torch.nn.Module) -> list[str]:
    """The blocks' matrices in the model below its head."""
    return [
        name
        for name, parameter in model.transformer.named_parameters()
        if name.startswith("h.") and parameter.dim() == 2
    ]


@torch.no_grad()
def module_scores(small: QuantTransformer, rows: Tensor) -> list[Tensor]:
    """Logits [T, characters] of each window."""
    return [scores(small, row[None, :-1])[0] for row in rows]


def program_scores(program: espalier.Program, rows: Tensor, title: str) -> list[Tensor]:
    """The same of a program on the reference machine."""
    result = []
    with espalier.open("reference") as device, Report(f"{title} on the reference", 0) as report:
        session = device.load(program)
        for number, row in enumerate(rows, 1):
            result.append(torch.from_numpy(session.run(row[None, :-1].numpy())[0]))
            report(number, len(rows), 0.0)
    return result


def entropy(logits: list[Tensor], rows: Tensor) -> np.ndarray:
    """Mean cross-entropy (nats) of each window [windows]."""
    pairs = zip(logits, rows, strict=True)
    return np.array([float(cross_entropy(each, row[1:])) for each, row in pairs])

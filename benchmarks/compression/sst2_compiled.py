"""Compiled programs of MiniLM against the compressed modules, on the development set's sentences.

The encoder is compiled for DE1_SOC with 8-bit columns; pooler and classifier are the host's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from intervals import paired_difference
from ledger import append
from progress import Report
from sst2_compare import setting_of
from sst2_data import TOKENS, Sentences
from sst2_model import SentenceReader, log_probabilities
from sst2_settings import Setting
from sst2_study import Study
from study_errors import DataError
from torch import Tensor

import espalier
from espalier.spec.config import DE1_SOC
from espalier.transformer import QuantTransformer, quantize

COLUMNS = (
    "key", "setting", "sentences", "float_columns_accuracy", "module_accuracy", "program_accuracy",
    "float_columns_cross_entropy", "module_cross_entropy", "program_cross_entropy", "equal_scores",
    "points", "points_low", "points_high", "cross_entropy", "low", "high", "image_mib",
)  # fmt: skip
SAMPLES = 64


def check(study: Study, keys: Sequence[str], path: Path, count: int) -> str:
    """Compile finished runs and compare; rows are added to the table at `path`."""
    known = {row["key"]: setting_of(row) for row in study.ledger.rows()}
    rounded = {k: s for k, s in known.items() if s.weight_bits != 32}
    usable = {k: s for k, s in rounded.items() if study.ledger.weights(s.values()).exists()}
    for each in keys:
        if each not in usable:
            raise DataError(
                "a key must be of a retrained run with rounded weights: "
                f"{', '.join(usable) or 'none yet'}; not {each!r}"
            )
    return append(path, (compare(study, each, usable[each], count) for each in keys))


def compare(study: Study, key: str, setting: Setting, count: int) -> dict[str, object]:
    """On the first `count` sentences: the retrained model with activations in floats, the same with
    the machine's integers (the module), the program on the reference machine. Differences are of
    the program and the model with activations in floats."""
    model = study.restore(setting)
    test = study.split.test.some(torch.arange(min(count, len(study.split.test))))
    small = on_machine(model, study, setting)
    program = espalier.compile(small, max_length=TOKENS, config=DE1_SOC)
    with Report(f"{setting} on the reference", 0) as report:
        given = program_scores(program, model, test, report)
    exact = module_scores(small, model, test)
    floats = torch.from_numpy(log_probabilities(model, test))
    parts = [floats, exact.log_softmax(1), given.log_softmax(1)]
    labels = test.labels
    right = [100.0 * (part.argmax(1) == labels).numpy() for part in parts]
    nats = [-part[torch.arange(len(labels)), labels].numpy() for part in parts]
    points, entropy = (paired_difference(each[2], each[0]) for each in (right, nats))
    values = [
        key, str(setting), len(labels), *(x.mean() / 100 for x in right), *(x.mean() for x in nats),
        float((exact == given).all(1).float().mean()), points.value, points.low, points.high,
        entropy.value, entropy.low, entropy.high, program.image.nbytes / 2**20,
    ]  # fmt: skip
    rounded = [round(float(v), 5) if isinstance(v, float | np.floating) else v for v in values]
    return dict(zip(COLUMNS, rounded, strict=True))


def on_machine(model: SentenceReader, study: Study, setting: Setting) -> QuantTransformer:
    """The encoder with the machine's integers, its ranges from training sentences one by one."""
    training = study.drawn(setting.examples).some(torch.arange(SAMPLES))
    samples = [{"input_ids": tokens[None]} for tokens in training.tokens]
    bits = {
        name: setting.weight_bits
        for name, parameter in model.bert.named_parameters()
        if name.startswith("encoder.") and parameter.dim() == 2
    }
    return quantize(model.bert, (), samples[0], calibration=samples, weight_bits={**bits, "": 8})


@torch.no_grad()
def module_scores(small: QuantTransformer, model: SentenceReader, test: Sentences) -> Tensor:
    """Scores [sentences, 2] of the module and the classifier in floats."""
    pooled = [small(input_ids=tokens[None])["pooler_output"][0] for tokens in test.tokens]
    return torch.stack([model.head(each) for each in pooled])


@torch.no_grad()
def program_scores(
    program: espalier.Program, model: SentenceReader, test: Sentences, report: Report
) -> Tensor:
    """The same of the compiled program, on the reference machine."""
    scores = []
    with espalier.open("reference") as device:
        session = device.load(program)
        for number, tokens in enumerate(test.tokens, 1):
            _, pooled = session.run(tokens[None].numpy())
            scores.append(model.head(torch.from_numpy(pooled[0])))
            report(number, len(test), 0.0)
    return torch.stack(scores)

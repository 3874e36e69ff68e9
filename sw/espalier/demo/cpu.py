"""Latency of the float model on this computer's CPU, one image at a time, one thread."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn


def microseconds(work: Callable[[], object], seconds: float = 1.0) -> float:
    """Median time of one call, after a warm-up."""
    times, end = [], time.perf_counter() + seconds
    for _ in range(20):
        work()
    while time.perf_counter() < end or len(times) < 20:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e6


def pytorch(model: nn.Module, image: np.ndarray) -> float:
    """PyTorch's latency on one image [T, F], in microseconds."""
    x, threads = torch.from_numpy(image[np.newaxis]), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return microseconds(lambda: model(x))
    finally:
        torch.set_num_threads(threads)


def onnx(model: nn.Module, image: np.ndarray, folder: Path) -> float:
    """ONNX Runtime's latency on one image [T, F], in microseconds."""
    path = folder / "float.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            model, (torch.from_numpy(image[np.newaxis]),), path, dynamo=False, input_names=["rows"]
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {"rows": image[np.newaxis]}
    return microseconds(lambda: session.run(None, feed))

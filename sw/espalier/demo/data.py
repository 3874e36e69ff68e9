"""Scikit-learn's handwritten digits, read row by row: offline on every machine that has
scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

ROWS, PIXELS, CLASSES = 8, 8, 10
TEST_SHARE = 0.25


@dataclass(frozen=True)
class Digits:
    """Images as sequences of rows, float32 [B, T=8, F=8] in 0..1, and labels int64 [B]."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def digits(seed: int = 0) -> Digits:
    """1,797 digits of 43 writers, a quarter of each class for the test."""
    images, labels = load_digits(return_X_y=True)
    rows = (images / 16).astype(np.float32).reshape(-1, ROWS, PIXELS)
    train, test, train_labels, test_labels = train_test_split(
        rows, labels, test_size=TEST_SHARE, stratify=labels, random_state=seed
    )
    return Digits(train, train_labels, test, test_labels)

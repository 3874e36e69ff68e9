"""MiniLM with a classifier on its first token, and what it makes of sentences."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from sst2_data import Batch, Sentences
from study_errors import DataError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

ENCODER = "bert.encoder.*"
"""The matrices that densities count: six layers of attention and feed-forward, 10.6 M weights."""
EVALUATION_BATCH = 64


class SentenceReader(nn.Module):
    """Scores [B, 2] of token numbers [B, T] and the mask of those that are there [B, T].

    dropout: in training; what is taught by a dense model has none.
    """

    def __init__(self, folder: Path, dropout: float = 0.1) -> None:
        super().__init__()
        os.environ["HF_HUB_OFFLINE"] = "1"
        try:
            from transformers import BertForSequenceClassification
            from transformers.utils import logging
        except ImportError as error:
            raise DataError("this study needs transformers: pip install transformers") from error
        logging.set_verbosity_error()  # the classifier is new, as it should be
        logging.disable_progress_bar()
        rates = {f"{part}_dropout_prob": dropout for part in ("hidden", "attention_probs")}
        whole = BertForSequenceClassification.from_pretrained(folder, num_labels=2, **rates)
        self.bert, self.dropout, self.head = whole.bert, whole.dropout, whole.classifier

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        pooled = self.bert(input_ids=ids, attention_mask=mask).pooler_output  # [B, C]
        return self.head(self.dropout(pooled))

    def read(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Scores, and the hidden states [B, T, C] of the embeddings and of every layer."""
        found = self.bert(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        return self.head(self.dropout(found.pooler_output)), found.hidden_states


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return cross_entropy(model(batch.ids, batch.mask), batch.labels)


@torch.no_grad()
def log_probabilities(model: nn.Module, sentences: Sentences) -> np.ndarray:
    """ln of both labels' probabilities [N, 2] (float32)."""
    lengths = torch.tensor([len(x) for x in sentences.tokens])
    result = torch.empty(len(sentences), 2)
    for index in lengths.argsort().split(EVALUATION_BATCH):
        batch = sentences.padded(index)
        result[index] = model(batch.ids, batch.mask).log_softmax(dim=1)
    return result.numpy()


def measures(log_probability: np.ndarray, labels: Tensor) -> tuple[float, float]:
    """Accuracy and mean cross-entropy (nats)."""
    expected = labels.numpy()
    correct = log_probability.argmax(1) == expected
    return float(correct.mean()), float(-log_probability[np.arange(len(expected)), expected].mean())

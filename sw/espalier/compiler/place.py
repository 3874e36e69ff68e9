"""Weights and descriptors of products that stay on the chip together: addresses, and the LOADs that bring them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import CapacityError
from ..spec.config import Config
from ..spec.memory import Memory
from .allocate import Image
from .emit import Assembly
from .packing import descriptor_bytes, descriptor_words, weight_bytes
from .products import Product


@dataclass(frozen=True)
class Resident:
    """Weights and descriptors of a set of products, from address 0 of both memories."""

    words: int
    groups: int
    weight_offset: int
    descriptor_offset: int

    def load(self, assembly: Assembly) -> None:
        if self.words:
            assembly.load_image(Memory.WEIGHTS, 0, self.words, self.weight_offset)
        if self.groups:
            assembly.load_image(Memory.DESCRIPTORS, 0, self.groups, self.descriptor_offset)


def needs(products: list[Product]) -> tuple[int, int]:
    """(words of the fullest array, descriptor groups) of products that are resident together."""
    if not products:
        return 0, 0
    lengths = np.sum([product.packed.lengths for product in products], 0)
    return int(lengths.max()), sum(product.packed.groups for product in products)


def fits(products: list[Product], config: Config) -> bool:
    words, groups = needs(products)
    return words <= config.weight_depth and groups <= config.descriptor_depth


def check(products: list[Product], config: Config, what: str) -> None:
    """Raise CapacityError unless the products fit the chip together."""
    words, groups = needs(products)
    if words > config.weight_depth or groups > config.descriptor_depth:
        raise CapacityError(
            f"{what} needs {words} weight words and {groups} descriptors in each array, {config.name} "
            f"holds {config.weight_depth} and {config.descriptor_depth}; lower the density or the sizes"
        )


def place(products: list[Product], config: Config, image: Image) -> Resident:
    """Give every product its words and descriptors, one behind the other in each array."""
    starts = np.zeros(config.arrays, np.int64)
    descriptors, groups = [], 0
    for product in products:
        ends = starts + product.packed.lengths
        product.weights = int(starts.min()), int(ends.max())
        product.descriptors = groups
        descriptors.append(descriptor_words(product.packed, starts))
        groups += product.packed.groups
        starts = ends
    count = int(starts.max())
    words = [
        np.concatenate([product.packed.words[array] for product in products])
        for array in range(config.arrays if products else 0)
    ]
    return Resident(
        count,
        groups,
        image.add(weight_bytes(words, count, config)) if count else 0,
        image.add(descriptor_bytes(np.concatenate(descriptors, 1))) if groups else 0,
    )

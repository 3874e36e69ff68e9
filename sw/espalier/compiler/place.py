"""Weights and descriptors of products: addresses, image bytes, and the LOADs that bring them.

`Resident` products lie on the chip together. `Streamed` ones come tile by tile in every step: a
tile is a product over some column groups that fits half of the weight memory, so that the next one
is loaded while this one is multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import CapacityError
from ..spec.config import Config
from ..spec.memory import Memory
from .allocate import Image
from .emit import Assembly
from .packing import descriptor_bytes, descriptor_words, weight_bytes
from .products import Product, Task


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


def cut_tiles(tasks: list[Task], config: Config) -> None:
    """Cut every product of the tasks into tiles of whole column groups."""
    for task in tasks:
        task.segments = [
            [tile for product in segment for tile in _tiles(product, config)]
            for segment in task.segments
        ]


def _tiles(product: Product, config: Config) -> list[Product]:
    room, packed = config.weight_depth // 2, product.packed
    lengths = packed.counts.sum(2)
    if lengths.max(initial=0) > room:
        raise CapacityError(
            f"the words of one column group must fit half of the weight memory ({room} words on "
            f"{config.name}), not {int(lengths.max())}; lower the density"
        )
    tiles, first = [], 0
    for end in range(1, packed.groups + 1):
        full = end < packed.groups and lengths[:, first : end + 1].sum(1).max() > room
        if full or end == packed.groups or end - first == config.descriptor_depth // 2:
            group = product.first_group + first
            tiles.append(replace(product, packed=packed.part(first, end), first_group=group))
            first = end
    return tiles


class Streamed:
    """Tiles in the order of a step, in alternating halves of the weight memory.

    Descriptors that are equal (dense tiles) are kept once; where they still do not fit they come
    with the tiles.
    """

    def __init__(self, products: list[Product], config: Config, image: Image):
        self._order, self._config = products, config
        self._issued = 0
        self._offsets: list[int] = []
        self._counts: list[int] = []
        self._descriptor_offsets: list[int] = []
        half = config.weight_depth // 2
        unique: dict[bytes, np.ndarray] = {}
        keys = []
        for number, product in enumerate(products):
            count = max(int(product.packed.lengths.max()), 1)
            base = number % 2 * half
            product.weights = base, base + count
            self._counts.append(count)
            self._offsets.append(image.add(weight_bytes(list(product.packed.words), count, config)))
            words = descriptor_words(product.packed, np.full(config.arrays, base))
            keys.append(words.tobytes() + bytes([words.shape[1] & 255]))
            unique[keys[-1]] = words
        self.words = max(product.weights[1] for product in products)
        self.groups = sum(words.shape[1] for words in unique.values())
        self.resident = self.groups <= config.descriptor_depth
        if self.resident:
            self._keep(keys, unique, image)
        else:
            self._move(keys, unique, image)
            self.groups = config.descriptor_depth

    def _keep(self, keys: list[bytes], unique: dict[bytes, np.ndarray], image: Image) -> None:
        first = dict(
            zip(unique, np.cumsum([0, *(w.shape[1] for w in unique.values())]), strict=False)
        )
        for product, key in zip(self._order, keys, strict=True):
            product.descriptors = int(first[key])
        self._offset = image.add(descriptor_bytes(np.concatenate(list(unique.values()), 1)))

    def _move(self, keys: list[bytes], unique: dict[bytes, np.ndarray], image: Image) -> None:
        offsets = {key: image.add(descriptor_bytes(words)) for key, words in unique.items()}
        for number, (product, key) in enumerate(zip(self._order, keys, strict=True)):
            product.descriptors = number % 2 * (self._config.descriptor_depth // 2)
            self._descriptor_offsets.append(offsets[key])

    def load(self, assembly: Assembly) -> None:
        """What stays while the tiles come and go."""
        if self.resident:
            assembly.load_image(Memory.DESCRIPTORS, 0, self.groups, self._offset)

    def begin(self) -> None:
        """A step begins: its tiles come from the first one on."""
        self._issued = 0

    def before(self, assembly: Assembly, product: Product) -> None:
        """Load the product's tile and the next one, as far as they were not yet."""
        last = min(self._order.index(product) + 1, len(self._order) - 1)
        while self._issued <= last:
            number, tile = self._issued, self._order[self._issued]
            assembly.load_image(
                Memory.WEIGHTS, tile.weights[0], self._counts[number], self._offsets[number]
            )
            if not self.resident:
                assembly.load_image(
                    Memory.DESCRIPTORS,
                    tile.descriptors,
                    tile.packed.groups,
                    self._descriptor_offsets[number],
                )
            self._issued += 1

"""Input weights that do not fit the chip: every tile is loaded once a run and multiplied with all
time steps.

A tile is T slots of rows (in every digit plane) of one gate over all input columns. Its raw sums of
every step go to the scratch, [r | z | n_x] of 32 bits a row, and come back as sums in the recurrent
loop:

    for each tile: load its weights; for each step: load x, multiply, store the sums
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import CapacityError
from ..spec.config import SLOTS, Config
from ..spec.isa import Store
from ..spec.memory import Memory
from ..spec.numerics import GATE_SCALE
from .allocate import Chip, Image
from .emit import Assembly
from .lower_gru import CellUnit
from .lowering import Site, Unit
from .packing import descriptor_bytes, descriptor_words, plane_height, weight_bytes
from .place import needs
from .products import Feed, SlotRing, Task, plan_task
from .vectors import Buffer, Section, Vector

SUM_BYTES = 4


@dataclass(eq=False)
class InputSums(Unit):
    """W_ih·x of all time steps for the cell unit `consumer`; nothing of it stays on the chip."""

    consumer: CellUnit
    scratch: Buffer
    section: Section = field(init=False)
    tiles: list[Task] = field(default_factory=list, init=False)
    words: int = field(default=0, init=False)
    offset: int = field(default=0, init=False)
    weight_bytes: int = field(default=0, init=False)
    image_bytes: int = field(default=0, init=False)
    """A tile's bytes in the image: weights and descriptors."""
    height: int = field(default=0, init=False)
    """Slots of one digit plane of a tile."""
    lanes: int = field(default=0, init=False)

    @staticmethod
    def of(consumer: CellUnit, scratch: Buffer) -> InputSums:
        """The unit that takes over the cell's inputs."""
        name = f"{consumer.name} input sums"
        result = InputSums(
            name, consumer.inputs, Vector(name, 1, GATE_SCALE), True, consumer, scratch
        )
        consumer.inputs, consumer.source = [], result
        return result

    @property
    def gate_bytes(self) -> int:
        """Bytes of one gate's sums of one step."""
        return len(self.tiles) // 3 * self.tile_bytes

    @property
    def tile_bytes(self) -> int:
        return self.height * self.lanes * SUM_BYTES

    def sections(self) -> list[Section]:
        return [self.section]

    def demand(self, config: Config) -> None:
        for piece in self.inputs:
            piece.vector.region(self.consumer.cell.input_scale / 256, config)

    def plan(self, chip: Chip, ring: SlotRing) -> None:
        config, cell = chip.config, self.consumer.cell
        self.lanes = config.lanes
        self.height = min(SLOTS // cell.weight_ih.planes, plane_height(cell.hidden_size, config))
        while not self._fits(config):
            self.height //= 2
        if any(len(tile.segments) > 1 for tile in self.tiles):
            raise CapacityError(
                f"{self.name}: the accumulators of {config.name} cannot hold the products of all "
                "inputs; use fewer inputs or a lower density"
            )
        self.section = Section(self.scratch, self.scratch.add(3 * self.gate_bytes))

    def _fits(self, config: Config) -> bool:
        """Make tiles of `height` slots a plane; whether they fit. Raises CapacityError when none
        would."""
        cell, rows = self.consumer.cell, self.height * config.lanes
        parts = [
            (Feed.of(piece, cell.input_scale / 256, config), cell.weight_ih)
            for piece in self.inputs
        ]
        self.tiles = [
            plan_task(
                self.name,
                parts,
                slice(
                    gate * cell.hidden_size + at,
                    gate * cell.hidden_size + min(at + rows, cell.hidden_size),
                ),
                SlotRing(),
                config,
                self.height,
                level=True,
            )
            for gate in range(3)
            for at in range(0, cell.hidden_size, rows)
        ]
        words, groups = (int(n) for n in np.max([needs(tile.products) for tile in self.tiles], 0))
        self.words = max(words, 1)
        if words <= config.weight_depth and groups <= config.descriptor_depth:
            return True
        if self.height == 1:
            raise CapacityError(
                f"{self.name}: the weights of {config.lanes} rows need {words} words and {groups} "
                f"descriptors in each array, {config.name} holds {config.weight_depth} and "
                f"{config.descriptor_depth}; use fewer inputs or a lower density"
            )
        return False

    def place(self, config: Config, image: Image) -> None:
        """Tiles of equal size one after the other, each with its descriptors."""
        offsets = []
        for tile in self.tiles:
            starts, descriptors, address = np.zeros(config.arrays, np.int64), [], 0
            for product in tile.products:
                descriptors.append(descriptor_words(product.packed, starts))
                product.descriptors, product.weights = address, (0, self.words)
                address += product.packed.groups
                starts = starts + product.packed.lengths
            words = [
                np.concatenate([product.packed.words[array] for product in tile.products])
                for array in range(config.arrays)
            ]
            weights = weight_bytes(words, self.words, config)
            self.weight_bytes = len(weights)
            offsets.append(
                image.add(weights + descriptor_bytes(np.concatenate(descriptors, axis=1)))
            )
        self.offset, self.image_bytes = offsets[0], offsets[1] - offsets[0]

    def load(self, assembly: Assembly, register: int) -> None:
        """Load the next tile; the register runs through the image."""
        assembly.load_image(Memory.WEIGHTS, 0, self.words, self.offset, register=register)
        assembly.load_image(
            Memory.DESCRIPTORS,
            0,
            sum(product.packed.groups for product in self.tiles[0].products),
            self.offset + self.weight_bytes,
            register=register,
            increment=self.image_bytes,
        )

    def write(self, site: Site) -> None:
        """One step of one tile; the cursor of the section points to this tile's sums."""
        tile = self.tiles[0]
        site.schedule.task(tile)
        drain = tile.drain(site.config) | {"count": self.height * site.config.slot_chunks}
        site.assembly.vector(
            **drain, store=Store.SUMS, register=site.cursors.sums, section=self.section.name
        )

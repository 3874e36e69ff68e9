"""Attention as instructions: for every group of heads, keys and values become weights, then a loop
over the queries.

Where the weight memory has room for two groups, the next group's keys and values become weights
while the loop runs. The loop is staggered so that the engine always has a product: while the scores
of query t + 1 accumulate, the exponentials of query t are made, and while its context accumulates
the scores of t + 1 are drained:

    scores(t+1) | store context(t-1) | exp(t) | drain scores(t+1) | context(t) | load query(t+2)

It begins with the scores of query 0; what it does for queries -1, T and T + 1 is never used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...parameters import Rows
from ...spec import isa
from ...spec.config import ITEM_BYTES
from ...spec.isa import Expand, Function, Mode, Scale, Source, Store, Sums
from ...spec.memory import TABLE_ENTRY, Memory
from ...spec.numerics import FUNCTIONS, make_table
from ...spec.tokens import Register
from ...tokens.graph import SCORE_GAIN, Attention
from ..allocate import Parameters, pack_words
from ..emit import Assembly
from .context import Context
from .head_descriptors import value_descriptors
from .passes import Piece, load_pieces
from .placement import MOST_HEADS, HeadLayout
from .registers import CURSOR, PLACE, SPARE
from .tokenpass import Range


@dataclass(eq=False)
class AttentionPass:
    """One attention of a block; `index` is its operation in the written layer."""

    context: Context
    number: int
    index: int

    @property
    def layers(self) -> list[Attention]:
        return self.context.blocks.blocks[self.number].all_of(self.index)

    @property
    def operation(self) -> Attention:
        return self.layers[0]

    @property
    def layout(self) -> HeadLayout:
        return self.context.heads[self.operation]

    @property
    def weights(self) -> Range:
        """What keys and values take of the weight memory."""
        return 0, self.layout.buffers * self.layout.words

    def pieces(self, layer: int) -> list[Piece]:
        """Descriptors of the values, score parameters and the exponential."""
        config, layout, operation = self.context.config, self.layout, self.layers[layer]
        full = np.ones(layout.most_tokens, np.int64)
        rows = Rows(
            multiplier=full * operation.multiplier, shift=full * operation.shift, bias=full * 0
        )
        parameters = Parameters(rows, config.chunks(layout.most_tokens)).words(config)
        entries = make_table(*FUNCTIONS["exp"])
        table = pack_words(TABLE_ENTRY, [{"base": b, "slope": s} for b, s in entries])
        return [
            Piece(
                Memory.DESCRIPTORS,
                layout.buffers * layout.context_groups,
                value_descriptors(layout),
                self._value_descriptors(0),
            ),
            Piece(Memory.PARAMETERS, len(parameters), parameters.astype("<u8").tobytes()),
            Piece(Memory.TABLES, len(table), table.astype("<u8").tobytes()),
        ]

    def _value_descriptors(self, buffer: int) -> int:
        """Address of the values' descriptors, which lie behind those of the keys."""
        layout = self.layout
        return layout.buffers * layout.product_groups + buffer * layout.context_groups

    def write(self, assembly: Assembly, following: list[Piece]) -> None:
        """The whole attention. `following` are the pieces of the pass behind it."""
        layout = self.layout
        load_pieces(assembly, self.pieces(0))
        assembly.load_buffer(
            Memory.DESCRIPTORS,
            0,
            layout.buffers * layout.product_groups,
            int(Register.SETS),
            section="",
        )
        if layout.buffers == 1:
            load_pieces(assembly, following, early=True)
            with assembly.loop(count=layout.groups):
                self._expand(assembly, 0)
                self._group(assembly, 0)
        else:
            self._alternate(assembly, following)
        rest = layout.token_bytes * layout.most_tokens - layout.groups * layout.row_bytes
        assembly.set(int(Register.CACHE), rest, int(Register.CACHE))
        assembly.set(int(Register.RECORD), -layout.groups * layout.row_bytes, int(Register.RECORD))

    def _alternate(self, assembly: Assembly, following: list[Piece]) -> None:
        """All groups of heads, in one buffer and the other by turns."""
        self._expand(assembly, 0)
        load_pieces(assembly, following, early=True)
        pairs = (self.layout.groups - 1) // 2
        if pairs:
            with assembly.loop(count=pairs):
                for buffer in (0, 1):
                    self._group(assembly, buffer, following=1 - buffer)
        if self.layout.groups % 2 == 0:
            self._group(assembly, 0, following=1)
        self._group(assembly, (self.layout.groups - 1) % 2)

    def _expand(self, assembly: Assembly, buffer: int) -> None:
        """Keys and values of the next group of heads become weights."""
        layout, cache = self.layout, int(Register.CACHE)
        first = buffer * layout.words
        split = layout.expand(Expand.COLUMNS)["address"]
        for kind, words, offset in (
            (Expand.ROWS, (first, first + split), 0),
            (Expand.COLUMNS, (first + split, first + layout.words), layout.token_bytes // 2),
        ):
            assembly.expand(
                words,
                register=cache,
                tokens=int(Register.SEEN),
                section="cache",
                offset=offset,
                **{**layout.expand(kind), "address": words[0]},
            )
        assembly.set(cache, layout.row_bytes, cache)

    def _group(self, assembly: Assembly, buffer: int, following: int | None = None) -> None:
        """All queries of one group of heads. `following` is the next group's buffer."""
        stride, seen = self.context.stride, int(Register.SEEN)
        self._clear(assembly)
        assembly.set(CURSOR, 0, int(Register.RECORD))
        assembly.set(PLACE, 0, int(Register.VISIBLE) if self.operation.causal else seen)
        self._load(assembly, 0)
        self._scores(assembly, buffer)
        self._drain(assembly)
        self._load(assembly, stride)
        if following is not None:
            self._expand(assembly, following)
        with assembly.loop(register=int(Register.TOKENS)):
            self._scores(assembly, buffer)
            self._store(assembly)
            self._exponentials(assembly)
            if self.operation.causal:
                assembly.set(PLACE, 1, PLACE)
            self._drain(assembly)
            self._context(assembly, buffer)
            self._load(assembly, 2 * stride)
            assembly.set(CURSOR, stride, CURSOR)
        self._store(assembly)
        record = int(Register.RECORD)
        assembly.set(record, self.layout.row_bytes, record)

    def _clear(self, assembly: Assembly) -> None:
        """No exponentials of an earlier sequence or group of heads: columns behind the last token
        that a query sees have to be 0."""
        layout, config = self.layout, self.context.config
        groups = layout.context_groups * config.arrays
        assembly.vector(
            count=groups // config.chunk_groups,
            source=Source.ZERO,
            write_columns=1,
            column_address=layout.product_groups,
        )

    def _load(self, assembly: Assembly, ahead: int) -> None:
        section = self._section(self.operation.query)
        config, layout = self.context.config, self.layout
        assembly.load_buffer(
            Memory.ACTIVATIONS,
            0,
            layout.together * layout.padded // config.group,
            CURSOR,
            offset=section.offset + ahead,
            section=section.name,
        )

    def _section(self, tensor):
        home = self.context.home(tensor)
        return self.context.record.section(home, self.layout.elements, columns=True)

    def _scores(self, assembly: Assembly, buffer: int) -> None:
        layout = self.layout
        first = buffer * layout.words
        assembly.product(
            mode=Mode.PLAIN,
            groups=layout.product_groups,
            activations=0,
            descriptors=buffer * layout.product_groups,
            weights=(first, first + layout.expand(Expand.COLUMNS)["address"]),
            slots=(0, 2 * layout.together * layout.score_slots),
        )

    def _drain(self, assembly: Assembly) -> None:
        """Scores of all heads to vector memory, with their maxima. Causal attention drains what a
        query may not see as well, so its maxima are taken in a second step."""
        layout, config = self.layout, self.context.config
        chunks, causal = config.chunks(layout.most_tokens), self.operation.causal
        for head in range(layout.together):
            maximum = {
                "sums": Sums.MAXIMUM,
                "sum_address": isa.reduction_address(head, SCORE_GAIN),
            }
            assembly.vector(
                count=chunks,
                source=Source.DRAIN_PLANES,
                drain=2 * head * layout.score_slots * config.slot_chunks,
                plane_stride=layout.score_slots * config.slot_chunks,
                scale=Scale.ROWS,
                write_vector=1,
                vector_address=head * chunks,
                bounded=1,
                register=int(Register.SEEN),
                **({} if causal else maximum),
            )
            if causal:
                assembly.vector(
                    count=chunks,
                    source=Source.OPERAND,
                    operand0=head * chunks,
                    bounded=1,
                    register=PLACE,
                    **maximum,
                )

    def _exponentials(self, assembly: Assembly) -> None:
        layout, config = self.layout, self.context.config
        chunks = config.chunks(layout.most_tokens)
        for head in range(layout.together):
            first = head * config.groups_per_array(layout.most_tokens)
            assembly.vector(
                count=chunks,
                source=Source.OPERAND,
                operand0=head * chunks,
                scale=Scale.SCALAR,
                parameters=head,
                function=Function.TABLE0,
                write_columns=1,
                column_address=layout.product_groups + first,
                sums=Sums.MASS,
                sum_address=isa.reduction_address(MOST_HEADS + head, self.operation.gain),
                bounded=1,
                register=PLACE,
            )

    def _context(self, assembly: Assembly, buffer: int) -> None:
        layout = self.layout
        start = buffer * layout.words
        first = 2 * layout.together * layout.score_slots
        assembly.product(
            mode=Mode.PLAIN,
            groups=layout.context_groups,
            activations=layout.product_groups,
            descriptors=self._value_descriptors(buffer),
            weights=(start + layout.expand(Expand.COLUMNS)["address"], start + layout.words),
            slots=(first, first + 2 * layout.together * layout.context_slots),
        )

    def _store(self, assembly: Assembly) -> None:
        """The context of the query before the cursor's, divided by its masses."""
        layout, config = self.layout, self.context.config
        section = self._section(self.operation.output)
        first = 2 * layout.together * layout.score_slots
        for head in range(layout.together):
            inside = head * layout.padded // config.group * ITEM_BYTES
            assembly.set(SPARE, section.offset + inside - self.context.stride, CURSOR)
            assembly.vector(
                count=config.chunks(layout.padded),
                source=Source.DRAIN_PLANES,
                drain=(first + 2 * head * layout.context_slots) * config.slot_chunks,
                plane_stride=layout.context_slots * config.slot_chunks,
                scale=Scale.SCALAR,
                parameters=MOST_HEADS + head,
                store=Store.COLUMNS,
                register=SPARE,
                section=section.name,
            )

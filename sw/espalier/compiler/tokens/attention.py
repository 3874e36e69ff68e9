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

from collections.abc import Sequence
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

    def write(self, assembly: Assembly, following: Sequence[Piece]) -> None:
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
                self._group(assembly, 0, expanded=False)
        else:
            self._alternate(assembly, following)
        rest = layout.token_bytes * layout.most_tokens - layout.groups * layout.row_bytes
        assembly.set(int(Register.CACHE), rest, int(Register.CACHE))
        assembly.set(int(Register.RECORD), -layout.groups * layout.row_bytes, int(Register.RECORD))

    def _alternate(self, assembly: Assembly, following: Sequence[Piece]) -> None:
        """All groups of heads, in one buffer and the other by turns. What the next pass loads early
        comes when nothing more is expanded."""
        groups = self.layout.groups
        self._group(assembly, 0, later=1, expanded=False)
        pairs = (groups - 2) // 2
        if pairs:
            with assembly.loop(count=pairs):
                for buffer in (1, 0):
                    self._group(assembly, buffer, later=1 - buffer)
        if groups % 2:
            self._group(assembly, 1, later=0)
        self._group(assembly, (groups - 1) % 2, following=following)

    def _expand(self, assembly: Assembly, buffer: int, kind: Expand) -> None:
        """Keys (ROWS) or values of the next group of heads become weights. The values' EXPAND comes
        last and moves on to the group behind."""
        layout, cache = self.layout, int(Register.CACHE)
        fields = layout.expand(kind)
        first = buffer * layout.words + fields["address"]
        split = layout.expand(Expand.COLUMNS)["address"]
        keys = kind == Expand.ROWS
        assembly.expand(
            (first, first + (split if keys else layout.words - split)),
            register=cache,
            tokens=int(Register.SEEN),
            section="cache",
            offset=0 if keys else layout.token_bytes // 2,
            **{**fields, "address": first},
        )
        if not keys:
            assembly.set(cache, layout.row_bytes, cache)

    def _group(
        self,
        assembly: Assembly,
        buffer: int,
        *,
        later: int | None = None,
        following: Sequence[Piece] = (),
        expanded: bool = True,
    ) -> None:
        """All queries of one group of heads.

        later: the next group's buffer, if it is to be expanded beside the loop. following: what the
        next pass loads early. expanded: this group is expanded already.
        """
        stride, seen = self.context.stride, int(Register.SEEN)
        if not expanded:
            self._expand(assembly, buffer, Expand.ROWS)
        self._clear(assembly)
        assembly.set(CURSOR, 0, int(Register.RECORD))
        assembly.set(PLACE, 0, int(Register.VISIBLE) if self.operation.causal else seen)
        self._load(assembly, 0)
        self._scores(assembly, buffer)
        if not expanded:
            self._expand(assembly, buffer, Expand.COLUMNS)
        self._drain(assembly)
        self._load(assembly, stride)
        if later is not None:
            self._expand(assembly, later, Expand.ROWS)
            self._expand(assembly, later, Expand.COLUMNS)
        load_pieces(assembly, following, early=True)
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

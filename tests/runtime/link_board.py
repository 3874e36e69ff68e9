"""A board at the other end of a pseudo-terminal: spec.link in Python over any transport, on a line
that damages bytes."""

from __future__ import annotations

import os
import random
import select
import threading
import tty

from espalier.spec import link, registers
from espalier.spec.link import Command, Status

NAMES = {register.address: name for name, register in registers.REGISTERS.items()}


class LinkBoard(threading.Thread):
    """Serves `transport` at `path` until it is left.

    Parameters
    ----------
    damage: probability that a byte is changed or lost, in each direction.
    lose: called with (command, address); a true answer drops the reply.

    Members
    -------
    executed: (command, address, payload) of every request that was executed.
    """

    def __init__(self, transport, *, damage=0.0, seed=0, lose=lambda command, address: False):
        super().__init__(daemon=True)
        self.transport, self.damage, self.lose = transport, damage, lose
        self.rng, self.executed, self._last = random.Random(seed), [], None
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._end, self._ending = os.pipe()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        os.write(self._ending, b"x")
        self.join()
        for file in (self._master, self._slave, self._end, self._ending):
            os.close(file)

    def run(self):
        deframer = link.Deframer()
        while True:
            ready = select.select([self._master, self._end], [], [])[0]
            if self._end in ready:
                return
            for content in deframer.feed(self._damaged(os.read(self._master, 4096))):
                reply = self._reply(content)
                if reply is not None:
                    os.write(self._master, self._damaged(link.framed(reply)))

    def _damaged(self, data):
        out = bytearray()
        for byte in data:
            if self.rng.random() >= self.damage:
                out.append(byte)
            elif self.rng.random() < 0.7:
                out.append(byte ^ 1 << self.rng.randrange(8))
        return bytes(out)

    def _reply(self, content):
        if content is None or len(content) < link.REQUEST_BYTES:
            return link.reply(0, 0, b"", Status.DAMAGED)
        header = int.from_bytes(content[: link.REQUEST_BYTES], "little")
        fields, payload = link.REQUEST.unpack(header), content[link.REQUEST_BYTES :]
        sequence, command = fields["sequence"], Command(fields["command"])
        if not (command in link.WRITES and sequence == self._last):
            self.executed.append((command, fields["address"], payload))
            data = self._execute(command, fields["address"], fields["length"], payload)
        else:
            data = b""
        self._last = sequence
        if self.lose(command, fields["address"]):
            return None
        return link.reply(sequence, command, data, Status.OK)

    def _execute(self, command, address, length, payload):
        if command is Command.HELLO:
            greeting = {
                "version": link.VERSION,
                "most_payload": link.MOST_PAYLOAD_BYTES,
                "nonce": address,
                "memory_base": self.transport.window_base,
                "memory_bytes": self.transport.window_bytes,
            }
            return link.GREETING.pack(greeting).to_bytes(16, "little")
        if command is Command.READ_MEMORY:
            return self.transport.read(address, length)
        if command is Command.WRITE_MEMORY:
            self.transport.write(address, payload)
            return b""
        for at in range(0, length, 4):
            name = NAMES[address + at]
            if command is Command.WRITE_REGISTERS:
                value = int.from_bytes(payload[at : at + 4], "little")
                self.transport.write_register(name, value)
        if command is Command.WRITE_REGISTERS:
            return b""
        words = (self.transport.read_register(NAMES[address + at]) for at in range(0, length, 4))
        return b"".join(word.to_bytes(4, "little") for word in words)

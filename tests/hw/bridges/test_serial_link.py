"""The board's end of the serial link against spec.link, with pauses on the line and on both buses,
and with frames that arrive damaged."""

from __future__ import annotations

import random

import pytest
from serial_bench import BASE, BYTES, ByteLine, WireLine, simulate_link

from espalier.spec import link
from espalier.spec.link import Command, Status
from espalier_hw.bridges.serial_link import LinkCore, SerialLink

CLOCKS = (4, 5, 8)


def run(script, seed, **line):
    rng = random.Random(seed)
    dut = LinkCore(memory_bytes=BYTES, memory_base=BASE)
    simulate_link(dut, ByteLine(dut, rng, **line), script, rng)


@pytest.mark.parametrize("clocks", CLOCKS)
def test_a_request_goes_over_the_wires(clocks):
    rng = random.Random(clocks)
    dut = SerialLink(clocks, memory_bytes=BYTES, memory_base=BASE)

    async def script(ctx, host, registers, memory):
        data = bytes([link.FLAG, 0, 0xFF, 0x55]) + rng.randbytes(12)
        answer = await host.ask(ctx, Command.WRITE_MEMORY, 32, 16, data)
        assert answer == (Status.OK, b"")
        assert await host.ask(ctx, Command.READ_MEMORY, 32, 16) == (Status.OK, data)

    simulate_link(dut, WireLine(dut, clocks, rng), script, rng)


@pytest.mark.parametrize("seed", range(2))
def test_registers_and_memory_read_back(seed):
    rng = random.Random(seed)

    async def script(ctx, host, registers, memory):
        status, greeting = await host.ask(ctx, Command.HELLO, 0x7E7D_5E5D)
        assert (status, len(greeting)) == (Status.OK, link.GREETING.width // 8)
        fields = link.GREETING.unpack(int.from_bytes(greeting, "little"))
        assert fields == {
            "version": link.VERSION,
            "most_payload": link.MOST_PAYLOAD_BYTES,
            "nonce": 0x7E7D_5E5D,
            "memory_base": BASE,
            "memory_bytes": BYTES,
        }
        words = rng.randbytes(28)
        expected = registers.data[:0x40] + words + registers.data[0x5C:]
        assert await host.ask(ctx, Command.WRITE_REGISTERS, 0x40, 28, words) == (Status.OK, b"")
        assert registers.data == expected
        assert registers.writes == [(0x40 + i, words[i : i + 4]) for i in range(0, 28, 4)]
        answer = await host.ask(ctx, Command.READ_REGISTERS, 0x3C, 32)
        assert answer == (Status.OK, bytes(expected[0x3C:0x5C]))
        expected = bytearray(memory.data)
        for size, offset in ((256, BYTES - 256), (16, 0)):
            data = rng.choice([rng.randbytes(size), bytes([link.FLAG, link.ESCAPE] * (size // 2))])
            expected[offset : offset + size] = data
            answer = await host.ask(ctx, Command.WRITE_MEMORY, offset, size, data)
            assert answer == (Status.OK, b"")
        assert memory.data == expected
        for size, offset in ((256, BYTES - 256), (16, 16)):
            answer = await host.ask(ctx, Command.READ_MEMORY, offset, size)
            assert answer == (Status.OK, bytes(expected[offset : offset + size]))

    run(script, seed)


REFUSED = {
    "unknown command": (9, 0, 0, b"", Status.MALFORMED),
    "hello with a length": (Command.HELLO, 0, 4, b"", Status.MALFORMED),
    "read of nothing": (Command.READ_MEMORY, 0, 0, b"", Status.MALFORMED),
    "read of too much": (Command.READ_MEMORY, 0, 272, b"", Status.MALFORMED),
    "read with a payload": (Command.READ_MEMORY, 0, 16, bytes(16), Status.MALFORMED),
    "half a beat": (Command.READ_MEMORY, 0, 24, b"", Status.MALFORMED),
    "inside a beat": (Command.WRITE_MEMORY, 8, 16, bytes(16), Status.MALFORMED),
    "half a word": (Command.READ_REGISTERS, 0, 6, b"", Status.MALFORMED),
    "inside a word": (Command.WRITE_REGISTERS, 2, 4, bytes(4), Status.MALFORMED),
    "less payload than said": (Command.WRITE_MEMORY, 0, 32, bytes(16), Status.MALFORMED),
    "more payload than said": (Command.WRITE_MEMORY, 0, 16, bytes(32), Status.MALFORMED),
    "behind the registers": (Command.WRITE_REGISTERS, 0xFC, 8, bytes(8), Status.OUTSIDE),
    "behind the memory": (Command.WRITE_MEMORY, BYTES - 16, 32, bytes(32), Status.OUTSIDE),
    "far outside": (Command.WRITE_MEMORY, 0x8000_0000, 16, bytes(16), Status.OUTSIDE),
    "around the end of all": (Command.READ_MEMORY, 0xFFFF_FFF0, 32, b"", Status.OUTSIDE),
}


def test_impossible_requests_are_refused_and_change_nothing():
    async def script(ctx, host, registers, memory):
        before = bytes(memory.data)
        for name, (command, address, length, payload, status) in REFUSED.items():
            answer = await host.ask(ctx, command, address, length, payload)
            assert answer == (status, b""), name
        assert memory.data == before and not registers.writes
        assert not memory.writes

    run(script, 1)


def test_a_repeated_write_is_answered_and_not_executed():
    async def script(ctx, host, registers, memory):
        start = bytes([3, 0, 0, 0])
        for again in (False, True, True):
            answer = await host.ask(ctx, Command.WRITE_REGISTERS, 0x0C, 4, start, again=again)
            assert answer == (Status.OK, b"")
        assert registers.writes == [(0x0C, start)]
        # a read in between moves the number on, and the same write with a new number counts
        assert (await host.ask(ctx, Command.READ_REGISTERS, 0x0C, 4))[1] == start
        await host.ask(ctx, Command.WRITE_REGISTERS, 0x0C, 4, start)
        assert registers.writes == [(0x0C, start)] * 2
        # a HELLO of a new process takes the number that its next write does not have
        host.sequence = (host.sequence - 1) % 256
        await host.ask(ctx, Command.HELLO, 1)
        await host.ask(ctx, Command.WRITE_REGISTERS, 0x0C, 4, start)
        assert registers.writes == [(0x0C, start)] * 3

    run(script, 2)


def test_a_read_is_repeated_and_told_anew():
    async def script(ctx, host, registers, memory):
        registers.data[16:20] = bytes([1, 0, 0, 0])
        assert (await host.ask(ctx, Command.READ_REGISTERS, 0x10, 4))[1] == bytes([1, 0, 0, 0])
        registers.data[16] = 2
        again = await host.ask(ctx, Command.READ_REGISTERS, 0x10, 4, again=True)
        assert again == (Status.OK, bytes([2, 0, 0, 0]))

    run(script, 3)


def test_bus_errors_are_told():
    async def script(ctx, host, registers, memory):
        memory.bad = {BASE + 64}
        status, data = await host.ask(ctx, Command.READ_MEMORY, 32, 64)
        assert (status, len(data)) == (Status.BUS_ERROR, 64)
        write = Command.WRITE_MEMORY, 64, 32, bytes(32)
        assert (await host.ask(ctx, *write))[0] == Status.BUS_ERROR
        assert (await host.ask(ctx, *write, again=True))[0] == Status.BUS_ERROR
        registers.bad = {0x20}
        write = Command.WRITE_REGISTERS, 0x1C, 12, bytes(12)
        assert (await host.ask(ctx, *write))[0] == Status.BUS_ERROR
        assert [address for address, _ in registers.writes] == [0x1C, 0x20]
        assert (await host.ask(ctx, Command.READ_MEMORY, 0, 16))[0] == Status.OK

    run(script, 4)


def bit_flipped(frame, rng):
    place = rng.randrange(1, len(frame) - 1)
    return frame[:place] + bytes([frame[place] ^ 1 << rng.randrange(8)]) + frame[place + 1 :]


def byte_lost(frame, rng):
    place = rng.randrange(1, len(frame) - 1)
    return frame[:place] + frame[place + 1 :]


def byte_added(frame, rng):
    place = rng.randrange(1, len(frame))
    return frame[:place] + rng.randbytes(1) + frame[place:]


def truncated(frame, rng):
    return frame[: rng.randrange(1, len(frame))]


def headless(frame, rng):
    return frame[rng.randrange(1, len(frame)) :]


def overlong(frame, rng):
    return frame[:-1] + bytes(rng.randrange(1, 300)) + frame[-1:]


def noise(frame, rng):
    return rng.randbytes(rng.randrange(1, 40))


def run_together(frame, rng):
    return frame[:-1] + frame[1:]


DAMAGES = (bit_flipped, byte_lost, byte_added, truncated, headless, overlong, noise, run_together)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_frames_are_never_executed_and_the_next_one_is(damage):
    rng = random.Random(damage.__name__)

    async def script(ctx, host, registers, memory):
        expected = bytearray(memory.data)
        for _ in range(3):
            data, offset = rng.randbytes(32), 16 * rng.randrange(BYTES // 16 - 2)
            content = link.request(200, Command.WRITE_MEMORY, offset, 32, data)
            host.line.sent.extend(damage(link.framed(content), rng))
            host.line.sent.append(link.FLAG)
            while (answer := await host.reply(ctx, 1500)) is not None:
                # damage outside the frame proper leaves it whole: then it has to be done
                if answer[-1] == Status.OK:
                    expected[offset : offset + 32] = data
                else:
                    assert answer[-1] == Status.DAMAGED
            assert memory.data == expected
            assert await host.ask(ctx, Command.READ_MEMORY, offset, 32) == (
                Status.OK,
                bytes(expected[offset : offset + 32]),
            )

    run(script, 5)


def test_flags_alone_are_no_frames_and_one_flag_divides_two():
    async def script(ctx, host, registers, memory):
        host.line.sent.extend(bytes([link.FLAG]) * 20)
        assert await host.reply(ctx, 1500) is None
        first, second = (link.framed(link.request(n, Command.READ_REGISTERS, 0, 4)) for n in (1, 2))
        host.line.sent.extend(first[:-1] + second)
        answers = [await host.reply(ctx) for _ in range(2)]
        assert [answer[0] for answer in answers] == [1, 2]

    run(script, 6, gaps=(39,))

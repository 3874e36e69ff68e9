"""Frames of the serial link: a published CRC, escapes, and whatever a line can do to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.spec import link
from espalier.spec.link import Command, Deframer, Status, framed

contents = st.binary(min_size=link.REPLY_BYTES + 1, max_size=link.LONGEST_BODY - link.CRC_BYTES)


def test_a_frame_by_hand():
    """CRC-32 of the digits 1 to 9 is 0xCBF43926."""
    assert framed(b"123456789") == b"\x7e123456789\x26\x39\xf4\xcb\x7e"
    assert framed(b"\x7e}")[:5] == b"\x7e\x7d\x5e\x7d\x5d"
    request = link.request(1, Command.WRITE_REGISTERS, 0x0C, 4, b"\x03\0\0\0")
    assert request == bytes([1, 2, 4, 0, 0x0C, 0, 0, 0, 3, 0, 0, 0])
    assert link.reply(1, Command.WRITE_REGISTERS, b"", Status.OK) == bytes([1, 0x82, 0, 0, 0])


@given(st.lists(contents, max_size=4), st.integers(1, 7))
def test_frames_come_back_however_the_bytes_are_cut(parts, size):
    line, deframer, found = b"".join(map(framed, parts)), Deframer(), []
    for at in range(0, len(line), size):
        found += deframer.feed(line[at : at + size])
    assert found == parts


@given(st.binary(max_size=600), contents)
def test_a_whole_frame_is_found_behind_any_noise(noise, content):
    found = list(Deframer().feed(noise + framed(content)))
    assert found[-1] == content


@given(contents, st.data())
def test_a_changed_byte_is_never_taken_for_the_truth(content, data):
    frame = bytearray(framed(content))
    place = data.draw(st.integers(1, len(frame) - 2))
    frame[place] ^= data.draw(st.integers(1, 255))
    assert content not in list(Deframer().feed(bytes(frame)))


def test_lengths_beyond_their_field_are_refused():
    with pytest.raises(ValueError, match=r"length must be in 0\.\.65535, not 65536"):
        link.request(0, Command.READ_MEMORY, 0, 1 << 16)

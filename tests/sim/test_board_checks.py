"""The simulated board's own checks: a fabric that breaks the rules, one at a time."""

from __future__ import annotations

from pathlib import Path

import board_host as host
import pytest

from espalier.spec.config import TINY
from espalier_sim.board import build
from espalier_sim.board.process import WINDOW_BASE, Board

MISBEHAVING = """
// Answers every register access with 0. A write to register R0 (0x40) says what goes wrong next:
// 1 RID, 2 RLAST, 3 read data that change while they wait, 4 a response that nobody waits for;
// from 5 on one command on the memory port, at the address in R1 (0x44).
module top(input clk, rst,
  input lw__awvalid, output lw__awready, input [11:0] lw__awid, input [20:0] lw__awaddr,
  input [3:0] lw__awlen, input [2:0] lw__awsize, input [1:0] lw__awburst,
  input lw__wvalid, output lw__wready, input [11:0] lw__wid, input [31:0] lw__wdata,
  input [3:0] lw__wstrb, input lw__wlast,
  output reg lw__bvalid, input lw__bready, output reg [11:0] lw__bid, output [1:0] lw__bresp,
  input lw__arvalid, output lw__arready, input [11:0] lw__arid, input [20:0] lw__araddr,
  input [3:0] lw__arlen, input [2:0] lw__arsize, input [1:0] lw__arburst,
  output reg lw__rvalid, input lw__rready, output [11:0] lw__rid, output [31:0] lw__rdata,
  output [1:0] lw__rresp, output lw__rlast,
  output [31:0] sdram__address, output sdram__read, output sdram__write,
  output [7:0] sdram__burstcount, output [127:0] sdram__writedata,
  output [15:0] sdram__byteenable, input sdram__waitrequest, input [127:0] sdram__readdata,
  input sdram__readdatavalid,
  input hold, output drained, output interrupt, output [9:0] leds);
  reg [31:0] kind, where, drift;
  reg [20:0] address;
  reg [11:0] id;
  reg [3:0] left;
  reg addressed, go, second;
  assign {lw__bresp, lw__rresp, drained, interrupt, leds} = 0;
  assign lw__awready = ~addressed & ~lw__bvalid;
  assign lw__wready = addressed;
  assign lw__arready = ~lw__rvalid;
  assign lw__rid = id ^ (kind == 1);
  assign lw__rlast = left == 0 && kind != 2;
  assign lw__rdata = kind == 3 ? drift : 0;
  assign sdram__address = where + (kind == 8 ? drift << 4 : 0);
  assign sdram__read = go & (kind == 5 | kind == 12 | (kind == 7 & second));
  assign sdram__write = go & (kind != 5) & ~(kind == 7 & second);
  assign sdram__burstcount = kind == 10 ? 17 : kind == 7 ? 2 : 1;
  assign sdram__byteenable = kind == 9 ? 16'h00ff : 16'hffff;
  assign sdram__writedata = 0;
  always @(posedge clk) begin
    drift <= drift + 1;
    if (lw__awvalid & lw__awready) begin
      addressed <= 1; lw__bid <= lw__awid; address <= lw__awaddr;
    end
    if (lw__bready) lw__bvalid <= 0;
    if (lw__wvalid & lw__wready & lw__wlast) begin
      addressed <= 0; lw__bvalid <= 1;
      if (address == 'h44) where <= lw__wdata;
      if (address == 'h40) begin kind <= lw__wdata; go <= lw__wdata >= 5; second <= 0; end
    end else if (kind == 4 & drift[3:0] == 0) lw__bvalid <= 1;
    if (lw__arvalid & lw__arready) begin
      lw__rvalid <= 1; id <= lw__arid; left <= lw__arlen;
    end else if (lw__rvalid & lw__rready) begin
      left <= left - 1;
      if (left == 0) lw__rvalid <= 0;
    end
    if (go & ~sdram__waitrequest) begin second <= 1; go <= kind == 7 & ~second; end
    if (rst) begin
      kind <= 0; addressed <= 0; go <= 0; drift <= 0; lw__bvalid <= 0; lw__rvalid <= 0;
    end
  end
endmodule
"""
PROVOKE = """
transport = open_de1_soc(root=root)(TINY)
transport.write_register("R1", int(sys.argv[3]))
for _ in range(8):
    transport.write_register("R0", int(sys.argv[2]))
    for _ in range(4):
        transport.read_register("STATUS")
"""


@pytest.fixture(scope="module")
def misbehaving() -> Path:
    return build.program_of(MISBEHAVING, "a misbehaving fabric")


@pytest.mark.parametrize(
    ("kind", "offset", "message"),
    [
        (0, 0, ""),
        (1, 0, "RID is not the id of the oldest read"),
        (2, 0, "RLAST at the wrong beat"),
        (3, 0, "R changed before it was taken"),
        (4, 0, "a response before the last beat"),
        (5, 1 << 20, "read burst leaves the window"),
        (6, -16, "write burst leaves the window"),
        (6, 0, ""),
        (7, 0, "read inside a write burst"),
        (8, 0, "command changed before it was taken"),
        (9, 0, "write is not of whole beats"),
        (10, 0, "write burst is not 1..16 beats"),
        (6, 8, "write burst starts inside a beat"),
        (12, 0, "read and write at once"),
    ],
)
def test_every_breach_is_seen(misbehaving: Path, kind: int, offset: int, message: str) -> None:
    with Board(TINY, program=misbehaving, seed=2, stall=0.8) as board:
        end = host.ended(host.start(board, PROVOKE, kind, WINDOW_BASE + offset))
        assert end.status == 0, end.err
        breach = board.report().breach
        assert message in breach and bool(message) == bool(breach)


@pytest.mark.parametrize("address", [WINDOW_BASE - 4, WINDOW_BASE + (1 << 20) + (1 << 16) - 4])
def test_a_changed_guard_is_seen(misbehaving: Path, address: int) -> None:
    with Board(TINY, program=misbehaving) as board:
        assert not board.report().breach
        board.poke({address: 0})
        assert f"guard changed, bus address {address:#x}" in board.report().breach

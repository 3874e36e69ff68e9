"""The DE1-SoC's pins, clock and processor system around `De1SocFabric`."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Out

from espalier.spec.config import Config

from ..bridges.interfaces import Axi3
from ..bridges.reset import DrainedReset
from .de1_soc import LEDS, De1SocFabric

OSCILLATOR_MHZ = 50
PORT_CONFIGURATION = {
    "axi_mm_select": "000000",
    "cport_type": "000000111111",
    "port_width": "000000010110",
    "rfifo_cport_map": "0010000100000000",
    "wfifo_cport_map": "0010000100000000",
    "cport_rfifo_map": "000000000011010000",
    "cport_wfifo_map": "000000000011010000",
}
"""Of the memory controller's FPGA side: port 0 with 128 bits on FIFOs 0 and 1, ports 1 and 2 (not
used) with 64 bits, reads and writes each, Avalon; what preloaders commonly release."""
COMMAND_PORTS, DATA_FIFOS = 3, 4


class De1SocTop(Elaboratable):
    """`De1SocFabric` at `clock_mhz` from a PLL, behind the hard blocks of the processor system.

    Reset follows the processor's cold and warm resets (h2f_rst_n) and the PLL's lock, after the
    memory port has drained. Bit 0 of the FPGA manager's GPO register (0xFF706010) holds further
    bursts off the port, bit 0 of GPI (0xFF706014) says that it has drained: for who reconfigures
    the chip in the middle of a run. Interrupt 0 of the FPGA (SPI 40) is the accelerator's.
    """

    def __init__(self, config: Config, *, clock_mhz: float = 100):
        self._clock_mhz = clock_mhz
        self.fabric = De1SocFabric(config)

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.base = ClockDomain(reset_less=True)
        m.domains.sync = ClockDomain()
        m.d.comb += ClockSignal("sync").eq(ClockSignal("base"))
        m.submodules.fabric = fabric = self.fabric
        m.submodules.reset = reset = DomainRenamer("base")(DrainedReset())
        stop, stopped = Signal(), Signal()
        m.submodules.hold = FFSynchronizer(stop, stopped, o_domain="base")
        m.d.comb += [
            ResetSignal("sync").eq(reset.reset),
            reset.drained.eq(fabric.drained),
            fabric.hold.eq(reset.hold | stopped),
        ]
        self._clock(m, platform, reset)
        self._lightweight(m, fabric.lw)
        self._memory(m, fabric.sdram)
        m.submodules.general_purpose = Instance(
            "cyclonev_hps_interface_mpu_general_purpose",
            i_gp_in=Cat(fabric.drained, Const(0, 31)),
            o_gp_out=Cat(stop, Signal(31)),
        )
        m.submodules.interrupts = Instance(
            "cyclonev_hps_interface_interrupts", i_irq=Cat(fabric.interrupt, Const(0, 63))
        )
        for number in range(LEDS):
            m.d.comb += platform.request("led", number).o.eq(fabric.leds[number])
        return m

    def _clock(self, m, platform, reset):
        """The PLL, and what asks for a reset: its lock lost, or the processor in reset."""
        locked, running = Signal(), Signal()
        m.submodules.pll = Instance(
            "altera_pll",
            p_reference_clock_frequency=f"{OSCILLATOR_MHZ}.0 MHz",
            p_operation_mode="direct",
            p_fractional_vco_multiplier="false",
            p_number_of_clocks=1,
            p_output_clock_frequency0=f"{self._clock_mhz:.6f} MHz",
            p_phase_shift0="0 ps",
            p_duty_cycle0=50,
            p_pll_type="General",
            p_pll_subtype="General",
            i_refclk=platform.request("clk50", 0, dir="-").io,
            i_rst=Const(0),
            o_outclk=ClockSignal("base"),
            o_locked=locked,
        )
        m.submodules.clocks_resets = Instance(
            "cyclonev_hps_interface_clocks_resets",
            i_f2h_pending_rst_ack=Const(1),
            i_f2h_warm_rst_req_n=Const(1),
            i_f2h_dbg_rst_req_n=Const(1),
            i_f2h_cold_rst_req_n=Const(1),
            o_h2f_rst_n=running,
        )
        ready = Signal()
        m.submodules.ready = FFSynchronizer(running & locked, ready, o_domain="base")
        m.d.comb += reset.request.eq(~ready)
        for name in ("fpga2hps", "hps2fpga"):
            m.submodules[name] = Instance(
                f"cyclonev_hps_interface_{name}", i_port_size_config=Const(3, 2)
            )

    def _lightweight(self, m, bus):
        """Lock, cache and protection bits stay unconnected."""
        ports = {
            # `flow` is the processor's: what it drives is the hard block's output
            f"{'o' if member.flow is Out else 'i'}_{name}": getattr(bus, name)
            for name, member in Axi3().members.items()
        }
        m.submodules.lightweight = Instance(
            "cyclonev_hps_interface_hps2fpga_light_weight", i_clk=ClockSignal("sync"), **ports
        )

    def _memory(self, m, port):
        """Port 0 in Avalon coding: the command's word address is in words of 128 bits, read and
        write data each go over two FIFOs of 64 bits."""
        clock, ready, valid = ClockSignal("sync"), Signal(), Signal(DATA_FIFOS)
        data = [Signal(80, name=f"rd_data_{n}") for n in range(DATA_FIFOS)]
        command = Cat(
            *(port.read, port.write, port.address[4:], Const(0, 4)),
            *(port.burstcount, Const(0, 18)),
        )
        m.d.comb += [
            port.waitrequest.eq(~ready),
            port.readdata.eq(Cat(data[0][:64], data[1][:64])),
            port.readdatavalid.eq(valid[1]),
        ]
        ports = {
            f"i_cfg_{name}": Const(int(bits, 2), len(bits))
            for name, bits in PORT_CONFIGURATION.items()
        }
        for n in range(COMMAND_PORTS):
            ports[f"i_cmd_port_clk_{n}"] = clock
            ports[f"i_cmd_valid_{n}"] = port.read | port.write if n == 0 else Const(0)
            ports[f"i_cmd_data_{n}"] = command if n == 0 else Const(0, 60)
            ports[f"i_wrack_ready_{n}"] = Const(1)
        for n in range(DATA_FIFOS):
            half = (port.writedata.word_select(n & 1, 64), port.byteenable.word_select(n & 1, 8))
            ports |= {f"i_{side}_clk_{n}": clock for side in ("wr", "rd")}
            ports[f"i_wr_data_{n}"] = (
                Cat(half[0], Const(0, 16), half[1], Const(0, 2)) if n < 2 else Const(0, 90)
            )
            ports[f"i_rd_ready_{n}"] = Const(1)
            ports[f"o_rd_data_{n}"] = data[n]
            ports[f"o_rd_valid_{n}"] = valid[n]
        m.submodules.sdram = Instance(
            "cyclonev_hps_interface_fpga2sdram", o_cmd_ready_0=ready, **ports
        )

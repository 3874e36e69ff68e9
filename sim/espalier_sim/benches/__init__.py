"""cocotb benches: one module per unit, started by `espalier_sim.runner`, the same on every simulator."""

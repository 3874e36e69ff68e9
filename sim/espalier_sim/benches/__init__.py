"""cocotb benches: one module per unit, the same on every simulator (`espalier_sim.runner`)."""

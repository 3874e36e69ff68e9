"""Between the accelerator's two ports and the buses and wires of a board."""

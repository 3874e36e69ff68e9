"""Boards: a fabric each (bridges and accelerator, plain ports) and a thin top with the pins."""

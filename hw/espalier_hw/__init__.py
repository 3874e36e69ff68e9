"""The accelerator in Amaranth: one unit a file, `accelerator` wires them, `boards/` puts it on a
board.
"""

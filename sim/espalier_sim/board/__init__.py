"""The board without a board: De1SocFabric in a process of its own, and its registers, memory and
interrupt as the files that the runtime maps on the board."""

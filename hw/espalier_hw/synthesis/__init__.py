"""Does it fit? Yosys' resource counts against the Cyclone V, and nextpnr's clock on an ECP5."""

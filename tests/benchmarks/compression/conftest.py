"""A data set like FSDD in small: each digit a tone of its own, with noise."""

import numpy as np
import pytest

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TAKES, RATE_HZ = 13, 8000


def tone(rng, digit):
    n = rng.integers(1200, 2400)
    wave = np.sin(2 * np.pi * (300 + 300 * digit) * np.arange(n) / RATE_HZ)
    return (8000 * wave + 300 * rng.standard_normal(n)).astype(np.int16)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Folder with fsdd.npz: two speakers, 10 digits, 13 takes."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    place = np.array([(d, s, t) for d in range(10) for s in (0, 1) for t in range(TAKES)])
    pieces = [tone(rng, digit) for digit, _, _ in place]
    np.savez(
        folder / "fsdd.npz",
        samples=np.concatenate(pieces),
        offsets=np.cumsum([0, *map(len, pieces)]),
        speakers=np.array(SPEAKERS),
        **{
            name: place[:, i].astype(np.uint8)
            for i, name in enumerate(("digit", "speaker", "take"))
        },
    )
    return folder

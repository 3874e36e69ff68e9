"""Log-mel features of speech, in NumPy alone.

A frame is WINDOW samples under a Hann window, frames start every HOP samples (or `hop`); the last
one that has any sample is padded with zeros. Its power spectrum (FFT_SIZE points) is summed by
BANDS triangles of equal width on the mel scale, mel(f) = 2595·log10(1 + f / 700), from LOWEST_HZ to
half the sampling rate, each with a peak of 1; the feature is ln(energy + FLOOR).

Source: the mel scale of O'Shaughnessy, Speech Communication (1987), as HTK uses it.
"""

from __future__ import annotations

import numpy as np

RATE_HZ = 8000
WINDOW = 320
HOP = 240
FFT_SIZE = 512
BANDS = 40
LOWEST_HZ = 60.0
FLOOR = 1e-7
"""Of samples in -1..1: a hundred times what 16-bit rounding leaves of silence in a band."""


def mel(hertz: np.ndarray | float) -> np.ndarray | float:
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def band_edges() -> np.ndarray:
    """Frequencies [BANDS + 2] in Hz where triangles start, peak and end."""
    steps = np.linspace(mel(LOWEST_HZ), mel(RATE_HZ / 2), BANDS + 2)
    return 700 * (10 ** (steps / 2595) - 1)


def triangles() -> np.ndarray:
    """Weights [BANDS, FFT_SIZE / 2 + 1] of the spectrum's points."""
    hertz = np.arange(FFT_SIZE // 2 + 1) * RATE_HZ / FFT_SIZE
    left, peak, right = (edge[:, None] for edge in np.lib.stride_tricks.sliding_window_view(
        band_edges(), BANDS
    ))  # fmt: skip
    rising, falling = (hertz - left) / (peak - left), (right - hertz) / (right - peak)
    return np.clip(np.minimum(rising, falling), 0, None)


def frames(samples: np.ndarray, hop: int = HOP) -> np.ndarray:
    """Windowed frames [T, WINDOW] of samples [n], T = ceil((n - WINDOW) / hop) + 1, at least 1."""
    count = max(0, -(-(len(samples) - WINDOW) // hop)) + 1
    padded = np.zeros((count - 1) * hop + WINDOW)
    padded[: len(samples)] = samples
    return np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop] * np.hanning(WINDOW)


def log_mel(samples: np.ndarray, hop: int = HOP) -> np.ndarray:
    """Features [T, BANDS] (float32) of int16 samples [n]."""
    spectrum = np.fft.rfft(frames(samples / 32768, hop), FFT_SIZE)
    power = (spectrum.real**2 + spectrum.imag**2) / WINDOW
    return np.log(power @ triangles().T + FLOOR).astype(np.float32)

#!/usr/bin/python3
"""soak_fits.py BUILD_DIRECTORY: tau, beta and contrast from scans whose truth is known, and whether their sigmas are honest.

Each scan is drawn here, by nothing that the fit or the simulator uses: in every pixel a complex Gaussian field with
<E(t) E*(t + lag)> = exp(-(lag / tau)^beta), by circulant embedding (Davies and Harte 1987: one Fourier transform of white
noise under the square root of the spectrum, exact where the spectrum is not negative), the intensity (1 - a) + a |E|^2 with
a^2 = contrast, and photons (0.1 per pixel and frame unless said) as arrivals of a Poisson process along the summed
intensity. It goes through isobar-analyze as a file of sparse frames. Low contrast wants more photons than that on these
4,096 pixels: where most fits are refused, the others are the lucky ones, and their pulls say nothing.

SCANS (200) of each of CASES ("tau=30,beta=1.5,contrast=0.1 tau=300,...,photons=0.3"; tau in frames), SEED (1). One JSON
line per case: for tau, beta and contrast the mean and the rms of (fit - truth) / sigma, the share within one sigma, and the
median sigma over the value; how many fits were refused, and why the first of them. With 200 scans an rms is known to 5 %.
"""
import json
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np
import scipy.fft

BUILD = sys.argv[1]
SCANS, SEED = int(os.environ.get("SCANS", "200")), int(os.environ.get("SEED", "1"))
N_ROWS, N_COLUMNS, FRAME_TIME_S = 64, 64, 0.1
N_PIXELS = N_ROWS * N_COLUMNS
BATCH_VALUES = 1 << 23
DEFAULT = ("tau=30,beta=0.5,contrast=0.1 tau=30,beta=1,contrast=0.01,photons=0.3 tau=30,beta=1.5,contrast=0.1 "
           "tau=30,beta=2,contrast=0.5 tau=300,beta=0.5,contrast=0.5 tau=300,beta=1,contrast=0.1 "
           "tau=300,beta=1.5,contrast=0.01,photons=0.3 tau=300,beta=2,contrast=0.1 tau=2000,beta=1,contrast=0.5 "
           "tau=2000,beta=1.5,contrast=0.1 tau=2000,beta=2,contrast=0.05")


def n_frames_of(tau):
    return 3000 if tau <= 300 else 12000


def amplitude_spectrum(n_frames, tau, beta):
    """Square root of the embedding's eigenvalues, float32; its length is at least four scans and sixteen tau."""
    n = 1 << int(np.ceil(np.log2(max(2 * n_frames, 16 * tau))))
    lag = np.minimum(np.arange(n), n - np.arange(n))
    eigenvalues = scipy.fft.fft(np.exp(-(lag / tau) ** beta)).real
    negative = -eigenvalues[eigenvalues < 0].sum() / eigenvalues.sum()
    assert negative < 1e-6, f"the embedding of tau {tau}, beta {beta} is not positive: {negative:.2e}"
    return np.sqrt(np.maximum(eigenvalues, 0) / n).astype(np.float32)


def draw_photons(random, amplitudes, n_frames, contrast, photons):
    """Sorted keys frame * N_PIXELS + pixel, one per photon."""
    n, a, keys = len(amplitudes), np.sqrt(contrast), []
    n_batch = max(1, BATCH_VALUES // n)
    for first in range(0, N_PIXELS, n_batch):
        shape = (min(n_batch, N_PIXELS - first), n)
        white = np.empty(shape, np.complex64)
        white.real, white.imag = random.standard_normal(shape, np.float32), random.standard_normal(shape, np.float32)
        field = scipy.fft.fft(white * amplitudes, axis=1, overwrite_x=True)[:, :n_frames]
        intensity = (1 - a) + a * 0.5 * (field.real**2 + field.imag**2)
        summed = np.cumsum(photons * intensity.ravel(), dtype=np.float64)
        arrivals = np.sort(random.uniform(0, summed[-1], random.poisson(summed[-1])))
        pixel, frame = np.divmod(np.searchsorted(summed, arrivals), n_frames)
        keys.append(frame * N_PIXELS + first + pixel)
    return np.sort(np.concatenate(keys))


def write_scan(path, keys, n_frames):
    cells, counts = np.unique(keys, return_counts=True)
    frame, pixel = np.divmod(cells, N_PIXELS)
    with h5py.File(path, "w") as file:
        group = file.create_group("entry_0000/measurement/data")
        group["frame_ptr"] = np.searchsorted(frame, np.arange(n_frames + 1)).astype(np.uint64)
        group["index"], group["intensity"] = pixel.astype(np.uint32), counts.astype(np.uint32)


def analyze(path):
    run = subprocess.run([f"{BUILD}/bin/isobar-analyze", path, "--frame-time", str(FRAME_TIME_S), "--shape",
                          f"{N_ROWS}x{N_COLUMNS}", "--json", "--no-events", "-o", path + "_results.hdf"],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def run_case(case, folder):
    given = {"photons": 0.1} | {key: float(value) for key, value in (word.split("=") for word in case.split(","))}
    n_frames = n_frames_of(given["tau"])
    amplitudes = amplitude_spectrum(n_frames, given["tau"], given["beta"])
    truth = {"tau_s": given["tau"] * FRAME_TIME_S, "beta": given["beta"], "contrast": given["contrast"]}
    random = np.random.default_rng([SEED, *(int(1000 * value) for value in given.values())])
    fits, refused = [], []
    for _ in range(SCANS):
        path = os.path.join(folder, "scan.h5")
        write_scan(path, draw_photons(random, amplitudes, n_frames, given["contrast"], given["photons"]), n_frames)
        answer = analyze(path)
        (refused if answer["reason"] else fits).append(answer)
    line = {"soak": "fits", "case": case, "frames": n_frames, "scans": SCANS, "refused": len(refused),
            "degenerate": sum(fit["degenerate"] for fit in fits)}
    for key, value in truth.items():
        pulls = np.array([(fit[key] - value) / fit[key + "_sigma"] for fit in fits])
        if len(pulls):
            line[key] = {"pull_mean": round(pulls.mean(), 2), "pull_rms": round(np.sqrt((pulls**2).mean()), 2),
                         "within": round((abs(pulls) < 1).mean(), 2),
                         "sigma": round(float(np.median([fit[key + "_sigma"] for fit in fits])) / value, 4)}
    if refused:
        line["reason"] = refused[0]["reason"]
    print(json.dumps(line), flush=True)


def main():
    with tempfile.TemporaryDirectory(prefix="isobar-fits-") as folder:
        for case in os.environ.get("CASES", DEFAULT).split():
            run_case(case, folder)


main()

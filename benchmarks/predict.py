"""Time that keypoints take on this machine: one crop and 64, with and without the mirror test.

    python benchmarks/predict.py CHECKPOINT

JAX (as the Predictor runs it) and onnxruntime (extra `export`) take turns, so that whatever else
the machine does meets both. Medians; crops are random bytes, which cost what photographs cost.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

from ap10k_jax import export
from ap10k_jax.predict import Predictor

SIZES = {1: 100, 64: 8}  # crops at once: repetitions


def timed(functions: dict, repetitions: int) -> dict[str, float]:
    """Median seconds of each function, called in turns, after one call to warm up."""
    for function in functions.values():
        function()
    seconds = {name: [] for name in functions}
    for _ in range(repetitions):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    flags = parser.parse_args()

    print("| crops | mirror test | JAX ms | onnxruntime ms | JAX crops/s | onnxruntime crops/s |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for count, repetitions in SIZES.items():
            for mirror in (True, False):
                predictor = Predictor.load(flags.checkpoint, flip_test=mirror)
                side = predictor.image_size
                crops = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
                model, _, _ = export.write(
                    flags.checkpoint,
                    Path(folder, f"{count}-{mirror}"),
                    format="onnx",
                    flip_test=mirror,
                    batch=count,
                )
                session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
                name = session.get_inputs()[0].name
                ways = {
                    "jax": lambda p=predictor, c=crops: np.asarray(p._step(p.variables, c)),
                    "onnx": lambda s=session, n=name, c=crops: s.run(None, {n: c}),
                }
                took = timed(ways, repetitions)
                print(
                    f"| {count} | {'yes' if mirror else 'no'} "
                    f"| {1000 * took['jax']:.1f} | {1000 * took['onnx']:.1f} "
                    f"| {count / took['jax']:.0f} | {count / took['onnx']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

"""A trained network as one file that runs without this package: StableHLO or ONNX.

    python -m ap10k_jax.export runs/sl fox --format=onnx

writes fox.onnx (or fox.stablehlo) and fox.json. The file takes crops, RGB bytes (b, S, S, 3), and
gives keypoints (b, k, 3): x and y in pixels of the crop, and the score. Normalising, the mirror
test and decoding are inside. fox.json says what the joints are called, how a box becomes a crop and
how the file was checked; examples/run_onnx.py does all of it with NumPy, OpenCV and onnxruntime.

stablehlo  jax.export, for CPU, CUDA and TPU, any batch size; needs JAX only:
           jax.export.deserialize(bytearray(open("fox.stablehlo", "rb").read())).call(crops)
onnx       any ONNX runtime, a fixed batch size (--batch); writing it needs the extra `export`
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import io
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jaxtyping import Array, Float, UInt8

from ap10k_jax import checkpoint, codec, inference
from ap10k_jax.models import ops
from ap10k_jax.predict import predictor
from ap10k_jax.runtime import command_line, errors, files

FORMATS = ("stablehlo", "onnx")
PLATFORMS = ("cpu", "cuda", "tpu")
CHECKED_CROPS = 20
TOLERANCE = 1e-3  # crop pixels, and scores
INPUT, OUTPUT = "crops", "keypoints"


class ExportError(errors.UserError):
    """The network cannot be exported; the message says why."""


def network(path: str | Path, *, flip_test: bool = True) -> tuple[functools.partial, dict]:
    """`inference.predict_crops` as a function of crops alone, and its metadata."""
    module, variables, config = checkpoint.load(path)
    joints = predictor.keypoint_set(config)
    decode = config.get("eval", {}).get("decode", codec.METHODS[0])
    call = functools.partial(
        inference.predict_crops,
        variables,
        module=module,
        pairs=joints.pairs,
        flip_test=flip_test,
        decode=decode,
    )
    about = {
        "model": config["model"]["name"],
        "input": {
            "name": INPUT,
            "size": config["data"]["image_size"],
            "layout": "(batch, height, width, RGB), uint8, 0 to 255; normalised inside",
        },
        "output": {
            "name": OUTPUT,
            "layout": "(batch, joint, (x, y, score)), float32; x, y in crop pixels, whole numbers "
            "at pixel centres; a joint with score <= 0 was not found",
        },
        # see transforms.box_to_center_scale and transforms.affine_matrix
        "crop": {
            "padding": 1.25,
            "how": "clip the box to the image's last pixels; side = 1.25 x the longer side; "
            "zoom = size / side; crop = zoom x (image - box centre) + size / 2; bilinear; black "
            "outside",
        },
        "keypoints": list(joints.names),
        "skeleton": [list(limb) for limb in joints.skeleton],
        "flip_pairs": [list(pair) for pair in joints.pairs],
        "mirror_test": flip_test,
        "decode": decode,
        "versions": {name: importlib.metadata.version(name) for name in ("ap10k_jax", "jax")},
    }
    return call, about


def to_stablehlo(call: Callable, size: int) -> bytes:
    """The function, serialised by jax.export for all platforms and any batch size."""
    (batch,) = jax_export.symbolic_shape("b")
    crops = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
    with ops.portable():
        return bytes(jax_export.export(jax.jit(call), platforms=PLATFORMS)(crops).serialize())


def to_onnx(call: functools.partial, size: int, batch: int, about: dict) -> bytes:
    """The function as an ONNX model for batches of one size."""
    if not all(map(importlib.util.find_spec, ("jax2onnx", "onnxruntime"))):
        raise ExportError("ONNX needs jax2onnx and onnxruntime: pip install 'ap10k_jax[export]'")
    import jax2onnx
    import onnx

    # Not a free batch size: jax2onnx 0.13 loses track of it where two views become one batch.
    crops = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
    views = 2 if about["mirror_test"] else 1
    call = _traced(call, jax.ShapeDtypeStruct((views * batch, size, size, 3), jnp.float32))
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of shapes left to inference
    # jax2onnx prints what it patches, and what of it does not fit this version of JAX
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model = jax2onnx.to_onnx(
            call, [crops], model_name=about["model"], input_names=[INPUT], output_names=[OUTPUT]
        )
    onnx.checker.check_model(model, full_check=True)
    onnx.helper.set_model_props(model, {"ap10k_jax": json.dumps(about)})
    return model.SerializeToString()


class _Traced:
    """A network as the operations it consists of, in place of its module."""

    def __init__(self, program: jax.extend.core.ClosedJaxpr):
        self._program = program

    def apply(self, variables: dict, images: Float[Array, "b S S 3"], *, train: bool) -> Array:
        (heatmaps,) = jax.extend.core.jaxpr_as_fun(self._program)(images)
        return heatmaps


def _traced(call: functools.partial, images: jax.ShapeDtypeStruct) -> functools.partial:
    """`call` with the network's module replaced by what JAX makes of it.

    jax2onnx would patch Flax's layers, which takes it minutes.
    """
    (variables,), module = call.args, call.keywords["module"]
    forward = functools.partial(module.apply, variables, train=False)
    with ops.portable():
        program = jax.make_jaxpr(forward)(images)
    return functools.partial(call.func, {}, **call.keywords | {"module": _Traced(program)})


def run_stablehlo(content: bytes, crops: UInt8[np.ndarray, "b S S 3"]) -> np.ndarray:
    """The keypoints that a serialised StableHLO program gives."""
    return np.asarray(jax_export.deserialize(bytearray(content)).call(crops))


def run_onnx(content: bytes, crops: UInt8[np.ndarray, "b S S 3"]) -> np.ndarray:
    """The keypoints that an ONNX model gives, batch after batch; the number must divide."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    batch = session.get_inputs()[0].shape[0]
    parts = np.split(crops, len(crops) // batch)
    return np.concatenate([session.run([OUTPUT], {INPUT: part})[0] for part in parts])


def difference(
    run: Callable, call: Callable, crops: UInt8[np.ndarray, "b S S 3"]
) -> Float[np.ndarray, ""]:
    """The largest difference between a file's keypoints and ours on the crops."""
    return np.abs(run(crops) - np.asarray(jax.jit(call)(crops))).max()


def sample_crops(size: int, count: int) -> UInt8[np.ndarray, "n S S 3"]:
    """Smooth random pictures, the same every time: what edges and colours a file is checked on."""
    import cv2

    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    return np.stack([cv2.resize(s, (size, size), interpolation=cv2.INTER_CUBIC) for s in small])


def write(
    path: str | Path, dest: Path, *, format: str, flip_test: bool = True, batch: int = 1
) -> tuple[Path, Path, float]:
    """Write the network and its metadata beside `dest`; returns both files and the difference.

    Nothing is written, and ExportError raised, where the file's keypoints differ from ours by more
    than `TOLERANCE` on `CHECKED_CROPS` crops.
    """
    call, about = network(path, flip_test=flip_test)
    size = about["input"]["size"]
    if format == "onnx":
        about["input"]["batch"] = batch
        content = to_onnx(call, size, batch, about)
        run = functools.partial(run_onnx, content)
    else:
        about["platforms"] = list(PLATFORMS)
        content = to_stablehlo(call, size)
        run = functools.partial(run_stablehlo, content)
    count = -(-CHECKED_CROPS // batch) * batch
    error = float(difference(run, call, sample_crops(size, count)))
    if not error <= TOLERANCE:  # NaN is no success either
        raise ExportError(f"the {format} file's keypoints differ from ours by up to {error} px")
    about["checked"] = {"crops": count, "largest_difference": error}
    file, metadata = (dest.with_name(f"{dest.name}.{ending}") for ending in (format, "json"))
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(file, content)
    files.write_text(metadata, json.dumps(about, indent=2) + "\n")
    return file, metadata, error


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = command_line.Parser("ap10k_jax.export", __doc__)
    add = parser.add_argument
    add("checkpoint", help="a run's directory, one of its steps, or an exported folder")
    add("dest", type=Path, help="the files' name without its ending, as in weights/fox")
    add("--format", choices=FORMATS, default="onnx", help="(%(default)s)")
    add("--batch", type=int, default=1, help="crops an ONNX model takes at once (%(default)s)")
    add("--no-mirror", action="store_true", help="without the mirror test: twice as fast")
    options = parser.parse_args(argv)
    if options.batch < 1:
        parser.error("--batch is at least 1")
    with errors.reported(ValueError):
        file, metadata, error = write(
            options.checkpoint,
            options.dest,
            format=options.format,
            flip_test=not options.no_mirror,
            batch=options.batch,
        )
    megabytes = file.stat().st_size / 1e6
    print(f"{file} ({megabytes:.1f} MB), {metadata}")
    print(f"on {CHECKED_CROPS} crops its keypoints are ours within {error:.1e} px")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Names of weights: PyTorch state dicts to Flax variables and back.

The namings are those of MMPose, the authors, timm and torchvision.

One table a network turns the path of our module into MMPose 1.x's name for it; everything else
follows from that. The other families differ from MMPose 1.x by a prefix:

    MMPose 1.x                        backbone.conv1.weight    head.final_layer.weight
    MMPose 0.x                        backbone.conv1.weight    keypoint_head.final_layer.weight
    authors' pose files               conv1.weight             final_layer.weight
    ImageNet (authors, timm, torchvision)  conv1.weight        a classifier, ignored

All are for RGB but one: the authors' SimpleBaseline pose files (`deconv_layers` without a prefix)
were trained on BGR. Reading one exchanges the first convolution's input channels, so that our
variables are for RGB whatever they come from. The authors normalise BGR with ImageNet's RGB
statistics, which no exchange of channels undoes: we take each channel's own.
"""

import dataclasses
import re
from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array

from ap10k_jax import models
from ap10k_jax.models import hourglass, hrnet, simplebaseline

# Rules are applied in order to a module path such as "stage2_module0/fuse0_from1/conv".
# nn.Sequential(conv, bn) in PyTorch numbers its members; our ConvBN names them.
SEQUENTIAL = ((r"/conv$", ".0"), (r"/bn$", ".1"))

HRNET = (
    (r"^(conv\d|bn\d)$", r"backbone.\1"),
    (r"^layer1_block(\d+)", r"backbone.layer1.\1"),
    (r"^transition(\d)_branch\1", r"backbone.transition\1.\1.0"),  # the new branch
    (r"^transition(\d)_branch(\d)", r"backbone.transition\1.\2"),  # another width, same size
    (r"^stage(\d)_module(\d+)", r"backbone.stage\1.\2"),
    (r"branch(\d)_block(\d+)", r"branches.\1.\2"),
    (r"fuse(\d)_from(\d)_(\d)", r"fuse_layers.\1.\2.\3"),
    (r"fuse(\d)_from(\d)", r"fuse_layers.\1.\2"),
    *SEQUENTIAL,
    (r"^head$", "head.final_layer"),
)

SIMPLEBASELINE = (
    (r"^(conv1|bn1)$", r"backbone.\1"),
    (r"^layer(\d)_block(\d+)", r"backbone.layer\1.\2"),
    *SEQUENTIAL,
    (r"^deconv0$", "head.deconv_layers.0"),  # 0, 3, 6; norm 1, 4, 7; ReLU 2, 5, 8
    (r"^deconv0_bn$", "head.deconv_layers.1"),
    (r"^deconv1$", "head.deconv_layers.3"),
    (r"^deconv1_bn$", "head.deconv_layers.4"),
    (r"^deconv2$", "head.deconv_layers.6"),
    (r"^deconv2_bn$", "head.deconv_layers.7"),
    (r"^head$", "head.final_layer"),
)

HOURGLASS = (
    (r"^stem/", "backbone.stem.0/"),
    (r"^stem_block", "backbone.stem.1.0"),
    (r"^stack(\d+)/", r"backbone.hourglass_modules.\1/"),
    (r"inner(\d)", r"low2.\1"),
    (r"inner/", "low2/"),
    (r"/up(\d)", r"/low3.\1"),
    (r"/down(\d)", r"/low1.\1"),
    (r"/around(\d)", r"/up1.\1"),
    (r"downsample/conv$", "downsample.0"),
    (r"downsample/bn$", "downsample.1"),
    (r"^out(\d+)", r"backbone.out_convs.\1"),
    (r"^skip(\d+)", r"backbone.conv1x1s.\1"),
    (r"^remap(\d+)", r"backbone.remap_convs.\1"),
    (r"^between(\d+)", r"backbone.inters.\1"),
    (r"^head(\d+)$", r"head.multi_final_layers.\1"),
)

TABLES: dict[type[nn.Module], tuple] = {
    hrnet.HRNet: HRNET,
    simplebaseline.SimpleBaseline: SIMPLEBASELINE,
    hourglass.Hourglass: HOURGLASS,
}

# Names (with the prefix added) that no part of the network reads, and why that is right.
IGNORED = (
    (r"\.num_batches_tracked$", "a counter that only BatchNorm without momentum reads"),
    (
        r"^backbone\.(head|incre_modules|downsamp_modules|final_layer|classifier|fc)\.",
        "part of the ImageNet classifier",
    ),
    (r"^head\.fc\.", "part of the ImageNet classifier"),
    (
        r"^backbone\.stage4\.2\.fuse_layers\.[123]\.",
        "the last exchange's lower outputs, which no head reads",
    ),
    (r"^backbone\.inters\.0\.", "the block after the last stack, which the reference never runs"),
)

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass
class Report:
    """The use of every name of a file; `missing` are MMPose 1.x names that the file lacks."""

    used: list[str] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    bgr_to_rgb: bool = False  # the first convolution's input channels were exchanged
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)  # one for each ignored name

    def __str__(self) -> str:
        lines = [f"used {len(self.used)} names"]
        if self.bgr_to_rgb:
            lines.append(
                "trained on BGR, as the authors' SimpleBaseline pose files are: the input channels "
                "of conv1.weight were exchanged for RGB"
            )
        for reason in dict.fromkeys(self.reasons.values()):
            names = [name for name, why in self.reasons.items() if why == reason]
            lines.append(f"ignored {len(names)}, such as {names[0]}: {reason}")
        if self.missing:
            lines.append("missing, so freshly initialised: " + ", ".join(self.missing))
        return "\n".join(lines)


def from_torch(
    state_dict: Mapping[str, np.ndarray],
    name: str,
    *,
    num_keypoints: int = 17,
    key: Array | None = None,
) -> tuple[dict, Report]:
    """The variables of model `name` from a PyTorch state dict, and a report on every name.

    A head that is absent or was made for another number of keypoints is initialised from `key`
    (jax.random.key(0) if not given) and reported as missing. The variables are for RGB: weights
    for BGR have their first convolution's input channels exchanged, which the report says. Raises
    one ValueError that lists all names that are unknown, of another shape, given twice, or that the
    backbone lacks.
    """
    module = models.build(name, num_keypoints=num_keypoints)
    tree = models.shapes(module)
    paths = torch_names(module, tree)
    report, problems, values, names = Report(bgr_to_rgb=is_for_bgr(state_dict)), [], {}, set()
    is_bare = not any(strip_module(n).startswith("backbone.") for n in state_dict)

    for file_name, array in state_dict.items():
        full_name, shape = mmpose_name(file_name, is_bare), np.shape(array)
        path = paths.get(full_name)
        reason = next((why for regex, why in IGNORED if re.search(regex, full_name)), None)
        if path is None and reason is None:
            problems.append(f"unknown: {file_name} {shape}")
        elif path is None:
            report.reasons[file_name] = reason
        elif full_name in names:
            problems.append(f"given twice: {file_name} {shape}")
        elif shape == (expected := torch_shape(path, leaf_at(tree, path).shape)):
            values[path] = to_flax(path, np.asarray(array, np.float32))
            if report.bgr_to_rgb and full_name == "backbone.conv1.weight":
                values[path] = values[path][:, :, ::-1]
            report.used.append(file_name)
        elif path[1].startswith("head") and (is_bare or shape[1:] == expected[1:]):
            report.reasons[file_name] = (
                f"made for {shape[0]} outputs, not {num_keypoints} keypoints"
            )
        else:
            problems.append(f"another shape: {file_name} {shape}, the model has {expected}")
        names.add(full_name)

    report.ignored = list(report.reasons)
    report.missing = [n for n, path in paths.items() if path not in values]
    problems += unusable(values, TABLES[type(module)])
    problems += [
        f"absent: {n} {torch_shape(paths[n], leaf_at(tree, paths[n]).shape)}"
        for n in report.missing
        if n.startswith("backbone.") and n not in names
    ]
    if problems:
        more = [f"... and {len(problems) - 100} more"] if len(problems) > 100 else []
        listing = "\n  ".join([*problems[:100], *more])
        raise ValueError(f"these weights do not fit {name}, {len(problems)} names:\n  {listing}")

    if report.missing:
        fresh = models.init(module, jax.random.key(0) if key is None else key)
        values |= {paths[n]: leaf_at(fresh, paths[n]) for n in report.missing}
    filled = jax.tree.map_with_path(lambda path, _: values[tuple(e.key for e in path)], tree)
    return jax.device_put(filled), report


def unusable(values: Mapping[tuple[str, ...], np.ndarray], table: tuple) -> list[str]:
    """A sentence for each array with numbers that no trained network has."""
    problems = []
    for path, array in values.items():
        if not np.all(np.isfinite(array)):
            problems.append(f"not finite: {torch_name(path, table)}")
        elif path[-1] == "var" and np.any(array < 0):
            problems.append(f"a negative variance: {torch_name(path, table)}")
    return problems


def to_torch(variables: Mapping, name: str) -> dict[str, np.ndarray]:
    """The state dict of `variables` under MMPose 1.x names, for RGB as MMPose's own files are.

    `from_torch` gives the very same variables from it. A file that was for RGB comes back to the
    bit; one for BGR comes back for RGB.
    """
    return {
        torch_name: to_oihw(path, np.asarray(leaf_at(variables, path)))
        for torch_name, path in torch_names(models.build(name), variables).items()
    }


def torch_names(module: nn.Module, tree: Mapping) -> dict[str, tuple[str, ...]]:
    """MMPose 1.x name -> path in the variables, for every leaf of `tree`."""
    paths = [
        tuple(entry.key for entry in path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]
    return {torch_name(path, TABLES[type(module)]): path for path in paths}


def torch_name(path: tuple[str, ...], table: tuple) -> str:
    """MMPose 1.x's name of the leaf at (collection, module, ..., leaf)."""
    _, *modules, leaf = path
    name = "/".join(modules)
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return f"{name.replace('/', '.')}.{LEAVES[leaf]}"


def is_for_bgr(state_dict: Mapping[str, np.ndarray]) -> bool:
    """Returns True for a SimpleBaseline pose network under the authors' names.

    Their experiments/{coco,mpii}/resnet/*.yaml have COLOR_RGB: false, and their HRNets' have true
    (leoxiaobin/deep-high-resolution-net.pytorch); the first edition of their code
    (microsoft/human-pose-estimation.pytorch) knows BGR only.
    """
    return any(strip_module(name).startswith("deconv_layers.") for name in state_dict)


def mmpose_name(file_name: str, is_bare: bool) -> str:
    """The MMPose 1.x name for a name of any family; `is_bare` if the file has no `backbone.`."""
    name = strip_module(file_name)
    if is_bare:
        # A classifier's final_layer is a Sequential (final_layer.0.weight), a pose head's is not.
        is_head = re.match(r"deconv_layers\.|final_layer\.(weight|bias)$", name)
        return f"head.{name}" if is_head else f"backbone.{name}"
    return re.sub(r"^keypoint_head\.", "head.", name)


def strip_module(name: str) -> str:
    """The name without the prefix that torch.nn.DataParallel adds."""
    return name.removeprefix("module.")


def leaf_at(tree: Mapping, path: tuple[str, ...]):
    for entry in path:
        tree = tree[entry]
    return tree


def is_deconv(path: tuple[str, ...]) -> bool:
    return path[-1] == "kernel" and re.fullmatch(r"deconv\d", path[-2]) is not None


def to_flax(path: tuple[str, ...], array: np.ndarray) -> np.ndarray:
    """PyTorch's array in our layout.

    Convolution kernels go from OIHW to HWIO. PyTorch's transposed convolution scatters with its
    kernel (stored IOHW), Flax's gathers from the dilated input: the same once turned by 180
    degrees.
    """
    if is_deconv(path):
        return array.transpose(2, 3, 0, 1)[::-1, ::-1]
    return array.transpose(2, 3, 1, 0) if path[-1] == "kernel" else array


def to_oihw(path: tuple[str, ...], array: np.ndarray) -> np.ndarray:
    """Our array in PyTorch's layout: the inverse of `to_flax`."""
    if is_deconv(path):
        array = array[::-1, ::-1].transpose(2, 3, 0, 1)
    elif path[-1] == "kernel":
        array = array.transpose(3, 2, 0, 1)
    return np.array(array, order="C")  # a copy: the caller may write to it


def torch_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that PyTorch's array for our leaf must have."""
    if path[-1] != "kernel":
        return tuple(shape)
    height, width, inputs, outputs = shape
    return (inputs, outputs, height, width) if is_deconv(path) else (outputs, inputs, height, width)

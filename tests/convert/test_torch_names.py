import re

import jax
import numpy as np
import pytest
from golden_weights import GOLDEN_NAMES, names_and_shapes, state_dict, tensor

from ap10k_jax import models
from ap10k_jax.convert import torch_names
from ap10k_jax.models import hourglass

# Families that differ from MMPose 1.x by prefixes only.
DEPRECATED = (r"^head\.", "keypoint_head.")  # MMPose 0.x
DATA_PARALLEL = (r"^", "module.")
BARE = (r"^(backbone|head)\.", "")  # the authors' pose files


@pytest.fixture(scope="module")
def resnet18() -> dict[str, np.ndarray]:
    """MMPose 1.x weights of the smallest network."""
    return made_up("simplebaseline_resnet18")


def made_up(name: str) -> dict[str, np.ndarray]:
    return {name: tensor(name, shape) for name, shape in names_and_shapes_of(name).items()}


def names_and_shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    """MMPose 1.x names and PyTorch shapes, as convert has them."""
    module = models.build(name)
    tree = models.shapes(module)
    return {
        name: torch_names.torch_shape(path, torch_names.leaf_at(tree, path).shape)
        for name, path in torch_names.torch_names(module, tree).items()
    }


def rename(state: dict, pattern: str, replacement: str) -> dict:
    return {re.sub(pattern, replacement, name): array for name, array in state.items()}


def only(state: dict, prefix: str) -> dict:
    """The entries under a prefix, without it."""
    return {n.removeprefix(prefix): a for n, a in state.items() if n.startswith(prefix)}


def same(one: dict, other: dict) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), one, other))


@pytest.mark.parametrize("name", ["hrnet_w32", "simplebaseline_resnet50", "hourglass52"])
def test_names_and_shapes_are_the_references(name):
    """One network of each table, but for the block after the last Hourglass, which never runs."""
    theirs = {
        name: tuple(shape)
        for name, shape in names_and_shapes(name).items()
        if not name.startswith("backbone.inters.0.")
    }
    assert names_and_shapes_of(name) == theirs


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_there_and_back_is_exact(name):
    state = state_dict(name)
    variables, report = torch_names.from_torch(state, name)
    unused = [n for n in state if n.startswith("backbone.inters.0.")]
    assert len(unused) == (10 if name == "hourglass52" else 0)
    assert report.ignored == unused
    assert set(report.used) == set(state) - set(unused)
    assert report.missing == []
    back = torch_names.to_torch(variables, name)
    assert set(back) == set(report.used)
    assert all((back[n] == state[n]).all() and back[n].shape == state[n].shape for n in back)


def test_a_small_network_comes_back_as_it_was(resnet18):
    variables, report = torch_names.from_torch(resnet18, "simplebaseline_resnet18")
    assert report.used == list(resnet18)
    back = torch_names.to_torch(variables, "simplebaseline_resnet18")
    assert set(back) == set(resnet18)
    for name, array in resnet18.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].flags.writeable


@pytest.mark.parametrize("stacks", [2, 3])
def test_every_stack_of_an_hourglass_has_its_own_name(stacks):
    module = hourglass.Hourglass(levels=((8, 1), (8, 1)), stacks=stacks)
    names = torch_names.torch_names(module, models.shapes(module))
    assert len(names) == len(jax.tree.leaves(models.shapes(module)))
    for i in range(stacks - 1):
        for part in (f"inters.{i}.conv1", f"conv1x1s.{i}.conv", f"remap_convs.{i}.conv"):
            assert f"backbone.{part}.weight" in names
    assert f"head.multi_final_layers.{stacks - 1}.bias" in names


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("simplebaseline_resnet18", DEPRECATED),
        ("simplebaseline_resnet18", DATA_PARALLEL),
        ("hrnet_tiny", DEPRECATED),
        ("hrnet_tiny", BARE),  # the authors' HRNets are for RGB
    ],
)
def test_prefixes_make_no_difference(name, family):
    state = made_up(name)
    expected, _ = torch_names.from_torch(state, name)
    variables, report = torch_names.from_torch(rename(state, *family), name)
    assert len(report.used) == len(state)
    assert report.missing == []
    assert not report.bgr_to_rgb
    assert same(variables, expected)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_authors_simplebaseline_gives_for_rgb_what_it_gave_for_bgr(resnet18, prefix):
    name = "simplebaseline_resnet18"
    module = models.build(name)
    rgb = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)
    # MMPose's names change no number: the network as its authors trained it, and what they fed it
    as_trained, _ = torch_names.from_torch(resnet18, name)
    expected = module.apply(as_trained, rgb[..., ::-1])
    difference = np.abs(module.apply(as_trained, rgb) - expected).max()
    assert difference > 1e-3 * np.abs(expected).max()  # or equality below would mean nothing
    bare = {prefix + n: a for n, a in rename(resnet18, *BARE).items()}
    variables, report = torch_names.from_torch(bare, name)
    error = np.abs(module.apply(variables, rgb) - expected).max()
    assert error < 1e-5 * np.abs(expected).max()
    assert report.bgr_to_rgb
    assert "trained on BGR" in str(report)
    # from there on it is a network for RGB: nothing is exchanged a second time
    back = torch_names.to_torch(variables, name)
    again, report = torch_names.from_torch(back, name)
    assert same(again, variables)
    assert not report.bgr_to_rgb
    np.testing.assert_array_equal(
        back.pop("backbone.conv1.weight"), resnet18["backbone.conv1.weight"][:, ::-1]
    )
    assert all((back[n] == resnet18[n]).all() for n in back)


def test_imagenet_resnet_leaves_the_head_to_its_own_initialisation(resnet18):
    """As in torchvision and timm: no prefix, a classifier, counters perhaps."""
    file = only(resnet18, "backbone.")
    file |= {"fc.weight": np.ones((1000, 512)), "fc.bias": np.ones(1000)}
    file |= {"bn1.num_batches_tracked": np.array(7)}
    variables, report = torch_names.from_torch(file, "simplebaseline_resnet18")
    assert report.ignored == ["fc.weight", "fc.bias", "bn1.num_batches_tracked"]
    assert len(report.used) == len(file) - 3
    assert report.missing
    assert set(report.missing) == {n for n in resnet18 if n.startswith("head.")}
    fresh = models.init(models.build("simplebaseline_resnet18"), jax.random.key(0))
    assert same(variables["params"]["deconv1"], fresh["params"]["deconv1"])
    assert same(variables["params"]["head"], fresh["params"]["head"])
    np.testing.assert_array_equal(
        variables["params"]["conv1"]["kernel"], file["conv1.weight"].transpose(2, 3, 1, 0)
    )


@pytest.mark.parametrize("classifier", ["head", "classifier"])
def test_imagenet_hrnet_keeps_only_what_a_pose_network_has(classifier):
    """The authors' and timm's files: no prefix, classification parts, every output of stage 4."""
    file = only(made_up("hrnet_tiny"), "backbone.")
    extra = [
        "incre_modules.0.0.conv1.weight",
        "downsamp_modules.2.0.weight",
        "downsamp_modules.2.1.running_var",
        "final_layer.0.weight",
        "stage4.2.fuse_layers.1.0.0.0.weight",
        "stage4.2.fuse_layers.3.2.0.1.running_mean",
        f"{classifier}.weight",
    ]
    file |= {name: np.ones(3) for name in extra}
    _, report = torch_names.from_torch(file, "hrnet_tiny")
    assert report.ignored == extra
    assert set(report.missing) == {"head.final_layer.weight", "head.final_layer.bias"}
    lower = "the last exchange's lower outputs, which no head reads"
    assert report.reasons == {
        name: lower if "fuse_layers" in name else "part of the ImageNet classifier"
        for name in extra
    }


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bn1.num_batches_tracked", "a counter that only BatchNorm without momentum reads"),
        ("head.fc.weight", "part of the ImageNet classifier"),
        (
            "backbone.inters.0.bn1.bias",
            "the block after the last stack, which the reference never runs",
        ),
    ],
)
def test_a_report_says_why_a_name_is_ignored(resnet18, name, reason):
    _, report = torch_names.from_torch(resnet18 | {name: np.ones(3)}, "simplebaseline_resnet18")
    assert report.reasons == {name: reason}


def test_a_report_lists_one_line_for_each_reason_and_all_that_is_missing():
    report = torch_names.Report(["u"] * 3, missing=["m", "n"])
    report.reasons = {"a": "no use", "b": "too old", "c": "no use"}
    assert str(report).split("\n") == [
        "used 3 names",
        "ignored 2, such as a: no use",
        "ignored 1, such as b: too old",
        "missing, so freshly initialised: m, n",
    ]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("backbone.conv1.weight", np.nan, "not finite: backbone.conv1.weight"),
        ("backbone.bn1.bias", np.inf, "not finite: backbone.bn1.bias"),
        ("backbone.bn1.running_var", -1e-3, "a negative variance: backbone.bn1.running_var"),
    ],
)
def test_values_that_no_training_leaves_are_an_error(resnet18, name, value, text):
    array = resnet18[name].copy()
    array.flat[-1] = value
    with pytest.raises(ValueError, match=f"1 names:\n  {text}$"):
        torch_names.from_torch(resnet18 | {name: array}, "simplebaseline_resnet18")


def test_a_variance_of_zero_and_a_negative_mean_are_none(resnet18):
    changes = {name: resnet18[f"backbone.bn1.{name}"].copy() for name in ("running_var", "bias")}
    changes["running_var"][0], changes["bias"][0] = 0, -1
    file = resnet18 | {f"backbone.bn1.{name}": array for name, array in changes.items()}
    variables, _ = torch_names.from_torch(file, "simplebaseline_resnet18")
    assert variables["batch_stats"]["bn1"]["var"][0] == 0


@pytest.mark.parametrize(("wrong", "more"), [(100, ""), (101, "\n  ... and 1 more")])
def test_a_hundred_problems_are_listed_and_the_others_counted(resnet18, wrong, more):
    file = resnet18 | {f"x{i}": np.ones(1) for i in range(wrong)}
    with pytest.raises(ValueError, match="do not fit") as error:
        torch_names.from_torch(file, "simplebaseline_resnet18")
    listed = "".join(f"\n  unknown: x{i} (1,)" for i in range(100))
    assert str(error.value).endswith(f"{wrong} names:{listed}{more}")


def test_a_new_report_says_nothing():
    report = torch_names.Report()
    assert report.used == report.ignored == report.missing == []
    assert report.reasons == {}
    assert report.bgr_to_rgb is False
    assert str(report) == "used 0 names"


def test_a_head_for_other_keypoints_is_left_out(resnet18):
    file = dict(resnet18)
    file["head.final_layer.weight"] = np.ones((20, 256, 1, 1), np.float32)
    file["head.final_layer.bias"] = np.ones(20, np.float32)
    variables, report = torch_names.from_torch(file, "simplebaseline_resnet18")
    assert set(report.missing) == set(report.ignored)
    assert set(report.missing) == {"head.final_layer.weight", "head.final_layer.bias"}
    assert "20" in report.reasons["head.final_layer.bias"]
    assert "20" in str(report)
    assert variables["params"]["head"]["kernel"].shape == (1, 1, 256, 17)
    variables, report = torch_names.from_torch(file, "simplebaseline_resnet18", num_keypoints=20)
    assert report.missing == []
    assert (variables["params"]["head"]["kernel"] == 1).all()


def test_a_head_of_another_network_is_an_error(resnet18):
    file = dict(resnet18)
    file["head.final_layer.weight"] = np.ones((17, 32, 1, 1), np.float32)
    with pytest.raises(ValueError, match=r"another shape: head\.final_layer\.weight"):
        torch_names.from_torch(file, "simplebaseline_resnet18")


def test_an_mmpretrain_classifier_is_ignored(resnet18):
    file = {n: a for n, a in resnet18.items() if n.startswith("backbone.")}
    file["head.fc.weight"] = np.ones((1000, 512), np.float32)
    _, report = torch_names.from_torch(file, "simplebaseline_resnet18")
    assert report.ignored == ["head.fc.weight"]


def test_what_is_missing_follows_the_key(resnet18):
    file = only(resnet18, "backbone.")
    kernels = [
        torch_names.from_torch(file, "simplebaseline_resnet18", key=jax.random.key(seed))[0][
            "params"
        ]["head"]["kernel"]
        for seed in (0, 1)
    ]
    assert (kernels[0] != kernels[1]).all()


def test_all_offending_names_are_listed_together(resnet18):
    file = dict(resnet18)
    file["backbone.bn9.weight"] = np.ones(5)
    file["loss.weight"] = np.ones((2, 3))
    file["backbone.conv1.weight"] = np.ones((64, 4, 7, 7))
    file["module.backbone.bn1.weight"] = np.ones(64)
    del file["backbone.layer2.0.bn1.bias"]
    with pytest.raises(ValueError, match="5 names") as error:
        torch_names.from_torch(file, "simplebaseline_resnet18")
    message = str(error.value)
    assert "unknown: backbone.bn9.weight (5,)" in message
    assert "unknown: loss.weight (2, 3)" in message
    assert (
        "another shape: backbone.conv1.weight (64, 4, 7, 7), the model has (64, 3, 7, 7)" in message
    )
    assert "given twice: module.backbone.bn1.weight (64,)" in message
    assert "absent: backbone.layer2.0.bn1.bias (128,)" in message


@pytest.mark.parametrize(
    "change",
    [
        lambda file: rename(file, "^backbone", "encoder"),  # a prefix nobody uses
        lambda file: rename(file, "^", "backbone."),  # the prefix twice
        lambda file: only(file, "head."),  # no backbone at all
        lambda file: {"bn1.num_batches_tracked": np.array(0)},  # nothing but what is ignored
        lambda file: {},
    ],
)
def test_a_file_that_would_leave_the_backbone_untouched_is_an_error(resnet18, change):
    with pytest.raises(ValueError, match="do not fit"):
        torch_names.from_torch(change(resnet18), "simplebaseline_resnet18")


@pytest.mark.parametrize(
    "name", ["simplebaseline_resnet34", "simplebaseline_resnet50", "hrnet_tiny", "hourglass52"]
)
def test_a_file_of_another_network_is_an_error(resnet18, name):
    """Even of a deeper ResNet, in which every name of the file would find its place."""
    with pytest.raises(ValueError, match="do not fit"):
        torch_names.from_torch(resnet18, name)


def test_convolutions_and_deconvolutions_equal_pytorchs():
    """On maps of odd content and even size, where flips and paddings would show."""
    torch = pytest.importorskip("torch")

    from ap10k_jax.models import layers

    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 6, 8, 3)).astype(np.float32)
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())

    weight = rng.standard_normal((5, 3, 3, 3)).astype(np.float32)
    path = ("params", "conv1", "kernel")
    assert torch_names.torch_shape(path, (3, 3, 3, 5)) == weight.shape
    ours = layers.conv(5, 3, 2, name="conv1").apply(
        {"params": {"kernel": torch_names.to_flax(path, weight)}}, x
    )
    expected = torch.nn.functional.conv2d(theirs, torch.from_numpy(weight), stride=2, padding=1)
    np.testing.assert_allclose(ours, expected.numpy().transpose(0, 2, 3, 1), atol=1e-5)

    weight = rng.standard_normal((3, 5, 4, 4)).astype(np.float32)
    path = ("params", "deconv1", "kernel")
    assert torch_names.torch_shape(path, (4, 4, 3, 5)) == weight.shape
    ours = layers.Deconv(5).apply({"params": {"kernel": torch_names.to_flax(path, weight)}}, x)
    expected = torch.nn.functional.conv_transpose2d(
        theirs, torch.from_numpy(weight), stride=2, padding=1
    )
    np.testing.assert_allclose(ours, expected.numpy().transpose(0, 2, 3, 1), atol=1e-5)

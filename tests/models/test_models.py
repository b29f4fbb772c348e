import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden_weights import GOLDEN, GOLDEN_NAMES, state_dict

from ap10k_jax import codec, convert, losses, models
from ap10k_jax.models import __main__ as table
from ap10k_jax.models import hourglass, layers, ops

SMALL_HOURGLASS = hourglass.Hourglass(
    levels=((8, 1), (16, 1)), stacks=2, stem_features=8, out_features=8, num_keypoints=3
)


def nodes(tree: dict) -> list[tuple]:
    return [(jax.tree_util.keystr(path), x) for path, x in jax.tree.leaves_with_path(tree)]


# Golden numbers hold for the operations of both platforms. XLA's CPU compiler is slow with those
# for accelerators, so that the larger networks are among the slow tests.
CPU_AND_GPU = [
    *((name, "cpu") for name in GOLDEN_NAMES),
    ("simplebaseline_resnet50", "gpu"),
    *(
        pytest.param(name, "gpu", marks=pytest.mark.slow)
        for name in GOLDEN_NAMES
        if name != "simplebaseline_resnet50"
    ),
]


@pytest.mark.parametrize(("name", "lowering"), CPU_AND_GPU, indirect=["lowering"])
def test_outputs_equal_the_reference(name, lowering):
    variables, _ = convert.from_torch(state_dict(name), name)
    images = np.random.default_rng(0).standard_normal((2, 128, 128, 3)).astype(np.float32)
    heatmaps = jax.jit(models.build(name).apply)(variables, images)
    expected = np.load(GOLDEN / "model_outputs.npz")[GOLDEN_NAMES[name]]
    assert heatmaps.shape == (2, 32, 32, 17)
    error = np.abs(heatmaps[:, ::2, ::2] - expected).max()
    assert error < 1e-4 * np.abs(expected).max()


# Relative error allowed before each step: how far PyTorch's own float32 is off (golden/README.md).
ROUNDING = (1e-5, 1e-4, 1e-3, 2e-2)


def follow_reference(name: str, dtype: np.dtype) -> tuple[np.ndarray, dict]:
    """Relative errors of the four losses, and the first BatchNorm's running statistics."""
    golden = np.load(GOLDEN / "training.npz")
    rng = np.random.default_rng(1)
    size = 128 if name == "hourglass52" else 64
    images = rng.standard_normal((4, size, size, 3)).astype(np.float32)
    keypoints = rng.uniform(-4, size + 4, (4, 17, 2)).astype(np.float32)
    labelled = (rng.random((4, 17)) < 0.8).astype(np.float32)
    target, weights = codec.encode(keypoints, labelled, size=(size // 4, size // 4))
    learning_rates = jnp.asarray(golden["learning_rates"])
    optimizer = optax.adam(lambda count: learning_rates[count])
    module = models.build(name, dtype=dtype)
    variables, _ = convert.from_torch(state_dict(name), name)
    variables = jax.tree.map(lambda x: x.astype(dtype), variables)

    @jax.jit
    def step(variables, optimizer_state):
        def loss_of(params):
            heatmaps, updated = module.apply(
                {**variables, "params": params},
                images.astype(dtype),
                train=True,
                mutable=["batch_stats"],
            )
            heatmaps = heatmaps[-1] if isinstance(heatmaps, list) else heatmaps
            if dtype == np.float64:  # heatmap_mse computes in float32
                squares = weights[:, None, None] * jnp.square(heatmaps - target)
                return jnp.mean(squares), updated
            return losses.heatmap_mse(heatmaps, target, weights), updated

        params = variables["params"]
        (loss, updated), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        update, optimizer_state = optimizer.update(gradient, optimizer_state)
        return {"params": optax.apply_updates(params, update), **updated}, optimizer_state, loss

    optimizer_state = optimizer.init(variables["params"])
    errors = []
    for expected in golden[f"{GOLDEN_NAMES[name]}_losses"]:
        variables, optimizer_state, loss = step(variables, optimizer_state)
        errors.append(abs(float(loss) / expected - 1))
    stats = variables["batch_stats"]
    return np.array(errors), stats["stem"]["bn"] if name == "hourglass52" else stats["bn1"]


def check_running_statistics(name: str, stats: dict) -> None:
    golden = np.load(GOLDEN / "training.npz")
    for ours, theirs in (("mean", "bn1_mean"), ("var", "bn1_var")):
        expected = golden[f"{GOLDEN_NAMES[name]}_{theirs}"]
        # The biased variance would be off by 1 / (4 * 32 * 32 - 1) = 2e-4 in each step.
        np.testing.assert_allclose(stats[ours], expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "lowering", ["cpu", pytest.param("gpu", marks=pytest.mark.slow)], indirect=True
)
def test_training_follows_the_reference(lowering):
    errors, stats = follow_reference("simplebaseline_resnet50", np.float32)
    assert (errors < ROUNDING).all(), errors
    check_running_statistics("simplebaseline_resnet50", stats)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simplebaseline_resnet50", "hrnet_w32", "hourglass52"])
def test_training_follows_the_reference_in_float64(name, lowering):
    """Without rounding nothing is left of the difference, until Adam amplifies that of float64."""
    with jax.enable_x64(True):
        errors, stats = follow_reference(name, np.float64)
    assert (errors < (1e-6, 1e-6, 1e-5, 1e-2)).all(), errors
    check_running_statistics(name, stats)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("hrnet_w32", ROUNDING),
        # At 128 pixels the lowest BatchNorms see 4 values a channel: rounding grows faster. Images
        # changed by 1e-7 of themselves move the first loss by up to 2e-5, by 1e-6 by 4e-5; which
        # kernels a processor gets decides the rest. The test in float64 is the sharp one.
        ("hourglass52", (1e-4, 4e-4, 1e-2, 2e-2)),
    ],
)
def test_large_networks_train_like_the_reference(name, allowed):
    errors, stats = follow_reference(name, np.float32)
    assert (errors < allowed).all(), errors
    check_running_statistics(name, stats)


def test_operations_for_cpus_and_accelerators_train_alike(nano):
    """Losses, gradients and statistics in float64 are equal, up to the order of sums."""
    module = models.build(nano, dtype=jnp.float64)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3))
    variables = models.init(module, jax.random.key(0), image_size=(32, 32))

    def loss_of(params, batch_stats):
        variables = {"params": params, "batch_stats": batch_stats}
        heatmaps, updated = module.apply(variables, images, train=True, mutable=["batch_stats"])
        return jnp.square(heatmaps - 1).mean(), updated

    results = {}
    with jax.enable_x64(True):
        # Kernels are drawn tiny; as they are, gradients of the first layers would vanish.
        params = jax.tree.map(
            lambda x: np.asarray(x, np.float64) * (100 if x.ndim == 4 else 1), variables["params"]
        )
        for platform in ("cpu", "gpu"):
            with ops.target_platform(platform):
                function = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
                results[platform] = function(params, variables["batch_stats"])
    for (path, one), (_, other) in zip(*map(nodes, results.values()), strict=True):
        scale = np.abs(one).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * scale, err_msg=path)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("hrnet_w32", 28.5),
        ("hrnet_w48", 63.6),
        ("simplebaseline_resnet50", 34.0),
        ("simplebaseline_resnet101", 53.0),
        # The reference's 94.8 count one block (two 3x3 convolutions of 256, norms) it never runs.
        ("hourglass52", 94.8 - (2 * 9 * 256 * 256 + 4 * 256) / 1e6),
    ],
)
def test_parameter_counts_are_the_papers(name, millions):
    assert abs(table.count_parameters(models.build(name)) / 1e6 - millions) < 0.05


@pytest.mark.parametrize(("depth", "published"), [(18, 1.81), (50, 4.09), (101, 7.80)])
def test_multiply_adds_are_those_torchvision_publishes(depth, published):
    """For the classifier at 224 pixels, whose backbone is SimpleBaseline's."""
    features = 512 if depth == 18 else 2048
    deconvs = 16 * 256 * (7 * 7 * features + 14 * 14 * 256 + 28 * 28 * 256)
    head, classifier = 56 * 56 * 256 * 17, features * 1000
    count = table.count_multiply_adds(models.build(f"simplebaseline_resnet{depth}"), (224, 224))
    assert abs((count - deconvs - head + classifier) / 1e9 - published) < 0.01


def test_the_table_prints_what_was_published(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["models"])
    few = {name: models.MODELS[name] for name in ("hrnet_w32", "hourglass52")}
    monkeypatch.setattr(models, "MODELS", few)
    table.main()
    _, hrnet_line, hourglass_line = capsys.readouterr().out.splitlines()
    assert hrnet_line.split() == ["hrnet_w32", "28.5", "M", "10.2", "G"]
    assert "93.7 M" in hourglass_line
    assert "published as 94.8 M" in hourglass_line


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_deconvolutions_written_gradient_is_the_derived_one(dtype):
    """Odd sides, and unlike numbers everywhere, so that nothing turned or exchanged goes unseen."""
    x = np.random.default_rng(0).standard_normal((2, 5, 3, 4)).astype(np.float32)
    written = layers.Deconv(6, dtype=jnp.dtype(dtype))
    derived = nn.ConvTranspose(
        6, (4, 4), (2, 2), padding=((2, 2), (2, 2)), use_bias=False, dtype=jnp.dtype(dtype)
    )
    variables = derived.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, written.init(jax.random.key(0), x)) == jax.tree.map(
        jnp.shape, variables
    )

    def loss(module, variables, x):
        y = module.apply(variables, x)
        assert y.shape == (2, 10, 6, 6)
        assert y.dtype == dtype
        return jnp.sum(jnp.sin(y.astype(jnp.float32)) * jnp.arange(6))

    gradient = jax.value_and_grad(loss, argnums=(1, 2))
    tolerance = 1e-5 if dtype == "float32" else 0.05
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=20 * tolerance),
        *(gradient(module, variables, x) for module in (written, derived)),
    )


def test_batchnorm_equals_the_textbook():
    x = np.random.default_rng(0).normal(5.0, 2.0, (2, 3, 4, 5)).astype(np.float32)
    norm = layers.BatchNorm()
    variables = {
        "params": {"scale": np.full(5, 2.0, np.float32), "bias": np.full(5, 1.0, np.float32)},
        "batch_stats": {"mean": np.full(5, 3.0, np.float32), "var": np.full(5, 4.0, np.float32)},
    }
    y, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    np.testing.assert_allclose(y, 2 * (x - mean) / np.sqrt(var + 1e-5) + 1, atol=1e-5)
    stats = updated["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.9 * 3 + 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 * 4 + 0.1 * var * 24 / 23, rtol=1e-6)
    y = norm.apply(variables, x, train=False)
    np.testing.assert_allclose(y, 2 * (x - 3) / np.sqrt(4 + 1e-5) + 1, rtol=1e-5)


def test_batchnorm_normalises_over_all_devices():
    count = len(jax.devices())
    if count == 1:
        pytest.skip("one device")
    mesh = jax.make_mesh((count,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    x = np.random.default_rng(0).normal(size=(2 * count, 3, 4, 5)).astype(np.float32)
    norm = layers.BatchNorm()
    variables = norm.init(jax.random.key(0), x, train=False)
    apply = jax.jit(lambda x: norm.apply(variables, x, train=True, mutable=["batch_stats"]))
    for one, many in zip(
        jax.tree.leaves(apply(x)), jax.tree.leaves(apply(jax.device_put(x, sharding))), strict=True
    ):
        np.testing.assert_allclose(one, many, atol=1e-6)


def test_init_draws_what_the_modules_would():
    module = hourglass.Hourglass(levels=((8, 1), (8, 1)), stem_features=8, out_features=8)
    expected = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    drawn = models.init(module, jax.random.key(0), image_size=(32, 32))
    for (path, one), (same_path, other) in zip(nodes(expected), nodes(drawn), strict=True):
        assert path == same_path
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert abs(one.mean() - other.mean()) < 5 * 0.001 * (2 / one.size) ** 0.5, path
        assert abs(one.std() - other.std()) < 5 * 0.001 * one.size**-0.5, path


def test_init_depends_on_the_key_alone():
    module = models.build("hrnet_tiny")
    first, second = (models.init(module, jax.random.key(1)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    other = models.init(module, jax.random.key(2), image_size=(64, 64))
    assert (first["params"]["head"]["kernel"] != other["params"]["head"]["kernel"]).all()
    block = first["params"]["stage2_module0"]["branch0_block0"]
    assert (block["conv1"]["kernel"] != block["conv2"]["kernel"]).all()


def test_resnet_kernels_are_kaiming_and_its_head_is_small():
    params = models.init(models.build("simplebaseline_resnet18"), jax.random.key(0))["params"]
    kernel = params["layer2_block0"]["conv1"]["kernel"]
    assert kernel.shape == (3, 3, 64, 128)
    assert abs(kernel.std() / np.sqrt(2 / (9 * 128)) - 1) < 0.02
    for name in ("deconv0", "head"):
        assert abs(params[name]["kernel"].std() / 0.001 - 1) < 0.05


def test_a_stacked_hourglass_supervises_every_stack():
    variables = models.init(SMALL_HOURGLASS, jax.random.key(0), image_size=(32, 32))
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    stacks, _ = SMALL_HOURGLASS.apply(variables, images, train=True, mutable=["batch_stats"])
    assert [x.shape for x in stacks] == [(2, 8, 8, 3)] * 2

    inputs, outputs = {}, {}

    def record(call, args, kwargs, context):
        name = context.module.name
        inputs[name], outputs[name] = args, call(*args, **kwargs)
        return outputs[name]

    with nn.intercept_methods(record):
        heatmaps = SMALL_HOURGLASS.apply(variables, images)
    np.testing.assert_array_equal(heatmaps, outputs["head1"])
    # As in MMPose: relu(1x1 of the stack's input + 1x1 of its output features), then a block.
    np.testing.assert_array_equal(inputs["skip0"][0], outputs["stem_block"])
    np.testing.assert_array_equal(inputs["remap0"][0], outputs["out0"])
    merged = np.maximum(outputs["skip0"] + outputs["remap0"], 0)
    np.testing.assert_array_equal(inputs["between0"][0], merged)
    np.testing.assert_array_equal(inputs["stack1"][0], outputs["between0"])
    assert (outputs["skip0"] < 0).any()
    assert (outputs["remap0"] < 0).any()


def test_half_precision_keeps_float32_parameters_and_heatmaps():
    module = models.build("hrnet_tiny", dtype=jnp.bfloat16)
    variables = models.init(module, jax.random.key(0))
    images = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)
    heatmaps = jax.jit(module.apply)(variables, images)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
    assert heatmaps.dtype == np.float32
    full = jax.jit(models.build("hrnet_tiny").apply)(variables, images)
    assert np.abs(heatmaps - full).max() < 0.05 * np.abs(full).max()


def test_upsampling_repeats_cells():
    x = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(layers.upsample(x, 2), x.repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize("name", ["hrnet_tiny", "simplebaseline_resnet18", "hourglass52"])
def test_a_size_that_does_not_halve_evenly_is_refused(name):
    with pytest.raises(ValueError, match="multiples of"):
        models.shapes(models.build(name), image_size=(256, 250))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="hrnet_w32"):
        models.build("hrnet")

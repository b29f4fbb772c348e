"""Steps compiled ahead are the jitted ones; kept ones are of the same code and machine."""

import logging
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ap10k_jax import models, packing, run, train
from ap10k_jax import optimizer as optimizers
from ap10k_jax.runtime import compile_cache

STATE = jax.ShapeDtypeStruct((3,), jnp.float32)
BATCH = {"x": jax.ShapeDtypeStruct((4, 3), jnp.float32)}


@pytest.fixture
def counted():
    """A jitted step that counts how often it is traced."""
    traced = []

    def step(state, batch):
        traced.append(batch["x"].shape)
        return state + batch["x"].sum(axis=0), {"loss": batch["x"].mean()}

    return jax.jit(step), traced


def ones(rows=4):
    return {"x": np.ones((rows, 3), np.float32)}


def begin(function, folder=None, made_from=("a",), state_shapes=lambda: STATE):
    store = compile_cache.StepCache(folder) if folder else None
    devices = jax.devices()[:1]
    step = compile_cache.BackgroundCompilation(
        function, state_shapes, BATCH, devices=devices, cache=store, made_from=made_from
    )
    step.join()
    return step


def found(folder, name):
    devices = jax.devices()[:1]
    key = (name, compile_cache.shapes_of(BATCH), tuple(device.id for device in devices))
    return compile_cache.StepCache(folder).load(key, devices) is not None


def test_other_shapes_go_to_the_jitted_function(counted):
    function, traced = counted
    step = begin(function)
    assert traced == [(4, 3)]
    state, numbers = step(jnp.zeros(3), ones())
    assert traced == [(4, 3)]
    assert state.tolist() == [4, 4, 4]
    assert numbers["loss"] == 1
    assert step(state, ones(rows=2))[0].tolist() == [6, 6, 6]
    assert traced == [(4, 3), (2, 3)]


def test_a_kept_step_is_not_traced_again_and_computes_the_same(counted, tmp_path):
    function, traced = counted
    begin(function, tmp_path)
    batch = {"x": np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)}

    def never():
        raise AssertionError("the shapes of the state are not needed")

    kept = begin(function, tmp_path, state_shapes=never)
    assert len(traced) == 1
    jax.tree.map(
        np.testing.assert_array_equal, kept(jnp.ones(3), batch), function(jnp.ones(3), batch)
    )


def changed_flags(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "--xla_other")


def changed_code(monkeypatch, tmp_path):
    source = tmp_path / "copy" / "runtime" / "compile_cache.py"
    source.parent.mkdir(parents=True)
    source.write_text("another")
    monkeypatch.setattr(compile_cache, "__file__", str(source))


def changed_version(monkeypatch, tmp_path):
    monkeypatch.setattr(compile_cache.importlib.metadata, "version", lambda name: f"{name} 99")


def changed_processor(monkeypatch, tmp_path):
    monkeypatch.setattr(compile_cache, "instructions", lambda: "flags: none")


def changed_precision(monkeypatch, tmp_path):
    values = dict(jax.config.values) | {"jax_default_matmul_precision": "highest"}
    stand_in = types.SimpleNamespace(config=types.SimpleNamespace(values=values))
    monkeypatch.setattr(compile_cache, "jax", types.SimpleNamespace(**(vars(jax) | vars(stand_in))))


@pytest.mark.parametrize(
    "change",
    [changed_flags, changed_code, changed_version, changed_processor, changed_precision],
)
def test_a_step_of_other_surroundings_is_not_taken(counted, tmp_path, monkeypatch, change):
    function, _ = counted
    store, key = compile_cache.StepCache(tmp_path / "steps"), ("a",)
    store.save(key, function.lower(STATE, BATCH).compile())
    assert store.load(key, jax.devices()[:1]) is not None
    change(monkeypatch, tmp_path)
    assert store.load(key, jax.devices()[:1]) is not None  # as this process began
    assert compile_cache.StepCache(tmp_path / "steps").load(key, jax.devices()[:1]) is None


def test_a_step_made_from_something_else_is_not_taken(counted, tmp_path):
    function, _ = counted
    begin(function, tmp_path, made_from=("a",))
    begin(function, tmp_path, made_from=("b",))
    assert len([*tmp_path.glob("*.step")]) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
    ],
)
def test_a_damaged_step_is_compiled_anew_and_replaced(counted, tmp_path, caplog, damage):
    function, traced = counted
    begin(function, tmp_path)
    (path,) = tmp_path.glob("*.step")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with caplog.at_level(logging.WARNING):
        step = begin(function, tmp_path)
    assert f"{path} is damaged" in caplog.text
    assert step(jnp.zeros(3), ones())[0].tolist() == [4, 4, 4]
    begin(function, tmp_path)
    assert len(traced) == 1  # jax remembers the trace, but the step was compiled and saved
    assert found(tmp_path, "a")


def test_where_nothing_can_be_kept_steps_are_compiled(counted, tmp_path, caplog):
    function, _ = counted
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        step = begin(function, tmp_path / "file" / "steps")
    assert "is not kept" in caplog.text
    assert step(jnp.zeros(3), ones())[0].tolist() == [4, 4, 4]


def test_a_kept_step_that_does_not_run_is_deleted(counted, tmp_path, monkeypatch):
    """As one that XLA has written incompletely: that shows only when it runs."""
    function, _ = counted
    begin(function, tmp_path)

    def incomplete(*arguments):
        raise jax.errors.JaxRuntimeError("NOT_FOUND: Function wrapped_add not found")

    with monkeypatch.context() as patch:
        patch.setattr(compile_cache.StepCache, "load", lambda *_: incomplete)
        step = begin(function, tmp_path)
    with pytest.raises(compile_cache.CachedStepError, match=r"start again .*wrapped_add not found"):
        step(jnp.zeros(3), ones())
    assert not [*tmp_path.glob("*.step")]
    assert begin(function, tmp_path)(jnp.zeros(3), ones())[0].tolist() == [4, 4, 4]


def test_only_the_steps_used_last_are_kept(counted, tmp_path, monkeypatch):
    function, _ = counted
    monkeypatch.setattr(compile_cache, "CAPACITY", 2)
    for name in "abac":  # b is the one not used for longest
        begin(function, tmp_path, made_from=(name,))
    assert [found(tmp_path, name) for name in "abc"] == [True, False, True]


def test_an_error_comes_where_the_step_is_called():
    def wrong(state, batch):
        raise TypeError("not so")

    step = begin(jax.jit(wrong))
    with pytest.raises(TypeError, match="not so"):
        step(jnp.zeros(3), ones())


@pytest.fixture
def unknown_step(monkeypatch):
    """Makes the training step one that JAX's cache cannot know; lists its traces."""
    traced, take, salt = [], train.train_step, np.random.default_rng().uniform()

    def salted(state, batch, **options):
        traced.append((threading.current_thread().name, batch["image"].shape))
        state, numbers = take(state, batch, **options)
        return state, {"loss": numbers["loss"], "salt": salt + 0 * numbers["loss"]}

    monkeypatch.setattr(train, "train_step", salted)
    return traced


def test_a_run_learns_the_same_from_a_kept_step(config, tmp_path, unknown_step):
    """And does not trace it: also the state that is restored has the shapes it was made for."""
    config.eval.splits = "validation"
    config.eval.every_epochs = 0
    store = compile_cache.StepCache(tmp_path / "steps")
    results = [run.run(config, tmp_path / name, step_cache=store) for name in ("one", "two")]
    assert unknown_step == [("compiling", (16, 64, 64, 3))]
    assert results[0] == results[1]


def test_a_step_out_of_the_cache_of_compilations_is_not_kept(
    config, tmp_path, unknown_step, one_device
):
    module = models.build(config.model.name)
    for folder in ("compiled", "loaded"):
        jax.clear_caches()  # of this process; the one on disk stays
        train.compile_in_background(
            config, module, one_device, step_cache=compile_cache.StepCache(tmp_path / folder)
        ).join()
    assert len(unknown_step) == 2
    assert len([*tmp_path.glob("compiled/*.step")]) == 1
    assert not [*tmp_path.glob("loaded/*")]


def test_the_step_that_is_compiled_ahead_is_that_of_the_config(config, one_device):
    """Its arguments are those that training has, or they would be compiled a second time."""
    config.model.dtype = "bfloat16"
    module = models.build("nano", num_keypoints=17, dtype=jnp.bfloat16)
    seen = []

    class Recorded:
        def __init__(self, function, state_shapes, batch_shapes, **options):
            seen.append((state_shapes(), batch_shapes, options["made_from"]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compile_cache, "BackgroundCompilation", Recorded)
        train.compile_in_background(config, module, one_device)
        config.batch_parts = 2
        train.compile_in_background(config, module, one_device)
    (state, batch, made_from), (_, _, in_parts) = seen
    variables = models.init(module, jax.random.key(0), image_size=(64, 64))
    optimizer = optimizers.make_optimizer(jnp.dtype(jnp.bfloat16))
    real = packing.Packing.of(variables).pack(train.init_state(variables, optimizer))
    assert jax.tree.structure(optimizers.with_learning_rate(real, 0.0)) == jax.tree.structure(state)
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(real), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    assert batch["image"].shape == (16, 64, 64, 3)
    assert made_from != in_parts
    assert "bfloat16" in str(made_from)

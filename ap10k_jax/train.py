"""Training: the state, and one step as a pure function; train_loop.py takes the steps."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax
import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from ap10k_jax import (
    codec,
    inference,
    loss_scaling,
    losses,
    models,
    packing,
)
from ap10k_jax import optimizer as optimizers
from ap10k_jax.augmentation import Augmentation
from ap10k_jax.data import batches, device_crops, inputs
from ap10k_jax.data.animals import Animals
from ap10k_jax.models import layers
from ap10k_jax.runtime import compile_cache, sharding


@flax.struct.dataclass
class TrainState:
    step: Int[Array, ""]  # steps taken
    params: dict
    batch_stats: dict
    opt_state: optax.OptState

    @property
    def variables(self) -> dict:
        """The variables to be scored, and to be loaded in a notebook."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    def checkpoint_parts(self) -> dict:
        """The state as the parts of a checkpoint, see checkpoint.py."""
        return {
            "variables": self.variables,
            "optimizer": {"step": self.step, "opt_state": self.opt_state},
        }

    @classmethod
    def of_parts(cls, parts: dict) -> "TrainState":
        return cls(**parts["variables"], **parts["optimizer"])


class Method(NamedTuple):
    """A way to learn, as the loop needs it; `supervised` is the usual one, semi.py has another.

    A batch holds `image` and `index` of labelled animals; its `inputs` go to the step.
    """

    batches: grain.IterDataset
    inputs: tuple[str, ...]
    init_state: Callable  # (variables, optimizer) -> a state as TrainState
    make_step: Callable  # (module, optimizer, shardings, packed=) -> a step as make_train_step's


def init_state(variables: dict, optimizer: optax.GradientTransformation) -> TrainState:
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
    )


def copy_to_devices(state: TrainState, shardings: sharding.Shardings) -> TrainState:
    """A copy of the state on every device: steps give its memory away, and the original's stays."""
    return sharding.replicate(jax.tree.map(jnp.copy, state), shardings)


def train_step(
    state: TrainState,
    batch: dict,
    *,
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    packed: packing.Packing | None = None,
    parts: int = 1,
    remat: bool = False,
) -> tuple[TrainState, dict]:
    """The state after one step on a batch, and the step's numbers.

    batch: `image` uint8 (b, H, W, 3), `keypoints` (b, k, 2) in crop pixels, `weights` (b, k).
    With `packed` the state is a packed one, before and after.
    Targets are drawn here, on the device: they are larger than the crops. `parts` and `remat` spend
    time to save memory, see configs/base.py. The only number is the loss: the norm of HRNet's 900
    gradients alone would take as long to compile as half of the rest.
    """
    factor = loss_scaling.loss_factor(state.opt_state)
    pack, unpack = (packed.pack, packed.unpack) if packed else (lambda tree: tree,) * 2
    variables = unpack(state.variables)

    def loss_fn(params, batch_stats, part):
        loss, batch_stats = loss_of(module, params, batch_stats, part)
        return loss * factor, (loss, batch_stats)

    if remat:
        kept = jax.checkpoint_policies.save_only_these_names(layers.SAVED)
        loss_fn = jax.checkpoint(loss_fn, policy=kept)

    def one_part(batch_stats, part):
        gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (_, (loss, batch_stats)), gradient = gradient_fn(variables["params"], batch_stats, part)
        return batch_stats, (loss, gradient)

    batch_stats, (loss, gradient) = in_parts(one_part, variables["batch_stats"], batch, parts)
    params, opt_state = optimizers.apply_gradient(
        optimizer, pack(gradient), state.opt_state, state.params
    )
    return TrainState(state.step + 1, params, pack(batch_stats), opt_state), {"loss": loss}


def loss_of(
    module: nn.Module, params: dict, batch_stats: dict, batch: dict
) -> tuple[Float[Array, ""], dict]:
    """The loss on a batch, and the running statistics after it."""
    images = inference.normalize(batch["image"])
    heatmaps, updated = module.apply(
        {"params": params, "batch_stats": batch_stats}, images, train=True, mutable=["batch_stats"]
    )
    stacks = heatmaps if isinstance(heatmaps, list) else [heatmaps]
    h, w = stacks[0].shape[1:3]
    target, weights = codec.encode(
        batch["keypoints"], batch["weights"], size=(w, h), stride=images.shape[2] / w
    )
    loss = sum(losses.heatmap_mse(stack, target, weights) for stack in stacks)
    return loss, updated["batch_stats"]


def in_parts(function: Callable, carry: dict, batch: dict, parts: int) -> tuple[dict, tuple]:
    """`function(carry, part) -> (carry, numbers)` on equal parts of a batch, one after the other.

    Returns the last carry and the means of the numbers. Each part has rows of every device.
    """
    if parts == 1:
        return function(carry, batch)
    split = jax.tree.map(
        lambda x: x.reshape(len(x) // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch
    )
    first = jax.tree.map(lambda x: x[0], split)
    shapes = jax.eval_shape(function, carry, first)[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(sums, part):
        carry, numbers = function(sums[0], part)
        return (carry, jax.tree.map(jnp.add, sums[1], numbers)), None

    (carry, sums), _ = jax.lax.scan(add, (carry, zeros), split)
    return carry, jax.tree.map(lambda x: x / parts, sums)


def make_train_step(
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    shardings: sharding.Shardings,
    *,
    packed: packing.Packing | None = None,
    parts: int = 1,
    remat: bool = False,
) -> Callable:
    """`train_step`, compiled; the old state's memory is given to the new one."""

    def step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        return train_step(
            state,
            batch,
            module=module,
            optimizer=optimizer,
            packed=packed,
            parts=parts,
            remat=remat,
        )

    return jax.jit(
        step,
        in_shardings=(shardings.replicated, shardings.batch),
        out_shardings=(shardings.replicated, shardings.replicated),
        donate_argnums=0,
        compiler_options=sharding.compiler_options(shardings),
    )


def compile_in_background(
    config: ConfigDict,
    module: nn.Module,
    shardings: sharding.Shardings,
    *,
    step_cache: compile_cache.StepCache | None = None,
) -> compile_cache.BackgroundCompilation:
    """The usual step for whole batches of the config, being compiled or taken from the cache."""
    size, joints = config.data.image_size, config.model.num_keypoints
    optimizer = optimizers.make_optimizer(jnp.dtype(module.dtype))
    shapes = models.shapes(module, image_size=(size, size))
    packed = packing.Packing.of(shapes)
    options = {"parts": config.batch_parts, "remat": config.model.remat}

    def state_shapes() -> TrainState:
        state = jax.eval_shape(
            lambda variables: packed.pack(init_state(variables, optimizer)), shapes
        )
        return optimizers.with_learning_rate(state, 0.0)

    def of_batch(*shape: int, dtype: jnp.dtype = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((config.batch_size, *shape), dtype, sharding=shardings.batch)

    batch_shapes = {
        "image": of_batch(size, size, 3, dtype=jnp.uint8),
        "keypoints": of_batch(joints, 2),
        "weights": of_batch(joints),
    }
    step = make_train_step(module, optimizer, shardings, packed=packed, **options)
    return compile_cache.BackgroundCompilation(
        step,
        state_shapes,
        batch_shapes,
        devices=[*shardings.batch.mesh.devices.flat],
        cache=step_cache,
        made_from=(repr(module), options),
    )


def supervised(
    config: ConfigDict,
    animals: Animals,
    shardings: sharding.Shardings,
    source: inputs.Input | None = None,
) -> Method:
    """Learning from labelled animals alone, as in the paper; epochs are passes, see
    `run_data.epochs_as_passes`."""
    source = source or inputs.stream(animals)
    loader = batches.train_batches(
        source.examples,
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        image_size=config.data.image_size,
        augmentation=Augmentation(**config.augment),
        drop_remainder=config.drop_remainder,
        multiple_of=shardings.batch.mesh.size * config.batch_parts,
        rows=functools.partial(sharding.rows, shardings),
        threads=config.data.loader_threads,
    )
    make_step = functools.partial(
        make_train_step, parts=config.batch_parts, remat=config.model.remat
    )
    if source.kind != "device":
        return Method(loader, ("image", "keypoints", "weights"), init_state, make_step)
    make_step = device_crops.make_step(
        make_step, source.examples, image_size=config.data.image_size
    )
    return Method(loader, ("index", "matrix", "keypoints", "weights"), init_state, make_step)

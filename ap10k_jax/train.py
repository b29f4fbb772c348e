"""Training: the state, one step as a pure function, and the loop written out in order."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import flax
import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from ap10k_jax import (
    checkpoint,
    codec,
    evaluate,
    inference,
    initial_weights,
    loss_scaling,
    losses,
    models,
    packing,
    run_log,
)
from ap10k_jax.augmentation import Augmentation
from ap10k_jax.data import animals as data
from ap10k_jax.data import inputs
from ap10k_jax.models import layers, ops
from ap10k_jax.runtime import compile_cache, distributed, sharding, signals


@flax.struct.dataclass
class TrainState:
    step: Int[Array, ""]  # steps taken
    params: dict
    batch_stats: dict
    opt_state: optax.OptState

    @property
    def variables(self) -> dict:
        """What is scored, and what a notebook loads."""
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
    """What a way to learn brings to the loop; `supervised` is the usual one, semi.py has another.

    A batch holds `image` and `index` of labelled animals; its `inputs` go to the step.
    """

    batches: grain.IterDataset
    inputs: tuple[str, ...]
    init_state: Callable  # (variables, optimizer) -> a state as TrainState
    make_step: Callable  # (module, optimizer, shardings, packed=) -> a step as make_train_step's


class NonFiniteLoss(FloatingPointError):
    """The loss became NaN or infinite; the message names the step and the photographs."""


def learning_rate(config: ConfigDict, steps_per_epoch: int) -> Callable[[int], float]:
    """Linear warm-up from a thousandth, then a tenth after each of `decay_at` (shares of the run).

    The rate is full at step `warmup_steps`, as in MMPose 0.x. With `linear_decay` it falls evenly
    instead, and would be 0 at the step after the last.
    """
    optimizer = config.optimizer
    falls = {round(share * config.epochs) * steps_per_epoch for share in optimizer.decay_at}
    total = config.epochs * steps_per_epoch

    def schedule(step: int) -> float:
        if optimizer.linear_decay:
            rate = optimizer.learning_rate * max(1 - step / total, 0.0)
        else:
            rate = optimizer.learning_rate * 0.1 ** sum(step >= fall for fall in falls)
        if optimizer.warmup_steps:
            rate *= 0.001 + 0.999 * min(1.0, step / optimizer.warmup_steps)
        return rate

    return schedule


@functools.cache
def make_optimizer(dtype: jnp.dtype) -> optax.GradientTransformation:
    """Adam, as in the paper; for a float16 network with a scaled loss.

    The rate is part of its state, see `with_learning_rate`: a schedule inside would make a compiled
    step that is good for one length of training and one size of data set only.
    """

    def at(learning_rate: Float[Array, ""]) -> optax.GradientTransformation:
        adam = optax.adam(learning_rate)
        return loss_scaling.scaled(adam) if dtype == jnp.float16 else adam

    return optax.inject_hyperparams(at)(learning_rate=0.0)


def with_learning_rate(state: "TrainState", rate: float) -> "TrainState":
    """The state, to take its next step at this learning rate."""
    hyperparams = state.opt_state.hyperparams | {"learning_rate": np.float32(rate)}
    return state.replace(opt_state=state.opt_state._replace(hyperparams=hyperparams))


def epochs_as_passes(config: ConfigDict, passes: float) -> ConfigDict:
    """The config with everything that it counts in epochs as passes over the training animals.

    An epoch is `passes` of them. The numbers are rounded to whole passes, and are at least 1.
    """
    if passes == 1:
        return config
    config = config.copy_and_resolve_references()
    config.epochs = max(1, round(config.epochs * passes))
    config.checkpoint_every_epochs = max(1, round(config.checkpoint_every_epochs * passes))
    if config.eval.every_epochs:
        config.eval.every_epochs = max(1, round(config.eval.every_epochs * passes))
    return config


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
    params, opt_state = apply_gradient(optimizer, pack(gradient), state.opt_state, state.params)
    return TrainState(state.step + 1, params, pack(batch_stats), opt_state), {"loss": loss}


def apply_gradient(
    optimizer: optax.GradientTransformation,
    gradient: dict,
    opt_state: optax.OptState,
    params: dict,
) -> tuple[dict, optax.OptState]:
    """Parameters and optimizer state after a step down the gradient.

    On CPU a computation of its own: XLA orders the kernels of each anew whenever a compiled step is
    loaded, in time quadratic in their number, and Adam has as many as there are parameters.
    """

    @jax.jit
    def update(gradient, opt_state, params):
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return ops.fusion_barrier(update, gradient, opt_state, params)


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


def compile_ahead(
    config: ConfigDict,
    module: nn.Module,
    shardings: sharding.Shardings,
    *,
    store: compile_cache.Store | None = None,
) -> compile_cache.Ahead:
    """The usual step for whole batches of the config, being compiled or taken from the store."""
    size, joints = config.data.image_size, config.model.num_keypoints
    optimizer = make_optimizer(jnp.dtype(module.dtype))
    shapes = models.shapes(module, image_size=(size, size))
    packed = packing.Packing.of(shapes)
    options = {"parts": config.batch_parts, "remat": config.model.remat}

    def state_shapes() -> TrainState:
        state = jax.eval_shape(
            lambda variables: packed.pack(init_state(variables, optimizer)), shapes
        )
        return with_learning_rate(state, 0.0)

    def of_batch(*shape: int, dtype: jnp.dtype = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((config.batch_size, *shape), dtype, sharding=shardings.batch)

    batch_shapes = {
        "image": of_batch(size, size, 3, dtype=jnp.uint8),
        "keypoints": of_batch(joints, 2),
        "weights": of_batch(joints),
    }
    step = make_train_step(module, optimizer, shardings, packed=packed, **options)
    return compile_cache.Ahead(
        *(step, state_shapes, batch_shapes),
        devices=[*shardings.batch.mesh.devices.flat],
        store=store,
        made_from=(repr(module), options),
    )


def initial_variables(config: ConfigDict, module: nn.Module) -> dict:
    """Random weights, or those that `config.init_from` names (see configs/base.py)."""
    source, size = config.init_from, (config.data.image_size,) * 2
    key = jax.random.key(config.seed)
    if not source:
        return models.init(module, key, image_size=size)
    if Path(source).expanduser().is_dir():
        if is_unfinished(Path(source).expanduser()):
            raise ValueError(
                f"{source} has not been trained to its end; name one of its checkpoints/<step> to "
                "start from that"
            )
        _, variables, _ = checkpoint.load(source)
        differing = other_shapes(variables, models.shapes(module, image_size=size))
        if not differing:
            return variables
        if not all(path[1].startswith("head") for path in differing):
            raise ValueError(f"{source} holds another model than {config.model.name}")
        print(f"{source} was trained on other joints; their last layer starts anew")
        fresh = models.init(module, key, image_size=size)
        return jax.tree.map(lambda a, b: a if a.shape == b.shape else b, variables, fresh)
    with distributed.first_ahead("init_from"):  # may be a download
        variables, report = initial_weights.load(
            source, config.model.name, config.model.num_keypoints, key=key
        )
    print(report)
    return variables


def other_shapes(variables: dict, wanted: dict) -> list[tuple[str, ...]]:
    """Paths, as ('params', 'head', 'bias'), of arrays of other shapes or in only one tree."""
    have, want = (
        {
            tuple(entry.key for entry in path): leaf.shape
            for path, leaf in jax.tree.leaves_with_path(tree)
        }
        for tree in (variables, wanted)
    )
    return sorted(path for path in have | want if have.get(path) != want.get(path))


def is_unfinished(workdir: Path) -> bool:
    """Whether this is the directory of a run whose results are still to come."""
    return (workdir / "checkpoints").is_dir() and not (workdir / "results.json").exists()


def supervised(
    config: ConfigDict,
    animals: data.Animals,
    shardings: sharding.Shardings,
    source: inputs.Input = inputs.STREAM,
) -> Method:
    """Learning from labelled animals alone, as in the paper; epochs are passes, see
    `epochs_as_passes`."""
    on_device = source.kind == "device"
    batches = data.train_batches(
        animals,
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        image_size=config.data.image_size,
        augmentation=Augmentation(**config.augment),
        drop_remainder=config.drop_remainder,
        multiple_of=shardings.batch.mesh.size * config.batch_parts,
        rows=functools.partial(sharding.rows, shardings),
        threads=config.data.loader_threads,
        kept=source.kept,
        cut=not on_device,
    )
    make_step = functools.partial(
        make_train_step, parts=config.batch_parts, remat=config.model.remat
    )
    if not on_device:
        return Method(batches, ("image", "keypoints", "weights"), init_state, make_step)
    make_step = inputs.make_step(
        make_step,
        source.kept,
        image_size=config.data.image_size,
        places=animals.places,
    )
    return Method(batches, ("index", "matrix", "keypoints", "weights"), init_state, make_step)


class Window:
    """The steps since the last line of the log: their numbers, photographs and times."""

    def __init__(self, animals: data.Animals):
        self._animals = animals
        self._steps: list[tuple[int, dict, np.ndarray]] = []
        self._start = time.perf_counter()
        self._waited = 0.0
        self._images = 0

    def add(self, step: int, numbers: dict, index: np.ndarray, waited: float) -> None:
        self._steps.append((step, numbers, index))
        self._waited += waited
        self._images += len(index) * jax.process_count()

    def _numbers(self) -> list[dict]:
        """The steps' numbers on the host. Raises NonFiniteLoss."""
        numbers = jax.device_get([n for _, n, _ in self._steps])
        for (step, _, index), values in zip(self._steps, numbers, strict=True):
            if not np.isfinite(values["loss"]):
                files = [self._animals.image(int(i))["file_name"] for i in sharding.gather(index)]
                raise NonFiniteLoss(
                    f"the loss is {values['loss']} at step {step}; its batch: {', '.join(files)}"
                )
        return numbers

    def stored(self) -> list:
        """The steps as JSON, for a run that stops amid a window. Raises NonFiniteLoss."""
        return [
            [step, {k: np.asarray(v).tolist() for k, v in values.items()}, index.tolist()]
            for (step, _, index), values in zip(self._steps, self._numbers(), strict=True)
        ]

    def restore(self, stored: list) -> None:
        """Go on with `stored` steps: the means will be those of a run that never stopped."""
        self._steps = [(step, values, np.array(index)) for step, values, index in stored]

    def close(self) -> dict:
        """Means over the window; starts the next one. Raises NonFiniteLoss."""
        numbers, self._steps = self._numbers(), []
        now = time.perf_counter()
        seconds, waited = now - self._start, self._waited
        images, self._images = self._images, 0
        self._start, self._waited = now, 0.0
        means = {k: mean([n[k] for n in numbers]) for k in numbers[0]}
        return means | {"images_per_second": images / seconds, "waiting_for_data": waited / seconds}

    def restart_clock(self) -> None:
        """Leave out what has passed since the last line (compiling, scoring, saving)."""
        self._start, self._waited = time.perf_counter(), 0.0


def mean(values: Sequence) -> float:
    """The mean of numbers; of (sum, count) pairs that of what was counted, nan if nothing was."""
    values = np.asarray(values, float)
    if values.ndim == 1:
        return float(np.mean(values))
    total, count = values.sum(axis=0)
    return float(total / count) if count else float("nan")


def train(
    config: ConfigDict,
    workdir: Path,
    module: nn.Module,
    initial: dict | None,
    animals: data.Animals,
    validation: data.Animals,
    predict_step: Callable,
    shardings: sharding.Shardings,
    method: Method | None = None,
) -> None:
    """Train in `workdir` until `config.epochs` are done, going on from its latest checkpoint.

    Epochs are passes over `animals` here, see `epochs_as_passes`. `initial` are the variables of a
    run that has none yet; `predict_step` (see evaluate.py) scores the validation animals every few
    epochs. `method` is `supervised` if none is given. Raises NonFiniteLoss, and Stopped when all is
    saved at the step where it was told to.
    """
    method = method or supervised(config, animals, shardings)
    steps_per_epoch = data.steps_per_epoch(
        len(animals), config.batch_size, drop_remainder=config.drop_remainder
    )
    total_steps = config.epochs * steps_per_epoch
    schedule = learning_rate(config, steps_per_epoch)
    optimizer = make_optimizer(jnp.dtype(module.dtype))
    sides = (config.data.image_size,) * 2
    shapes = models.shapes(module, image_size=sides)
    packed = packing.Packing.of(shapes)
    step_fn = method.make_step(module, optimizer, shardings, packed=packed)
    pack, unpack = (
        jax.jit(function, out_shardings=shardings.replicated)
        for function in (packed.pack, packed.unpack)
    )
    iterator = iter(method.batches)

    def is_scored(epoch: int) -> bool:
        every = config.eval.every_epochs
        return epoch == config.epochs or bool(every and epoch % every == 0)

    with signals.deferred(), checkpoint.Checkpoints(workdir / "checkpoints") as checkpoints:
        state = restore_or_init(
            *(checkpoints, initial, method.init_state, optimizer, iterator, shapes, shardings)
        )
        first = int(state.step) + 1
        state = pack(state)
        latest = checkpoints.saved()[-1] if first > 1 else None
        epoch, within_epoch = divmod(first - 1, steps_per_epoch)
        # a run that was stopped while its validation animals were predicted
        unscored = bool(latest) and not within_epoch and is_scored(epoch) and latest.ap is None
        open_log = run_log.RunLog if distributed.is_first() else run_log.NoLog
        with open_log(workdir, step=first - 1, total_steps=total_steps, unscored=unscored) as log:
            window = Window(animals)
            in_flight: list[Array] = []

            def save_and_stop(step: int) -> NoReturn:
                log.flush()
                if all(saved.step != step for saved in checkpoints.saved()):
                    kept = window.stored()
                    checkpoints.save_stopped(
                        step, checkpoint_parts(unpack(state), iterator), window=kept
                    )
                raise signals.Stopped(f"All {step} of {total_steps} steps are saved in {workdir}.")

            def score(step: int) -> float:
                log.show(now="scoring")
                try:
                    rows = evaluate.predict(
                        *(predict_step, unpack(state).variables, validation, config),
                        name="validation",
                        shardings=shardings,
                    )
                except signals.Stopped:
                    save_and_stop(step)
                scores = evaluate.score(validation, rows, sigmas=config.eval.sigmas)
                log.write(step, "validation", scores)
                log.show(AP=f"{scores['AP']:.3f}", now="training")
                return scores["AP"]

            if unscored:
                ap = score(first - 1)
                log.flush()
                checkpoints.save(first - 1, checkpoint_parts(unpack(state), iterator), ap=ap)
            elif latest:
                window.restore(checkpoints.window(first - 1))
            log.show(now="compiling")
            for step in range(first, total_steps + 1):
                batch, waited = next_batch(iterator, in_flight)
                arrays = {name: batch[name] for name in method.inputs}
                arrays = sharding.split(arrays, shardings)
                state, numbers = step_fn(with_learning_rate(state, schedule(step - 1)), arrays)
                window.add(step, numbers, batch["index"], waited)
                in_flight = [*in_flight[-2:], numbers["loss"]]
                in_flight[0].block_until_ready()  # one step computes while two are queued
                log.bar.update()
                if step == first:
                    log.show(now="training")
                    window.restart_clock()

                epoch, within_epoch = divmod(step, steps_per_epoch)
                if within_epoch % config.log_every_steps == 0 or within_epoch == 0:
                    means = window.close()
                    log.write(step, "train", {**means, "learning_rate": schedule(step - 1)})
                    log.show(
                        loss=f"{means['loss']:.2e}",
                        images_s=f"{means['images_per_second']:.0f}",
                        data_wait=f"{means['waiting_for_data']:.0%}",
                    )
                if not within_epoch:
                    ap = score(step) if is_scored(epoch) else None
                    if ap is not None or epoch % config.checkpoint_every_epochs == 0:
                        log.flush()
                        checkpoints.save(step, checkpoint_parts(unpack(state), iterator), ap=ap)
                    window.restart_clock()
                if signals.requested(step):
                    save_and_stop(step)


def next_batch(iterator: Iterator[dict], in_flight: list[Array]) -> tuple[dict, float]:
    """The next batch, and the seconds that the device waited for it (an upper bound)."""
    asked = time.perf_counter()
    batch = next(iterator)
    seconds = time.perf_counter() - asked
    # If the last queued step is still computing now, the device has not waited at all.
    waited = not in_flight or in_flight[-1].is_ready()
    return batch, seconds if waited else 0.0


def checkpoint_parts(state: TrainState, iterator: grain.DatasetIterator) -> dict:
    """The state of the run as the parts of a checkpoint, see checkpoint.py."""
    return state.checkpoint_parts() | {"data": iterator.get_state()}


def restore_or_init(
    checkpoints: checkpoint.Checkpoints,
    initial: dict | None,
    init_state: Callable,
    optimizer: optax.GradientTransformation,
    iterator: Iterator[dict],
    shapes: dict,
    shardings: sharding.Shardings,
) -> TrainState:
    """The run's latest state, the iterator set to match; one of `initial` where there is none.

    `shapes` is the tree of the variables as jax.ShapeDtypeStruct.
    """
    saved = checkpoints.saved()
    if not saved:
        return copy_to_devices(init_state(initial, optimizer), shardings)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings.replicated),
        jax.eval_shape(lambda variables: init_state(variables, optimizer), shapes),
    )
    stored = checkpoints.restore(saved[-1].step, abstract.checkpoint_parts() | {"data": None})
    iterator.set_state(stored["data"])
    return type(abstract).of_parts(stored)

"""The training loop: restore, step, log, score, save, stop, written out in order."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array
from ml_collections import ConfigDict

from ap10k_jax import checkpoint, evaluate, models, packing, run_log
from ap10k_jax import optimizer as optimizers
from ap10k_jax import train as training
from ap10k_jax.data import batches
from ap10k_jax.data.animals import Animals
from ap10k_jax.runtime import distributed, sharding, signals


class Loop:
    """A run between two of its steps: its state, and what it reads, logs and saves.

    `state` is packed and changes with every step; `in_flight` are the losses of the last steps,
    which the device may still be computing.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        method: training.Method,
        shardings: sharding.Shardings,
        validation: Animals,
        predict_step: Callable,
        packed: packing.Packing,
        steps_per_epoch: int,
    ):
        self._config, self._workdir, self._shardings = config, workdir, shardings
        self._validation, self._predict_step = validation, predict_step
        self.pack, self._unpack = (
            jax.jit(function, out_shardings=shardings.replicated)
            for function in (packed.pack, packed.unpack)
        )
        self.iterator = iter(method.batches)
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = config.epochs * steps_per_epoch
        self.in_flight: list[Array] = []

    @contextlib.contextmanager
    def opened(self, checkpoints: checkpoint.Checkpoints, animals: Animals) -> Iterator[None]:
        """With the log open and everything where the run's latest checkpoint, if any, left it.

        `animals` are those that are trained on; `state` has been restored.
        """
        done = int(self.state.step)
        self.first = done + 1
        self._checkpoints = checkpoints
        latest = checkpoints.saved()[-1] if done else None
        epoch, within_epoch = divmod(done, self.steps_per_epoch)
        # a run that was stopped while its validation animals were predicted
        unscored = bool(latest) and not within_epoch and self.is_scored(epoch) and latest.ap is None
        open_log = run_log.RunLog if distributed.is_first() else run_log.NoLog
        with open_log(
            self._workdir, step=done, total_steps=self.total_steps, unscored=unscored
        ) as self.log:
            self.window = run_log.Window(animals)
            if unscored:
                self.save(done, ap=self.score(done))
            elif latest:
                self.window.restore(checkpoints.window(done))
            yield

    def is_scored(self, epoch: int) -> bool:
        """True if the validation animals are scored after so many epochs."""
        every = self._config.eval.every_epochs
        return epoch == self._config.epochs or bool(every and epoch % every == 0)

    def log_means(self, step: int, rate: float) -> None:
        """Write the means since the last line, and show them. Raises NonFiniteLoss."""
        means = self.window.close()
        self.log.write(step, "train", {**means, "learning_rate": rate})
        self.log.show(
            loss=f"{means['loss']:.2e}",
            images_s=f"{means['images_per_second']:.0f}",
            data_wait=f"{means['waiting_for_data']:.0%}",
        )

    def finish_epoch(self, step: int, epoch: int) -> None:
        """Score and save where that is due."""
        ap = self.score(step) if self.is_scored(epoch) else None
        if ap is not None or epoch % self._config.checkpoint_every_epochs == 0:
            self.save(step, ap=ap)
        self.window.restart_clock()

    def score(self, step: int) -> float:
        """The AP of the validation animals, logged. Raises Stopped, with all saved."""
        self.log.show(now="scoring")
        try:
            rows = evaluate.predict(
                self._predict_step,
                self._unpack(self.state).variables,
                self._validation,
                self._config,
                name="validation",
                shardings=self._shardings,
            )
        except signals.Stopped:
            self.save_and_stop(step)
        scores = evaluate.score(self._validation, rows, sigmas=self._config.eval.sigmas)
        self.log.write(step, "validation", scores)
        self.log.show(AP=f"{scores['AP']:.3f}", now="training")
        return scores["AP"]

    def save(self, step: int, *, ap: float | None) -> None:
        """Save a checkpoint in the background; the log is on disk before it."""
        self.log.flush()
        self._checkpoints.save(step, self._checkpoint_parts(), ap=ap)

    def save_and_stop(self, step: int) -> NoReturn:
        """Save a checkpoint with the open window of the log, and raise Stopped."""
        self.log.flush()
        if all(saved.step != step for saved in self._checkpoints.saved()):
            window = self.window.stored()
            self._checkpoints.save_stopped(step, self._checkpoint_parts(), window=window)
        raise signals.Stopped(
            f"All {step} of {self.total_steps} steps are saved in {self._workdir}."
        )

    def _checkpoint_parts(self) -> dict:
        """The state of the run as the parts of a checkpoint, see checkpoint.py."""
        return self._unpack(self.state).checkpoint_parts() | {"data": self.iterator.get_state()}


def train(
    config: ConfigDict,
    workdir: Path,
    module: nn.Module,
    initial: dict | None,
    animals: Animals,
    validation: Animals,
    predict_step: Callable,
    shardings: sharding.Shardings,
    method: training.Method | None = None,
) -> None:
    """Train in `workdir` until `config.epochs` are done, going on from its latest checkpoint.

    Epochs are passes over `animals` here, see `run_data.epochs_as_passes`. `initial` are the
    variables of a run that has none yet; `predict_step` (see evaluate.py) scores the validation
    animals every few epochs. `method` is `supervised` if none is given. Raises NonFiniteLoss, and
    Stopped when all is saved at the step where it was told to.
    """
    method = method or training.supervised(config, animals, shardings)
    steps_per_epoch = batches.steps_per_epoch(
        len(animals), config.batch_size, drop_remainder=config.drop_remainder
    )
    rate_at = optimizers.learning_rate(config, steps_per_epoch)
    optimizer = optimizers.make_optimizer(jnp.dtype(module.dtype))
    shapes = models.shapes(module, image_size=(config.data.image_size,) * 2)
    packed = packing.Packing.of(shapes)
    step_fn = method.make_step(module, optimizer, shardings, packed=packed)
    loop = Loop(
        config, workdir, method, shardings, validation, predict_step, packed, steps_per_epoch
    )
    with signals.deferred(), checkpoint.Checkpoints(workdir / "checkpoints") as checkpoints:
        loop.state = loop.pack(
            restore_or_init(
                checkpoints, initial, method.init_state, optimizer, loop.iterator, shapes, shardings
            )
        )
        with loop.opened(checkpoints, animals):
            loop.log.show(now="compiling")
            for step in range(loop.first, loop.total_steps + 1):
                batch, waited = next_batch(loop.iterator, loop.in_flight)
                rate = rate_at(step - 1)
                arrays = {name: batch[name] for name in method.inputs}
                loop.state, numbers = step_fn(
                    optimizers.with_learning_rate(loop.state, rate),
                    sharding.split(arrays, shardings),
                )
                loop.window.add(step, numbers, batch["index"], waited)
                loop.in_flight = [*loop.in_flight[-2:], numbers["loss"]]
                loop.in_flight[0].block_until_ready()  # one step computes while two are queued
                loop.log.bar.update()
                if step == loop.first:
                    loop.log.show(now="training")
                    loop.window.restart_clock()
                epoch, within_epoch = divmod(step, steps_per_epoch)
                if within_epoch % config.log_every_steps == 0 or within_epoch == 0:
                    loop.log_means(step, rate)
                if within_epoch == 0:
                    loop.finish_epoch(step, epoch)
                if signals.requested(step):
                    loop.save_and_stop(step)


def next_batch(iterator: Iterator[dict], in_flight: list[Array]) -> tuple[dict, float]:
    """The next batch, and the seconds that the device waited for it (an upper bound)."""
    asked = time.perf_counter()
    batch = next(iterator)
    seconds = time.perf_counter() - asked
    # If the last queued step is still computing now, the device has not waited at all.
    waited = not in_flight or in_flight[-1].is_ready()
    return batch, seconds if waited else 0.0


def restore_or_init(
    checkpoints: checkpoint.Checkpoints,
    initial: dict | None,
    init_state: Callable,
    optimizer: optax.GradientTransformation,
    iterator: Iterator[dict],
    shapes: dict,
    shardings: sharding.Shardings,
) -> training.TrainState:
    """The run's latest state, the iterator set to match; one of `initial` where there is none.

    `shapes` is the tree of the variables as jax.ShapeDtypeStruct.
    """
    saved = checkpoints.saved()
    if not saved:
        return training.copy_to_devices(init_state(initial, optimizer), shardings)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings.replicated),
        jax.eval_shape(lambda variables: init_state(variables, optimizer), shapes),
    )
    stored = checkpoints.restore(saved[-1].step, abstract.checkpoint_parts() | {"data": None})
    iterator.set_state(stored["data"])
    return type(abstract).of_parts(stored)

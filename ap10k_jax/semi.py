"""Learning from few labels and many photographs: a mean teacher with pseudo-labels.

The student is trained; the teacher is the running average of its weights and BatchNorm statistics
(Tarvainen and Valpola, 2017), and the teacher is what is scored, kept as `variables` in checkpoints
and loaded by `checkpoint.load`. In one step, compiled as a whole,

1. the teacher looks at the weak view of animals without labels and at its mirror image; the mean of
   the two is decoded into pseudo-labels, joint by joint;
2. a joint is accepted if the mean's peak is at least `confidence` high and the two views decode to
   places less than `agreement` apart;
3. accepted joints are taken to the strong view by the matrix between the crops, and drawn as
   targets there, as true labels are (a warped heatmap would be a blurred one), but as high as the
   teacher's peak: what it is unsure of stays unsure, and more joints can be accepted;
4. the student's loss is that on the labelled animals plus a weight, which grows over the first
   steps, times that on the strong views.

The student sees labelled animals and strong views in one batch, so BatchNorm's statistics are of
both: a few dozen labelled animals alone would make statistics of their own, and the teacher, which
uses the averaged ones, has to look at the others. Where the truth of an animal is known but hidden
it measures the accepted joints, and nothing else.
"""

from collections.abc import Callable, Sequence

import flax
import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, UInt8
from ml_collections import ConfigDict

from ap10k_jax import (
    codec,
    inference,
    keypoints,
    loss_scaling,
    losses,
    metrics,
    packing,
    train,
)
from ap10k_jax import optimizer as optimizers
from ap10k_jax.augmentation import Augmentation
from ap10k_jax.data import unlabeled
from ap10k_jax.runtime import sharding

PCK = 0.1  # of the side of a square with the box's area: a joint closer to the truth is right


@flax.struct.dataclass
class SemiState:
    step: Int[Array, ""]  # steps taken
    params: dict  # the student's
    batch_stats: dict
    opt_state: optax.OptState
    teacher: dict  # {'params', 'batch_stats'}

    @property
    def variables(self) -> dict:
        """The teacher's: what is scored, and what a notebook loads."""
        return self.teacher

    def checkpoint_parts(self) -> dict:
        """The state as the parts of a checkpoint, see checkpoint.py."""
        return {
            "variables": self.teacher,
            "student": {"params": self.params, "batch_stats": self.batch_stats},
            "optimizer": {"step": self.step, "opt_state": self.opt_state},
        }

    @classmethod
    def of_parts(cls, parts: dict) -> "SemiState":
        return cls(**parts["student"], **parts["optimizer"], teacher=parts["variables"])


def init_state(variables: dict, optimizer: optax.GradientTransformation) -> SemiState:
    """Student and teacher start alike."""
    start = train.init_state(variables, optimizer)
    return SemiState(
        start.step, start.params, start.batch_stats, start.opt_state, teacher=start.variables
    )


def ramp_up(step: Int[Array, ""], *, weight: float, steps: int) -> Float[Array, ""]:
    """The weight of the pseudo-labels' loss: exp(-5 (1 - t)^2) of it at the share t of the steps.

    As in Laine and Aila (2017): the first teacher knows little.
    """
    share = jnp.clip(step / max(steps, 1), 0, 1) if steps else 1.0
    return weight * jnp.exp(-5 * (1 - share) ** 2)


def ema_decay(step: Int[Array, ""], *, decay: float) -> Float[Array, ""]:
    """Decay of the teacher's EMA: (1 + n) / (10 + n) after n steps, until that is `decay`.

    With `decay` from the start the teacher would keep the random weights for 1 / (1 - decay) steps.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def averaged(teacher: dict, student: dict, decay: Float[Array, ""]) -> dict:
    """The teacher after a step of the student."""
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, teacher, student)


def pseudo_labels(
    teacher: dict,
    images: UInt8[Array, "b H W 3"],
    *,
    module: nn.Module,
    pairs: Sequence[tuple[int, int]],
    confidence: float,
    agreement: float,
) -> tuple[Float[Array, "b k 2"], Float[Array, "b k"]]:
    """The teacher's keypoints in crop pixels, and the peak heights of the accepted ones.

    The height of a joint that is not accepted is 0, and none is above that of a target, 1.
    `confidence` is the least height of a peak, `agreement` the largest distance between what the
    crop and its mirror image decode to, as a share of the crop's side.
    """
    inputs = inference.normalize(images)
    heatmaps = module.apply(teacher, jnp.concatenate([inputs, inputs[:, :, ::-1]]), train=False)
    stride = images.shape[1] / heatmaps.shape[1]
    plain, mirrored = jnp.split(heatmaps.astype(jnp.float32), 2)
    mirrored = codec.flip_back(mirrored, pairs=pairs)
    points, scores = codec.decode((plain + mirrored) / 2, stride=stride)
    (a, _), (b, _) = (codec.decode(view, stride=stride) for view in (plain, mirrored))
    apart = jnp.linalg.norm(a - b, axis=-1) / images.shape[1]
    accepted = (scores >= confidence) & (apart <= agreement)
    return points, jnp.where(accepted, jnp.clip(scores, 0, 1), 0)


def to_strong(
    points: Float[Array, "b k 2"],
    heights: Float[Array, "b k"],
    matrix: Float[Array, "b 2 3"],
    exchanged: Bool[Array, " b"],
    *,
    pairs: Sequence[tuple[int, int]],
) -> tuple[Float[Array, "b k 2"], Float[Array, "b k"]]:
    """Joints of the weak crop in pixels of the strong one, left and right exchanged as it says."""
    # sums of products, and not a matrix product: no TF32 or bfloat16 in coordinates
    moved = (points[:, :, None, :] * matrix[:, None, :, :2]).sum(-1) + matrix[:, None, :, 2]
    order = keypoints.mirror_order(pairs, points.shape[1])
    return (
        jnp.where(exchanged[:, None, None], moved[:, order], moved),
        jnp.where(exchanged[:, None], heights[:, order], heights),
    )


def quality(
    points: Float[Array, "b k 2"],
    accepted: Bool[Array, "b k"],
    unlabelled: dict,
    *,
    sigmas: Sequence[float],
) -> dict[str, Float[Array, "2"]]:
    """Quality of pseudo-labels, as (sum, count) pairs over the joints of a batch.

    `accepted` of all joints. Against the hidden truth, where there is one: `pck` and `oks` (each
    joint's term of OKS) of the accepted joints, `pck_of_all` without the filters, and `unseen`, the
    share of the accepted joints that no person has labelled on those animals.
    """
    known = unlabelled["truth_weights"] > 0
    animal = jnp.any(known, axis=1, keepdims=True)  # one with a hidden truth
    squared = jnp.sum(jnp.square(points - unlabelled["truth"]), axis=-1)
    area = unlabelled["area"][:, None]
    right = squared <= PCK**2 * area
    similarity = jnp.exp(-squared / jnp.square(2 * jnp.asarray(sigmas)) / area / 2)

    def pair(value: Array, among: Array) -> Float[Array, "2"]:
        among = jnp.broadcast_to(among, value.shape)
        return jnp.stack([jnp.sum(value * among), jnp.sum(among)]).astype(jnp.float32)

    return {
        "pseudo_accepted": pair(accepted, jnp.ones_like(accepted)),
        "pseudo_pck": pair(right, accepted & known),
        "pseudo_oks": pair(similarity, accepted & known),
        "pseudo_pck_of_all": pair(right, known),
        "pseudo_unseen": pair(~known, accepted & animal),
    }


def join_views(
    batch: dict,
    points: Float[Array, "b k 2"],
    heights: Float[Array, "b k"],
    *,
    pairs: Sequence[tuple[int, int]],
) -> dict:
    """The student's batch: the labelled animals, then the strong views with their pseudo-labels.

    `image` normalised, `keypoints` in crop pixels, `weights`, and `heights` of the targets' peaks.
    `points` and `heights` are `pseudo_labels` of the weak views.
    """
    unlabelled = batch["unlabeled"]
    moved, taught = to_strong(
        points, heights, unlabelled["to_strong"], unlabelled["exchanged"], pairs=pairs
    )
    return {
        "image": inference.normalize(jnp.concatenate([batch["image"], unlabelled["strong"]])),
        "keypoints": jnp.concatenate([batch["keypoints"], moved]),
        "weights": jnp.concatenate([batch["weights"], (taught > 0).astype(jnp.float32)]),
        "heights": jnp.concatenate([jnp.ones_like(batch["weights"]), taught]),
    }


def student_losses(
    module: nn.Module, params: dict, batch_stats: dict, batch: dict, *, labelled: int
) -> tuple[list[Float[Array, ""]], dict]:
    """The losses on the labelled animals and on the strong views, and the running statistics.

    The first `labelled` animals of the batch, one of `join_views`, are the labelled ones.
    """
    images = batch["image"]
    heatmaps, updated = module.apply(
        {"params": params, "batch_stats": batch_stats}, images, train=True, mutable=["batch_stats"]
    )
    stacks = heatmaps if isinstance(heatmaps, list) else [heatmaps]
    h, w = stacks[0].shape[1:3]
    target, weights = codec.encode(
        batch["keypoints"], batch["weights"], size=(w, h), stride=images.shape[2] / w
    )
    target *= batch["heights"][:, None, None]
    parts = [
        sum(losses.heatmap_mse(s[part], target[part], weights[part]) for s in stacks)
        for part in (slice(None, labelled), slice(labelled, None))
    ]
    return parts, updated["batch_stats"]


def semi_step(
    state: SemiState,
    batch: dict,
    *,
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    settings: ConfigDict,
    joints: keypoints.KeypointSet = keypoints.AP10K,
    sigmas: Sequence[float] = keypoints.AP10K.sigmas,
    packed: packing.Packing | None = None,
) -> tuple[SemiState, dict]:
    """The state after one step, and the step's numbers.

    With `packed` the state is a packed one, before and after.

    batch: `image`, `keypoints`, `weights` as train.train_step's, and `unlabeled`, a batch of
    data/unlabeled.py. `settings` is config.semi.
    """
    unlabelled = batch["unlabeled"]
    pack, unpack = (packed.pack, packed.unpack) if packed else (lambda tree: tree,) * 2
    variables = unpack({"params": state.params, "batch_stats": state.batch_stats})
    points, heights = pseudo_labels(
        unpack(state.teacher),
        unlabelled["weak"],
        module=module,
        pairs=joints.pairs,
        confidence=settings.confidence,
        agreement=settings.agreement,
    )
    student_batch = join_views(batch, points, heights, pairs=joints.pairs)
    weight = ramp_up(state.step, weight=settings.weight, steps=settings.ramp_up_steps)
    factor = loss_scaling.loss_factor(state.opt_state)

    def loss_fn(params):
        losses_of_both, batch_stats = student_losses(
            module, params, variables["batch_stats"], student_batch, labelled=len(batch["image"])
        )
        loss = losses_of_both[0] + weight * losses_of_both[1]
        return loss * factor, (loss, losses_of_both, batch_stats)

    gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
    (_, (loss, parts, batch_stats)), gradient = gradient_fn(variables["params"])
    params, opt_state = optimizers.apply_gradient(
        optimizer, pack(gradient), state.opt_state, state.params
    )
    batch_stats = pack(batch_stats)
    decay = ema_decay(state.step, decay=settings.ema_decay)
    student = {"params": params, "batch_stats": batch_stats}
    numbers = {
        "loss": loss,
        "loss_on_labels": parts[0],
        "loss_on_pseudo_labels": parts[1],
        "pseudo_weight": weight,
    }
    numbers |= quality(points, heights > 0, unlabelled, sigmas=sigmas)
    teacher = averaged(state.teacher, student, decay)
    return SemiState(state.step + 1, params, batch_stats, opt_state, teacher), numbers


def mean_teacher(
    config: ConfigDict,
    usual: train.Method,
    sources: Sequence[Sequence[dict]],
    shardings: sharding.Shardings,
    joints: keypoints.KeypointSet,
) -> train.Method:
    """Learning from what `usual` reads and from the animals of data/unlabeled.py's sources."""
    settings = config.semi
    sigmas = metrics.sigmas_of(joints, config.eval.sigmas)[1]
    unlabelled = unlabeled.batches(
        sources,
        batch_size=settings.batch_size,
        seed=config.seed,
        image_size=config.data.image_size,
        weak=Augmentation(**settings.weak),
        strong=Augmentation(**config.augment),
        disturbance=unlabeled.Disturbance(**settings.disturbance),
        keypoint_set=joints,
        threads=config.data.loader_threads,
    )
    together = grain.experimental.ZipIterDataset([usual.batches, unlabelled])
    batches = together.map(lambda pair: pair[0] | {"unlabeled": pair[1]})

    def make_step(
        module: nn.Module,
        optimizer: optax.GradientTransformation,
        shardings: sharding.Shardings,
        packed: packing.Packing | None = None,
    ) -> Callable:
        def step(state: SemiState, batch: dict) -> tuple[SemiState, dict]:
            return semi_step(
                *(state, batch),
                module=module,
                optimizer=optimizer,
                settings=settings,
                joints=joints,
                sigmas=sigmas,
                packed=packed,
            )

        return jax.jit(
            step,
            in_shardings=(shardings.replicated, shardings.batch),
            out_shardings=(shardings.replicated, shardings.replicated),
            donate_argnums=0,
            compiler_options=sharding.compiler_options(shardings),
        )

    return train.Method(batches, (*usual.inputs, "unlabeled"), init_state, make_step)

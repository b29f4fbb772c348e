"""Turn published PyTorch weights into a checkpoint for ap10k_jax.checkpoint.load.

python -m ap10k_jax.convert weights.pth checkpoint_dir --model=hrnet_w32
"""

import argparse
import sys
from collections.abc import Sequence

from ap10k_jax import checkpoint, initial_weights, keypoints, models
from ap10k_jax.configs import base
from ap10k_jax.runtime import command_line, errors

# Errors that the command reports without a traceback.
MISTAKES = (ValueError, OSError, ImportError)

JOINTS = {
    "ap10k": keypoints.AP10K,
    "coco_person": keypoints.COCO_PERSON,
    "animal_pose": keypoints.ANIMAL_POSE,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parser().parse_args(argv)
    with errors.reported(*MISTAKES):
        print(convert(options))
    return 0


def parser() -> argparse.ArgumentParser:
    """Arguments and their help."""
    result = command_line.Parser("ap10k_jax.convert", __doc__)
    sources = ", ".join(initial_weights.PUBLIC)
    result.add_argument("source", help=f".pth, .safetensors, or one of {sources}")
    result.add_argument("dest", help="the folder to write; must not exist")
    result.add_argument("--model", required=True, help=f"one of {', '.join(models.MODELS)}")
    result.add_argument("--num-keypoints", type=int, default=17)
    help = "what the network finds (default: coco_person of `coco`; else ap10k's if they are 17)"
    result.add_argument("--joints", choices=JOINTS, help=help)
    return result


def convert(options: argparse.Namespace) -> str:
    """Write the checkpoint; return the report.

    Raises one of MISTAKES where the weights cannot be read, do not fit the model or the joints, or
    cannot be written.
    """
    variables, report = initial_weights.load(options.source, options.model, options.num_keypoints)
    # 17 joints may be an animal's or a person's: nothing in a file of weights says which.
    joints = options.joints or ("coco_person" if options.source == "coco" else "ap10k")
    fits = len(JOINTS[joints]) == options.num_keypoints
    if options.joints and not fits:
        raise ValueError(
            f"--joints={joints} are {len(JOINTS[joints])}, not {options.num_keypoints}"
        )
    config = base.get_config()
    config.model.name = options.model
    config.model.num_keypoints = options.num_keypoints
    config.init_from = options.source
    content = config.to_dict()
    if fits:
        content["keypoints"] = keypoints.as_category(JOINTS[joints])
    checkpoint.export(options.dest, variables, content)
    return (
        f"{options.dest}: {options.model} from {options.source}\n{report}\n"
        f"joints: {joints if fits else 'not known'} (--joints)"
    )


if __name__ == "__main__":
    sys.exit(main())

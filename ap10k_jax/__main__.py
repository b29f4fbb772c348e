"""The list of commands: `python -m ap10k_jax`."""

COMMANDS = {
    "ap10k_jax.main": "train and evaluate by a config",
    "ap10k_jax.predict": "keypoints of photographs and videos",
    "ap10k_jax.demo": "the same in a browser",
    "ap10k_jax.reproduce": "the paper's tables: run what is missing, write the report",
    "ap10k_jax.run_report": "a report on some runs",
    "ap10k_jax.convert": "published weights as a checkpoint",
    "ap10k_jax.export": "a checkpoint as ONNX or StableHLO",
    "ap10k_jax.models": "the networks and their sizes",
    "tfds_ap10k.build": "build AP-10K, Animal-Pose, COCO's people or your own animals",
    "tfds_ap10k.synthetic": "draw a data set, to try everything without a download",
    "tfds_ap10k.describe": "counts, figures and example pictures of a data set",
    "tfds_ap10k.checks": "strange annotations, by what they look like",
    "tfds_ap10k.blank": "a COCO file to begin annotating photographs with",
    "tfds_ap10k.exchange": "annotations to CVAT or Label Studio, and back",
    "tfds_ap10k.dedup": "photographs that are there twice",
    "tfds_ap10k.divide": "divide an annotation file into train, val and test",
}


def main() -> None:
    width = max(map(len, COMMANDS))
    for name, purpose in COMMANDS.items():
        print(f"python -m {name:{width}}  {purpose}")
    print("\nEach has --help.")


if __name__ == "__main__":
    main()

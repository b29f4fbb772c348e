"""Take annotations to CVAT or Label Studio to be corrected there, and fetch them back.

    python -m tfds_ap10k.exchange COCO.json --to-cvat=task.xml
    python -m tfds_ap10k.exchange COCO.json --from-cvat=annotations.xml --out=NEW.json
    python -m tfds_ap10k.exchange COCO.json --to-label-studio=tasks.json --url=http://host/photos/
    python -m tfds_ap10k.exchange COCO.json --from-label-studio=export.json --out=NEW.json
    python -m tfds_ap10k.exchange COCO.json --from-coco=export.json --out=NEW.json

COCO.json says which photographs, species and joints there are; neither tool keeps their ids, nor
`background`. To start from photographs without labels, make it with `tfds_ap10k.blank`. --from-coco
is for any tool that writes COCO keypoints: photographs, species and joints are found by name. CVAT
reads and writes COCO.json, too, as "COCO Keypoints 1.0", but then gives animals new boxes. See
`cvat` and `label_studio` for the labels that a task or project needs there.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from ap10k_jax.runtime import command_line, errors
from tfds_ap10k import annotations
from tfds_ap10k.exchange import coco_json, corrections, cvat, label_studio

# What the command line turns into a message.
MISTAKES = (ValueError, OSError)


def main() -> int:
    """The command line; returns the exit status."""
    parser = command_line.Parser("tfds_ap10k.exchange", __doc__)
    parser.add_argument("coco", metavar="COCO.json", type=Path)
    tasks = parser.add_mutually_exclusive_group(required=True)
    for name in ("to-cvat", "to-label-studio", "from-cvat", "from-label-studio", "from-coco"):
        tasks.add_argument(f"--{name}", metavar="FILE", type=Path)
    parser.add_argument("--url", default="", help="before the names of photographs, Label Studio")
    parser.add_argument("--out", type=Path, help="the new COCO file, of what comes back")
    flags = parser.parse_args()
    source = flags.from_cvat or flags.from_label_studio or flags.from_coco
    if bool(source) != bool(flags.out):
        parser.error("--out goes with --from-cvat, --from-label-studio and --from-coco")
    with errors.reported(*MISTAKES):
        coco = annotations.read({"": flags.coco})[0][""]
        if flags.to_cvat:
            flags.to_cvat.write_text(cvat.export(coco), encoding="utf-8")
        elif flags.to_label_studio:
            content = json.dumps(label_studio.export(coco, flags.url))
            flags.to_label_studio.write_text(content, encoding="utf-8")
            print(label_studio.interface(coco))
        else:
            tool = "cvat" if flags.from_cvat else "coco" if flags.from_coco else "label_studio"
            new = fetch(source, coco, tool)
            flags.out.write_text(json.dumps(new), encoding="utf-8")
            print(f"{len(new['images'])} photographs, {len(new['annotations'])} animals")
    return 0


def fetch(source: Path, coco: Mapping, tool: str) -> dict:
    """Read the export of a tool: cvat, coco or label_studio. Raises ExchangeError with the file."""
    try:
        text = source.read_text(encoding="utf-8")
        if tool == "cvat":
            return cvat.fetch(text, coco)
        if tool == "coco":
            return coco_json.fetch(json.loads(text), coco)
        return label_studio.fetch(json.loads(text), coco)
    except RecursionError as error:
        raise corrections.ExchangeError(f"{source}: nested too deeply") from error
    except ValueError as error:
        raise corrections.ExchangeError(f"{source}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())

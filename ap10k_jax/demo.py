"""A page to try a network in the browser: drop a photograph, drag boxes, see the skeletons.

    python -m ap10k_jax.demo runs/sl

Only this computer can open the page, unless --host says otherwise. Photographs are kept nowhere.
"""

import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import flask
import numpy as np

from ap10k_jax import images, predict, visualize
from ap10k_jax.runtime import command_line, errors

PAGE = Path(__file__).with_name("demo.html")
LOOPBACK = ("127.0.0.1", "localhost")
LARGEST_UPLOAD = 64 * 2**20  # bytes
MOST_BOXES = 64


def app(predictor: predict.Predictor, *, hosts: Sequence[str] | None = LOOPBACK) -> flask.Flask:
    """The page and its one question. `hosts` are the names it answers to; None is any.

    A name that is not ours in the request means that a page elsewhere has pointed its own name to
    this computer.
    """
    server = flask.Flask("ap10k_jax.demo")
    server.config["MAX_CONTENT_LENGTH"] = LARGEST_UPLOAD
    server.config["TRUSTED_HOSTS"] = list(hosts) if hosts else None
    one_at_a_time = threading.Lock()
    joints = predictor.keypoint_set
    about = {
        "network": predictor.name,
        "names": joints.names,
        "sides": [joints.side(i) for i in range(len(joints))],
        "skeleton": joints.skeleton,
        "colors": {side: "rgb({},{},{})".format(*c) for side, c in visualize.COLORS.items()},
        "sure": visualize.SURE,
    }

    @server.get("/")
    def page() -> str:
        return PAGE.read_text().replace("{{about}}", json.dumps(about))

    @server.post("/predict")
    def keypoints() -> tuple[dict, int] | dict:
        try:
            photograph = flask.request.files["photograph"]
            boxes = json.loads(flask.request.form.get("boxes", "null"))
            if boxes is not None:
                boxes = np.array(boxes, float).reshape(-1, 4)[:MOST_BOXES]
            with one_at_a_time:  # the decoding too: a few kilobytes can become half a gigabyte
                image = images.decode(photograph.read(), "the file")
                animals = predictor(image, boxes)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            return {"error": str(error)}, 400
        return {
            "network": predictor.name,
            "width": image.shape[1],
            "height": image.shape[0],
            "names": joints.names,
            "animals": [
                {
                    "box": animal.box.tolist(),
                    "score": animal.score,
                    "keypoints": animal.keypoints.tolist(),
                }
                for animal in animals
            ],
        }

    return server


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; serves until it is stopped."""
    parser = command_line.Parser("ap10k_jax.demo", __doc__)
    parser.add_argument("checkpoint", help="a run's directory, one of its steps, or an export")
    help = "address to listen on; 0.0.0.0 opens the page to the network (%(default)s)"
    parser.add_argument("--host", default=LOOPBACK[0], help=help)
    parser.add_argument("--port", type=int, default=8000, help="(%(default)s)")
    options = parser.parse_args(argv)
    with errors.reported(ValueError):
        predictor = predict.Predictor.load(options.checkpoint, batch_sizes=(1,))
    hosts = LOOPBACK if options.host in LOOPBACK else None
    app(predictor, hosts=hosts).run(options.host, options.port, threaded=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Keypoints of an animal in a photograph, without JAX and without this package.

    pip install numpy opencv-python-headless onnxruntime
    python run_onnx.py fox.onnx photograph.jpg [x y width height]

The box (image pixels) holds one animal; without it the whole photograph does. Prints JSON:
x and y in pixels of the photograph as it is stored, and the score of each joint.
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime


def main(model_file, photograph, *box):
    session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["ap10k_jax"])
    size = about["input"]["size"]

    image = cv2.imread(photograph, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        sys.exit(f"{photograph}: cannot be read")
    height, width = image.shape[:2]
    x, y, w, h = map(float, box) if box else (0, 0, width, height)

    # The crop: a square around the box, a quarter larger than its longer side.
    last = np.array([width - 1, height - 1])
    low, high = np.clip([x, y], 0, last), np.clip([x + w, y + h], 0, last)
    zoom = size / (1.25 * (high - low).max())
    offset = size / 2 - zoom * (low + high) / 2
    matrix = np.array([[zoom, 0, offset[0]], [0, zoom, offset[1]]])
    crop = cv2.warpAffine(image[..., ::-1], matrix, (size, size))

    batch = np.repeat(crop[None], about["input"]["batch"], axis=0)
    (keypoints,) = session.run(None, {about["input"]["name"]: batch})
    found = keypoints[0]
    found[:, :2] = (found[:, :2] - offset) / zoom
    joints = zip(about["keypoints"], found.round(2).tolist(), strict=True)
    print(json.dumps(dict(joints), indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])

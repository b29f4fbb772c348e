"""The command turns a file of weights into a checkpoint that says where it comes from."""

import jax
import numpy as np
import safetensors.numpy

from ap10k_jax import checkpoint, keypoints, models
from ap10k_jax.convert import __main__ as command
from ap10k_jax.convert import torch_names


def test_joints_of_the_command_line_are_the_three_sets():
    assert command.JOINTS == {
        "ap10k": keypoints.AP10K,
        "coco_person": keypoints.COCO_PERSON,
        "animal_pose": keypoints.ANIMAL_POSE,
    }


def test_the_command_writes_a_checkpoint_and_prints_the_report(tmp_path, capsys):
    name = "simplebaseline_resnet18"
    state = torch_names.to_torch(models.init(models.build(name), jax.random.key(3)), name)
    state["fc.weight"] = np.ones((1000, 512), np.float32)
    state = {n.removeprefix("backbone."): a for n, a in state.items() if "head" not in n}
    safetensors.numpy.save_file(state, tmp_path / "net.safetensors")
    source, dest = str(tmp_path / "net.safetensors"), str(tmp_path / "out")
    assert command.main([source, dest, f"--model={name}"]) == 0
    printed = capsys.readouterr().out
    assert "used 100 names" in printed
    assert "ignored 1, such as fc.weight: part of the ImageNet classifier" in printed
    assert "head.final_layer.weight" in printed
    module, variables, config = checkpoint.load(dest)
    assert module == models.build(name)
    assert config["init_from"] == source
    np.testing.assert_array_equal(
        variables["params"]["conv1"]["kernel"], state["conv1.weight"].transpose(2, 3, 1, 0)
    )

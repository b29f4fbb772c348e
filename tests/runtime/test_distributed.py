"""Several processes share a run: each reads its rows, they agree, and none waits for ever."""

import contextlib
import os
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ap10k_jax.data import batches
from ap10k_jax.data.animals import Animals
from ap10k_jax.runtime import distributed, errors, sharding

SLURM = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}


@pytest.fixture(scope="module")
def animals(synthetic_dir):
    return Animals.open("ap10k/split1", "train", data_dir=synthetic_dir)


def shared(batches_of, processes, devices_each):
    """The batches as `processes` processes read them, put together again."""
    count = processes * devices_each

    def rows_of(process):
        share = (process * devices_each, (process + 1) * devices_each)
        return lambda size: range(*(place * size // count for place in share))

    shares = [list(batches_of(rows_of(process))) for process in range(processes)]
    for parts in zip(*shares, strict=True):
        assert len({len(batch["index"]) for batch in parts}) == 1
        yield {name: np.concatenate([batch[name] for batch in parts]) for name in parts[0]}


def equal(some, others):
    for a, b in zip(some, others, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_read_together_what_one_reads_alone(animals, process_count):
    def load(rows=range):
        options = {"batch_size": 16, "epochs": 2, "seed": 3, "image_size": 32, "multiple_of": 8}
        return batches.train_batches(animals, **options, rows=rows)

    assert len(animals) % 16 % 8, "the last batch of an epoch should need filling up"
    equal(shared(load, process_count, 8 // process_count), load())


def test_processes_score_every_animal_once(animals):
    assert len(animals) % 2, "an odd number divides among no processes"

    def load(rows=range):
        return batches.eval_batches(animals, batch_size=16, image_size=32, rows=rows)

    together = list(shared(load, 2, 4))
    equal(together, load())
    index = np.concatenate([batch["index"] for batch in together])
    assert sorted(index[index >= 0]) == list(range(len(animals)))


def test_a_process_reads_only_its_rows(animals, monkeypatch):
    read = []
    whole = type(animals).__getitem__
    monkeypatch.setattr(
        type(animals), "__getitem__", lambda self, i: read.append(i) or whole(self, i)
    )
    loader = batches.eval_batches(
        animals, batch_size=16, image_size=32, rows=lambda size: range(size // 2, size)
    )
    wanted = [i for batch in loader for i in batch["index"].tolist() if i >= 0]
    # of the last batch some rows are copies of its first ones
    assert set(read) - set(wanted) <= set(range(len(animals) // 16 * 16, len(animals)))
    assert set(wanted) <= set(read)


def test_an_iterators_state_is_the_same_in_every_process(animals):
    states = []
    for rows in (range, lambda size: range(size // 2), lambda size: range(size // 2, size)):
        iterator = iter(
            batches.train_batches(
                animals, batch_size=16, epochs=2, seed=0, image_size=32, multiple_of=8, rows=rows
            )
        )
        for _ in range(3):
            next(iterator)
        states.append(iterator.get_state())
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize(("process", "wanted"), [(0, range(0, 12)), (1, range(12, 16))])
def test_rows_follow_the_devices(monkeypatch, process, wanted):
    # three devices of the first process and one of the second
    mesh = SimpleNamespace(
        devices=np.array([SimpleNamespace(process_index=i) for i in (0, 0, 0, 1)])
    )
    shardings = sharding.Shardings(None, SimpleNamespace(mesh=mesh))
    monkeypatch.setattr(jax, "process_index", lambda: process)
    assert sharding.rows(shardings, 16) == wanted


def test_a_process_of_its_own_reads_all_rows_and_waits_for_none():
    assert sharding.rows(sharding.shardings(), 16) == range(16)
    distributed.agree(anything="here")
    with distributed.first_process_first("nothing"):
        pass
    assert distributed.is_first()


def test_rows_become_one_array_on_all_devices():
    batch = {"image": np.arange(16 * 3).reshape(16, 3)}
    array = sharding.split(batch, sharding.shardings())["image"]
    assert {shard.data.shape for shard in array.addressable_shards} == {(2, 3)}
    np.testing.assert_array_equal(array, batch["image"])


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, None),
        # a batch script or an interactive shell in an allocation of four tasks: nobody would come
        ({**SLURM, "SLURM_NTASKS": "4"}, None),
        ({**SLURM, "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, None),
        (
            {**SLURM, "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2"},
            {"num_processes": 4},
        ),
        # a task for each of a node's GPUs, all visible to all: JAX takes them by task
        (
            {
                **SLURM,
                "SLURM_STEP_NUM_TASKS": "4",
                "SLURM_STEP_NUM_NODES": "2",
                "CUDA_VISIBLE_DEVICES": "0,1",
            },
            {"num_processes": 4},
        ),
        # every task sees its own GPU alone
        (
            {
                **SLURM,
                "SLURM_STEP_NUM_TASKS": "4",
                "SLURM_STEP_NUM_NODES": "2",
                "CUDA_VISIBLE_DEVICES": "0",
            },
            {"num_processes": 4, "local_device_ids": [0]},
        ),
        # one task a node, with all of its GPUs
        (
            {
                **SLURM,
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_STEP_NUM_NODES": "2",
                "CUDA_VISIBLE_DEVICES": "0,1,2,3",
            },
            {"num_processes": 2, "local_device_ids": [0, 1, 2, 3]},
        ),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, {"num_processes": 2}),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
    ],
)
def test_other_processes_are_looked_for_only_where_there_are_some(environment, wanted):
    assert distributed.cluster_options(environment) == wanted


def test_a_process_of_its_own_does_not_join(monkeypatch):
    def fail(**options):
        raise AssertionError(f"would wait for {options}")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    monkeypatch.setattr(os, "environ", {**SLURM, "SLURM_NTASKS": "4"})
    distributed.join()


def test_on_a_tpu_jax_looks_for_the_other_hosts(monkeypatch):
    called = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: called.append(options))
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(distributed, "jax", SimpleNamespace(**vars(jax) | {"config": TPU}))
    distributed.join()
    assert [set(options) for options in called] == [
        {"initialization_timeout", "heartbeat_timeout_seconds", "shutdown_timeout_seconds"}
    ]


TPU = SimpleNamespace(jax_platforms="tpu,cpu")


def test_half_an_address_is_refused():
    with pytest.raises(errors.UserError, match="go together"):
        distributed.join(num_processes=2)


def test_a_cluster_without_an_address_is_a_clear_error(monkeypatch):
    def fail(**options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    monkeypatch.setattr(os, "environ", {"OMPI_COMM_WORLD_SIZE": "2"})
    with pytest.raises(errors.UserError, match="--coordinator-address=HOST:PORT"):
        distributed.join()


@contextlib.contextmanager
def of_two(monkeypatch, first_says=1, others_hash=None):
    """As the second of two processes, with what it hears from the first."""
    heard = SimpleNamespace(
        broadcast_one_to_all=lambda value: np.int32(first_says),
        process_allgather=lambda tree: {
            name: np.stack([value if others_hash is None else others_hash, value])
            for name, value in tree.items()
        },
    )
    with monkeypatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: 2)
        patch.setattr(jax, "process_index", lambda: 1)
        patch.setattr(distributed, "multihost_utils", heard)
        yield


def test_where_the_first_fails_the_others_do_not_go_on(monkeypatch):
    done = []
    with (
        of_two(monkeypatch, first_says=0),
        pytest.raises(errors.UserError, match=r"data\.dir"),
        distributed.first_process_first("data.dir"),
    ):
        done.append(1)
    assert not done
    with of_two(monkeypatch), distributed.first_process_first("data.dir"):
        done.append(1)
    assert done


def test_processes_that_see_other_things_are_told_which(monkeypatch):
    with of_two(monkeypatch):
        distributed.agree(config="a", data="b")
    with (
        of_two(monkeypatch, others_hash=np.zeros(1, np.uint32)),
        pytest.raises(errors.UserError, match=r"config \(here: a\)"),
    ):
        distributed.agree(config="a")


def test_a_workdir_that_is_not_shared_is_noticed(monkeypatch, tmp_path):
    monkeypatch.setattr(distributed, "NETWORK_DELAY", 0)
    with pytest.raises(errors.UserError, match="all hosts share"):
        distributed.wait_for(tmp_path / "config.json")
    (tmp_path / "config.json").touch()
    distributed.wait_for(tmp_path / "config.json")

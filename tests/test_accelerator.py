"""Kernels and launches are counted from a profiler's trace."""

import importlib.util
from pathlib import Path

WORKER = Path(__file__).parents[1] / "benchmarks" / "accelerator_worker.py"


def test_kernels_and_launches_are_counted():
    spec = importlib.util.spec_from_file_location("accelerator_worker", WORKER)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    events = [
        {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "/device:GPU:0"}},
        {"ph": "M", "name": "process_name", "pid": 9, "args": {"name": "/host:CPU"}},
        {"ph": "X", "name": "input_reduce_fusion_5", "pid": 1, "dur": 3000.0},
        {"ph": "X", "name": "input_reduce_fusion.12", "pid": 1, "dur": 1000.0},
        {"ph": "X", "name": "loop_add_fusion", "pid": 1, "dur": 500.0},
        {"ph": "X", "name": "cuGraphLaunch (CudaGraph:3361)", "pid": 9, "dur": 7.0},
        {"ph": "X", "name": "cuGraphCreate (CudaGraph:1)", "pid": 9, "dur": 7.0},
        {"ph": "X", "name": "cuLaunchKernel", "pid": 9, "dur": 7.0},
    ]
    counted = worker.count_events(events)
    assert counted == {
        "kernels": 3,
        "launches": 2,
        "kernel_milliseconds": 4.5,
        "largest": ["input_reduce_fusion", "loop_add_fusion"],
    }

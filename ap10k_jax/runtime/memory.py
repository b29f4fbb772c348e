"""Memory that this process may use."""

import contextlib
import os
from pathlib import Path


def limit(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use: the machine's, or less by its control groups."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2
                groups, name = root / "sys/fs/cgroup", "memory.max"
            elif "memory" in controllers.split(","):
                groups, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
            else:
                continue
            group = groups / path.lstrip("/")
            for folder in (group, *group.parents):
                with contextlib.suppress(OSError, ValueError):  # "max" is no number
                    sizes.append(int((folder / name).read_text()))
    return min(sizes)

"""The choice of where training crops come from.

`stream` decodes every photograph every time; `decoded` keeps the pixels on disk
(data/decoded_cache.py) and cuts the same crops from them to the bit: the reference's. `device`
holds patches (data/patches.py) in the accelerator's memory and cuts there (data/device_crops.py),
so that the host sends a few numbers an animal. The views are the same in all three; patches are
shrunk with antialiasing, so that their crops are softer.
"""

from typing import NamedTuple

import jax

from ap10k_jax.data.animals import Animals
from ap10k_jax.data.batches import Source
from ap10k_jax.data.decoded_cache import DecodedPhotographs
from ap10k_jax.data.patches import Patches
from ap10k_jax.runtime import memory

INPUTS = ("auto", "stream", "decoded", "device")
SHARE = 0.5  # of the host's memory, and of the free disk, that `auto` lets photographs take


class Input(NamedTuple):
    kind: str  # stream, decoded or device
    examples: Source
    reason: str  # of the choice, to be printed


def stream(animals: Animals, reason: str = "as asked") -> Input:
    """The input that decodes every photograph every time."""
    return Input("stream", animals, reason)


def choose(asked: str, decoded: DecodedPhotographs, patches: Patches, device: jax.Device) -> Input:
    """The input named by `asked`; "auto" is `decoded` where there is room for it, else `stream`.

    `auto` chooses only between the two that cut the reference's crops to the bit, so it never
    changes a result. It needs room in memory too: pixels that come from the disk every time are
    slower than JPEGs. Raises ValueError where there is no room for the input that was asked for.
    """
    if asked == "stream":
        return stream(decoded.animals)
    if asked == "device":
        return _choose_device(patches, device)
    size = f"{decoded.bytes / 1e9:.2f} GB of pixels"
    if asked == "decoded":
        if obstacle := decoded.obstacle(share=0.9):
            raise ValueError(f"{obstacle}; mend that, or choose stream")
        return Input(asked, decoded, f"as asked, {size}")
    if decoded.bytes > SHARE * memory.limit():
        reason = (
            f"{size} are more than half of the memory, {memory.limit() / 1e9:.1f} GB; "
            "see data.input in configs/base.py"
        )
        return stream(decoded.animals, reason)
    obstacle = decoded.obstacle(share=SHARE)
    return stream(decoded.animals, obstacle) if obstacle else Input("decoded", decoded, size)


def _choose_device(patches: Patches, device: jax.Device) -> Input:
    size, room = f"{patches.bytes / 1e9:.2f} GB of patches", device_memory(device)
    if obstacle := patches.obstacle():
        raise ValueError(f"{obstacle}; mend that, or choose stream")
    if room and patches.bytes > 0.9 * room:
        raise ValueError(f"{size}; the device has {room / 1e9:.1f} GB; choose decoded")
    return Input("device", patches, f"as asked, {size}")


def device_memory(device: jax.Device) -> int:
    """Bytes that computations may take on a device; 0 for a CPU, whose memory is the host's."""
    stats = None if device.platform == "cpu" else device.memory_stats()
    return (stats or {}).get("bytes_limit", 0)

"""Perceptual hashes: images that look alike, re-encoded or scaled, have hashes that differ in few bits.

A difference hash on each colour channel: the picture at 9 x 8 pixels, each pixel compared with its right neighbour;
3 x 64 bits, as 48 hex digits. Colour counts, as a red and a green ball are no duplicates here.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BITS = 192
_BLOCK = 2048
"""Hashes compared in one block: memory stays flat where very many share a band."""


def perceptual_hash(image: Image.Image) -> str:
    """The hash of an image, 48 hex digits. Equal pixels give equal hashes."""
    small = np.asarray(image.convert("RGB").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = small[:, 1:] > small[:, :-1]
    return np.packbits(bits.transpose(2, 0, 1).ravel()).tobytes().hex()


def distance(one: str, other: str) -> int:
    """In how many of 192 bits two hashes differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def alike_across(groups: Mapping[str, Sequence[str]], bits: int) -> dict[str, tuple[str, int]]:
    """Hashes that are alike and stand in different groups.

    Args:
        groups: hash to the groups (splits) that it stands in.
        bits: hashes that differ in at most this many bits are alike.

    Returns each such hash with the one like it and in how many bits they differ (itself and 0 where one hash stands
    in two groups). Two hashes within `bits` agree on at least one of `bits + 1` bands: only hashes that share a band
    are compared.
    """
    found = {name: (name, 0) for name, places in groups.items() if len(set(places)) > 1}
    names = sorted(name for name in groups if name not in found)
    if not names:
        return found
    packed = np.frombuffer(bytes.fromhex("".join(names)), np.uint8).reshape(len(names), BITS // 8)
    labels = {group: number for number, group in enumerate(sorted({g for places in groups.values() for g in places}))}
    group_of = np.array([labels[groups[name][0]] for name in names])
    for one, other, differing in _close(packed, group_of, bits):
        for a, b in ((one, other), (other, one)):
            if names[a] not in found or differing < found[names[a]][1]:
                found[names[a]] = (names[b], differing)
    return found


def _close(packed: NDArray[np.uint8], group_of: NDArray[np.int_], bits: int) -> Iterator[tuple[int, int, int]]:
    """Pairs of rows of different groups that differ in at most `bits` bits, and in how many."""
    unpacked = np.unpackbits(packed, axis=1)
    for band in np.array_split(np.arange(BITS), bits + 1):
        keys = np.packbits(unpacked[:, band], axis=1)
        order = np.lexsort(keys.T)
        starts = np.flatnonzero(np.r_[True, np.any(keys[order][1:] != keys[order][:-1], axis=1)])
        for members in np.split(order, starts[1:]):
            if len(members) < 2 or np.all(group_of[members] == group_of[members[0]]):
                continue
            for first in range(0, len(members), _BLOCK):
                for second in range(first, len(members), _BLOCK):
                    a, b = members[first : first + _BLOCK], members[second : second + _BLOCK]
                    differing = np.zeros((len(a), len(b)), dtype=np.int16)
                    for byte in range(packed.shape[1]):
                        differing += np.bitwise_count(packed[a, byte][:, None] ^ packed[b, byte][None, :])
                    close = (differing <= bits) & (group_of[a][:, None] != group_of[b][None, :])
                    for i, j in np.argwhere(close):
                        yield int(a[i]), int(b[j]), int(differing[i, j])

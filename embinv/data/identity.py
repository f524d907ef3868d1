"""Which texts a split is of, in a few letters: a checksum of ids that are hashes of the texts."""

import zlib

import numpy as np


def checksum(ids: np.ndarray) -> str:
    """CRC-32 of ids [N] int64, whatever their order, in hexadecimal."""
    return f"{zlib.crc32(np.sort(ids).tobytes()):08x}"

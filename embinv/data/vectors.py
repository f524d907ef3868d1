"""Vectors that a user brings: reading them from a file, and saying what is wrong with them.

`.npy` files are never unpickled. Nothing is repaired: a bad vector is named with its row.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def check_embeddings(embeddings: np.ndarray, dim: int, what: str = "embeddings") -> np.ndarray:
    """Returns [N, D] float32 vectors that can be inverted.

    Args:
        embeddings: [N, D] or [D], any real type.
        dim: D that the inverter takes.
        what: how the message calls them.

    Raises:
        ValueError: wrong shape, or NaN, infinity or only zeros in a row; the message names the row and the fix.
    """
    try:
        given = np.asarray(embeddings)
    except ValueError as error:
        raise ValueError(f"{what}: send numbers, {dim} of them for each vector, in rows of one length") from error
    if given.size and given.dtype.kind not in "fiu":
        raise ValueError(f"{what}: send numbers, {dim} of them for each vector, in rows of one length")
    with np.errstate(over="ignore"):  # what overflows becomes infinity, and its row is named below
        vectors = given.astype(np.float32)
    if vectors.ndim == 1:
        vectors = vectors[None, :]
    if vectors.ndim != 2:
        raise ValueError(f"{what}: expected a matrix [N, {dim}], got shape {vectors.shape}")
    if len(vectors) == 0:
        raise ValueError(f"{what}: no vector was given; send at least one of {dim} numbers")
    if vectors.shape[1] != dim:
        raise ValueError(
            f"{what}: vectors have {vectors.shape[1]} dimensions, this inverter takes {dim}; "
            "use the checkpoint of the encoder that made them"
        )
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(f"{what}: row {row} holds NaN or infinity (or overflows float32); remove or re-encode it")
    zero = ~vectors.any(axis=1)
    if zero.any():
        raise ValueError(f"{what}: row {int(np.argmax(zero))} is a zero vector, which says nothing; remove it")
    return vectors


def read_vectors(path: str | Path, column: str = "embedding") -> tuple[np.ndarray, np.ndarray]:
    """Reads a dump of vectors.

    Args:
        path: `.npy` with [N, D] numbers, or `.parquet` with a list column of them and, if it has one, an `id` column.
        column: name of the vectors' column in a Parquet file.

    Returns:
        ids [N] (the row numbers where the file has none), and vectors [N, D].

    Raises:
        ValueError: the file is absent, of another kind, or holds no such vectors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--vectors {path}: no such file")
    readers = {".npy": _read_npy, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise ValueError(f"--vectors {path}: expected a {' or '.join(readers)} file, got {path.suffix or 'no suffix'}")
    return readers[path.suffix](path, column)


def _read_npy(path: Path, column: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        vectors = np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"--vectors {path}: not a plain .npy array of numbers ({error})") from error
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise ValueError(f"--vectors {path}: expected [N, D] numbers, got {vectors.dtype} of shape {vectors.shape}")
    return np.arange(len(vectors), dtype=np.int64), vectors


def _read_parquet(path: Path, column: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        names = pq.read_schema(path).names
        if column not in names:
            raise ValueError(f"--vectors {path}: no column {column!r}; it has {', '.join(names)}")
        table = pq.read_table(path, columns=[name for name in ("id", column) if name in names])
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"--vectors {path}: not a readable Parquet file ({error})") from error
    lists = table[column].combine_chunks()
    kind = lists.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise ValueError(f"--vectors {path}: column {column!r} is {kind}, expected lists of numbers")
    if lists.null_count:
        row = int(np.argmax(lists.is_null().to_numpy(zero_copy_only=False)))
        raise ValueError(f"--vectors {path}: row {row} of {column!r} is null; remove it")
    lengths = set(np.unique(lists.value_lengths().to_numpy(zero_copy_only=False)).tolist())
    if len(lengths) > 1:
        raise ValueError(f"--vectors {path}: vectors have different lengths ({sorted(lengths)}); they must share one")
    width = lengths.pop() if lengths else 0
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    if flat.dtype.kind not in "fiu":
        raise ValueError(f"--vectors {path}: column {column!r} holds {kind.value_type}, expected numbers")
    ids = table["id"].to_numpy() if "id" in table.column_names else np.arange(len(table), dtype=np.int64)
    return ids, flat.reshape(len(table), int(width))

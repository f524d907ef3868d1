"""Pairs to measure with: random ones that cost what real ones cost, and real ones encoded here, without a job.

Shapes: N rows, L tokens, D embedding, V vocabulary.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embinv.config import Config
from embinv.data.alignment import align
from embinv.data.corpus import clean_batch
from embinv.data.language import UNDETERMINED
from embinv.data.pairs import Pairs
from embinv.data.schema import PairsRecipe
from embinv.data.settings import DataSettings
from embinv.data.split import SPLITS, assign_splits
from embinv.data.tokenizer import TextTokenizer
from embinv.encoders.base import open_encoder
from jobs.outputs import SUCCESS_FILE

WINDOW = 4096  # texts that are encoded between two lines of progress


def random_pairs(rows: int, vocab: int, seq_len: int, dim: int, end_ids: tuple[int, int] = (0, 1)) -> Pairs:
    """Pairs that mean nothing: texts of random length and tokens, then EOS, then PAD, and random directions.

    Args:
        rows: N.
        vocab: V; content is drawn from the ids that are not in `end_ids`.
        seq_len: L.
        dim: D.
        end_ids: EOS and PAD.
    """
    rng = np.random.default_rng(0)
    content = np.setdiff1d(np.arange(vocab), end_ids)
    token_ids = rng.choice(content, (rows, seq_len)).astype(np.int32)  # [N, L]
    lengths = rng.integers(seq_len // 2, seq_len, rows)  # L - 1 at most
    place = np.arange(seq_len)
    token_ids[place == lengths[:, None]] = end_ids[0]
    token_ids[place > lengths[:, None]] = end_ids[1]
    vectors = rng.standard_normal((rows, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Pairs(np.arange(rows), [""] * rows, ["en"] * rows, token_ids, vectors.astype(np.float16))


def write_pairs(folder: Path, recipe: PairsRecipe, splits: dict[str, Pairs]) -> None:
    """A pairs data set as jobs/encode.py lays it out, one file a split, `_SUCCESS` last; empty splits are left out."""
    for name, pairs in splits.items():
        if not len(pairs):
            continue
        path = folder / f"split={name}" / "part-00000.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        pq.write_table(pairs.to_arrow(recipe), partial)
        partial.replace(path)
    (folder / SUCCESS_FILE).touch()


def require_texts(path: Path) -> None:
    """Refuses a file of texts that is not there.

    Raises:
        ValueError: it is not.
    """
    if not path.is_file():
        raise ValueError(f"--texts {path}: no such file; give Parquet with a text column, or one text a line")


def read_texts(path: Path, rows: int | None, data: DataSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clean texts, no two alike, in a seeded order: at most `rows` of them.

    Args:
        path: Parquet with a text column (and `lang`, if it has one), or a file with one text a line.
        rows: how many at most; None takes all.
        data: name of the text column, shortest and longest text, seed.

    Returns:
        ids [N] int64, texts [N] object, languages [N] object.

    Raises:
        ValueError: the file is absent, has no such column, or no text in it is left.
    """
    require_texts(path)
    if path.suffix == ".parquet":
        names = pq.read_schema(path).names
        if data.text_column not in names:
            raise ValueError(f"--texts {path}: no column {data.text_column!r}; it has {', '.join(names)}")
        table = pq.read_table(path, columns=[name for name in (data.text_column, "lang") if name in names])
        texts = table[data.text_column]
        langs = table["lang"].to_pylist() if "lang" in names else [UNDETERMINED] * len(texts)
    else:
        texts = pa.chunked_array([pa.array(path.read_text(encoding="utf-8").splitlines(), pa.string())])
        langs = [UNDETERMINED] * len(texts)
    clean = clean_batch(texts, data.min_chars, data.max_chars)
    good = np.flatnonzero(clean.reasons == 0)
    _, first = np.unique(clean.ids[good], return_index=True)
    chosen = np.random.default_rng(data.seed).permutation(good[np.sort(first)])[:rows]
    if not len(chosen):
        raise ValueError(f"--texts {path}: no text of {data.min_chars} to {data.max_chars} characters is in it")
    kept = np.asarray(clean.texts.to_pylist(), dtype=object)[chosen]
    return clean.ids[chosen], kept, np.asarray(langs, dtype=object)[chosen]


def encode_pairs(
    config: Config,
    tokenizer: TextTokenizer,
    path: Path,
    rows: int | None,
    on_progress: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Pairs], float]:
    """Texts as aligned pairs by split, and the texts encoded in a second once the encoder was loaded.

    Args:
        config: says how to align, divide and encode, and on which device.
        tokenizer: the decoder's.
        path: as in `read_texts`.
        rows: texts at most.
        on_progress: gets a line after each window.

    Raises:
        ValueError: no texts are there, none is long enough, or the encoder cannot be loaded.
    """
    data = config.data
    ids, texts, langs = read_texts(path, rows, data)
    aligned = align(texts, tokenizer.fast, data.seq_len, data.min_tokens)
    # Texts that were cut may have become alike: the first stays.
    _, first = np.unique(aligned.token_ids, axis=0, return_index=True)
    keep = np.sort(first)
    if not len(keep):
        raise ValueError(f"--texts {path}: no text in it has {data.min_tokens} tokens; lower data.min_tokens")
    texts, origin = aligned.texts[keep], aligned.rows[keep]
    encoder = open_encoder(config.encoder, config.encoding.device, config.encoding)
    encoder.encode(texts[:64].tolist())  # the first pass is slower than those that follow
    vectors, began = [], time.monotonic()
    for start in range(0, len(texts), WINDOW):
        vectors.append(encoder.encode(texts[start : start + WINDOW].tolist()).astype(np.float16))
        on_progress(f"encoded {start + len(vectors[-1]):,} of {len(texts):,} texts")
    seconds = time.monotonic() - began
    whole = Pairs(ids[origin], texts.tolist(), langs[origin].tolist(), aligned.token_ids[keep], np.concatenate(vectors))
    codes = assign_splits(texts, data.validation, data.test, data.correction)
    names = SPLITS if data.correction else SPLITS[:-1]
    return {name: whole.take(np.flatnonzero(codes == code)) for code, name in enumerate(names)}, len(texts) / seconds

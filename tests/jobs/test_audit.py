"""jobs/audit.py: the report of a dump that many workers inverted, and what says how it was made."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embinv.encoders.hashing import HashEncoder
from jobs.audit import main
from tests.fakes import hash_spec, sentences, tiny_checkpoint, word_tokenizer
from tests.provenance_checks import require_provenance


@pytest.mark.slow
def test_a_dump_becomes_a_report_that_says_how_it_and_its_texts_were_made(ray_cluster, tmp_path):
    tiny_checkpoint(tmp_path / "checkpoint", word_tokenizer(tmp_path / "words"), hash_spec(16))
    vectors = HashEncoder(hash_spec(16)).encode(sentences(40))
    pq.write_table(pa.table({"id": range(40), "embedding": list(vectors)}), tmp_path / "dump.parquet")
    out = tmp_path / "out"
    main(["--checkpoint", f"{tmp_path}/checkpoint", "--vectors", f"{tmp_path}/dump.parquet", "--out", str(out)])
    assert json.loads((out / "audit.json").read_text())["rows"] == 40
    require_provenance(out, "jobs/audit.py")
    assert require_provenance(out / "recovered", "jobs/invert.py")["cluster"]["hosts"] == 1

"""What every job's output must say of how it was made; each job's end-to-end test asks it here."""

import json
from pathlib import Path

from embinv.provenance.sittings import PROVENANCE_FILE


def require_provenance(where, job, ended=True):
    """The last sitting of a job in a folder, or in a provenance file; fails where it says less than it must.

    tests/contracts/test_provenance.py finds the calls by their second argument.
    """
    path = Path(where) / PROVENANCE_FILE if Path(where).is_dir() else Path(where)
    sittings = [each for each in json.loads(path.read_text(encoding="utf-8"))["sittings"] if each["job"] == job]
    assert sittings, f"{path} knows nothing of {job}"
    last = sittings[-1]
    assert (last["ended"] is not None) == ended
    assert last["command"] and last["settings"] and last["began"]
    assert last["code"]["commit"] and last["versions"]["torch"] and last["machine"]["cpu"]
    assert last["seeds"] == {name: last["seeds"][name] for name in last["seeds"] if name.endswith("seed")}
    return last

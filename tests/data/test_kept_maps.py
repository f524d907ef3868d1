"""A kept map comes back to the last bit, and is refused where it is broken or leads elsewhere."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from embinv.data.kept_maps import FACTS, NUMBERS, KeptMap, read_map, write_map
from embinv.spaces.linear import LinearMap, procrustes
from tests.fakes import hash_spec, unit_vectors

SPEC = hash_spec(4)
KEPT = KeptMap(kind="procrustes centred", known_pairs=30, encoder=SPEC)


@pytest.fixture
def linear():
    return procrustes(unit_vectors(30, 6), unit_vectors(30, 4, seed=1), centred=True)


def test_a_map_comes_back_to_the_last_bit(tmp_path, linear):
    folder = tmp_path / "new" / "map"
    write_map(folder, linear, KEPT)
    write_map(folder, linear, KEPT)
    read, kept = read_map(folder, SPEC)
    assert kept == KEPT and sorted(path.name for path in folder.iterdir()) == [FACTS, NUMBERS]
    for name in ("weight", "source_mean", "target_mean"):
        assert (getattr(read, name) == getattr(linear, name)).all()
        assert getattr(read, name).dtype == np.float64


def test_a_map_of_strided_numbers_is_written_as_it_is_read(tmp_path, linear):
    turned = LinearMap(np.asfortranarray(linear.weight), linear.source_mean, linear.target_mean)
    write_map(tmp_path, turned, KEPT)
    assert (read_map(tmp_path, SPEC)[0].weight == linear.weight).all()


def test_a_map_to_another_encoder_is_refused_with_what_differs(tmp_path, linear):
    write_map(tmp_path, linear, KEPT)
    with pytest.raises(ValueError, match=r"another encoder than the checkpoint's \(prompt: None != 'query: '\)"):
        read_map(tmp_path, SPEC.model_copy(update={"prompt": "query: "}))


def change(folder, **fields):
    facts = json.loads((folder / FACTS).read_text())
    (folder / FACTS).write_text(json.dumps(facts | fields))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / FACTS).unlink(), "holds no map"),
        (lambda folder: (folder / NUMBERS).unlink(), "holds no map"),
        (lambda folder: (folder / NUMBERS).write_bytes(b"x" * 20), "cannot be read"),
        (lambda folder: (folder / FACTS).write_text("no"), "map.json"),
        (lambda folder: (folder / FACTS).write_bytes(b"\xff\xfe"), "map.json|cannot be read"),
        (lambda folder: change(folder, format_version=2), "format_version"),
        (lambda folder: change(folder, colour="red"), "colour"),
        (lambda folder: save_file({"weight": np.zeros((6, 4))}, folder / NUMBERS), "holds no map to 4 dimensions"),
        (
            lambda folder: save_file(
                {"weight": np.zeros((6, 3)), "source_mean": np.zeros(6), "target_mean": np.zeros(3)}, folder / NUMBERS
            ),
            "holds no map to 4 dimensions",
        ),
    ],
)
def test_a_broken_map_is_refused_with_the_command_that_makes_one(tmp_path, linear, spoil, sentence):
    write_map(tmp_path, linear, KEPT)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=rf"({sentence}).*embinv align --known FILE --map DIR"):
        read_map(tmp_path, SPEC)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, linear):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file/map: a map cannot be written there"):
        write_map(tmp_path / "file" / "map", linear, KEPT)

"""jobs/shared_storage.py: what a folder looks like from a node; a node that does not see it is in test_cluster.py."""

import pytest

from jobs.shared_storage import contents, require_seen_by_all


def test_a_folder_is_known_by_the_names_in_it(tmp_path):
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    for folder, names in ((one, "xy"), (same, "yx"), (other, "xz")):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    assert contents(str(one)) == contents(str(same)) != contents(str(other))
    (same / ".hidden.lock").touch()
    assert contents(str(one)) == contents(str(same))
    assert contents(str(tmp_path / "none")) is None


def test_a_file_is_known_by_its_size(tmp_path):
    (tmp_path / "a").write_text("12")
    (tmp_path / "b").write_text("123")
    assert contents(str(tmp_path / "a")) == "2 bytes" != contents(str(tmp_path / "b"))


@pytest.mark.usefixtures("ray_cluster")
def test_one_node_is_not_asked(tmp_path):
    require_seen_by_all([tmp_path / "not" / "there"], [tmp_path / "neither"])
    assert list(tmp_path.iterdir()) == []

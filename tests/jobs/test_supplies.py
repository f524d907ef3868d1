"""How much is read of what: waves of files, simulated without opening any."""

import pytest

from embinv.data.settings import DataSettings
from embinv.data.sources import SourceFile
from jobs.supplies import MOST_RECORD_PIECES, RECORD_ROWS, Supply, next_wave, open_supplies


def files(lang, count, protocol="hf://datasets/owner/name/"):
    return [SourceFile(f"{protocol}{lang}/{n}.jsonl", f"{lang}/{n}.jsonl", lang, ".jsonl", 1000) for n in range(count)]


class World:
    """What lies in each file: good rows, of which a share is new. Reads as the job does, and counts."""

    def __init__(self, rows, new=1.0):
        self.rows, self.new = rows, new  # rows: lang -> good rows of each of its files
        self.given = {}  # url -> good rows
        self.opened, self.waves = [], []

    def found(self):
        totals = {}
        for url, count in self.given.items():
            lang = url.split("/")[-2]
            totals[lang] = totals.get(lang, 0) + count
        return {lang: int(total * self.new) for lang, total in totals.items()}

    def run(self, supplies, settings):
        while pieces := next_wave(supplies, settings, self.found(), lambda url: self.given.get(url, 0)):
            self.waves.append(len(pieces))
            for piece in pieces:
                lang, name = piece.source.url.split("/")[-2:]
                there = self.rows[lang][int(name.partition(".")[0])]
                assert piece.after == self.given.get(piece.source.url, 0) or piece.after > there
                self.given[piece.source.url] = there if piece.want is None else min(there, piece.after + piece.want)
                self.opened.append(piece.source.url)
            assert len(self.waves) < 50
        return self.found()


def settings(**data):
    return DataSettings(**data)


def test_one_file_is_opened_where_one_is_enough():
    world = World({"de": [1000] * 100, "fr": [1000] * 100})
    found = world.run([Supply("de", files("de", 100)), Supply("fr", files("fr", 100))], settings(rows=1000))
    assert all(500 <= rows <= 530 for rows in found.values())
    assert world.waves == [2]


@pytest.mark.parametrize(("wanted", "needed"), [(1000, 2), (4500, 5), (40_000, 42)])
def test_no_more_files_are_opened_than_needed(wanted, needed):
    world = World({"de": [1000] * 100})
    assert world.run([Supply("de", files("de", 100))], settings(rows=wanted))["de"] >= wanted
    assert needed - 1 <= len(world.opened) <= needed + 1
    assert len(world.waves) <= 4


def test_one_poor_first_file_does_not_send_for_all():
    world = World({"de": [0] + [1000] * 500})
    assert world.run([Supply("de", files("de", 501))], settings(rows=800))["de"] >= 800
    assert len(world.opened) <= 9


def test_given_shares_decide_what_is_read():
    world = World({"de": [10_000], "fr": [10_000]})
    supplies = [Supply("de", files("de", 1)), Supply("fr", files("fr", 1))]
    found = world.run(supplies, settings(rows=1000, shares={"de": 0.9}))
    assert 900 <= found["de"] < 960 and 100 <= found["fr"] < 110


def test_the_others_give_what_a_language_lacks():
    world = World({"de": [300] * 9, "fi": [20, 30], "fr": [300] * 9})
    supplies = [Supply(lang, files(lang, count)) for lang, count in (("de", 9), ("fi", 2), ("fr", 9))]
    found = world.run(supplies, settings(rows=900))
    assert found["fi"] == 50 and found["de"] >= 425 and found["fr"] >= 425
    assert world.opened.count(supplies[1].sources[0].url) == 1  # read to its end, and not again


def test_files_that_were_left_are_taken_up_again_before_a_language_is_given_up():
    world = World({"de": [1000, 1000]}, new=0.5)
    assert world.run([Supply("de", files("de", 2))], settings(rows=900))["de"] >= 900
    assert len(set(world.opened)) == 2 < len(world.opened)


def test_files_that_give_copies_only_are_given_up():
    world = World({"de": [1000] * 3}, new=0.0)
    assert world.run([Supply("de", files("de", 3))], settings(rows=500)) == {"de": 0}
    assert set(world.opened) == {file.url for file in files("de", 3)}


@pytest.mark.parametrize(("protocol", "opened"), [("/", 50), ("s3://bucket/", 1)], ids=["here", "far away"])
def test_files_without_a_language_are_read_whole_only_if_they_are_here(protocol, opened):
    world = World({"x": [1000] * 50})
    supply = Supply(None, [SourceFile(f.url, f.path, None, f.kind, f.size) for f in files("x", 50, protocol)])
    world.run([supply], settings(rows=500))
    assert len(world.opened) == opened


def test_without_a_number_of_rows_all_files_are_read_at_once():
    world = World({"de": [10] * 5, "fr": [10]})
    assert world.run([Supply("de", files("de", 5)), Supply("fr", files("fr", 1))], settings()) == {"de": 50, "fr": 10}
    assert world.waves == [6]


def test_records_have_a_size_of_their_own_and_share_it():
    supplies = open_supplies(settings(sources=["records"], languages=["de", "en"]))
    assert [(supply.lang, supply.want) for supply in supplies] == [("de", RECORD_ROWS // 2), ("en", RECORD_ROWS // 2)]
    assert len(supplies[0].sources) == MOST_RECORD_PIECES
    assert [supply.want for supply in open_supplies(settings(sources=["records"], languages=["de"], rows=70))] == [70]


def test_a_number_for_records_does_not_limit_files_beside_them(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    sources = ["records", {"path": str(tmp_path / "a.txt"), "lang": "fi"}]
    wants = {supply.lang: supply.want for supply in open_supplies(settings(sources=sources, languages=["en"]))}
    assert wants == {"fi": None, "en": RECORD_ROWS}


def test_records_that_repeat_themselves_are_given_up():
    [supply] = open_supplies(settings(sources=["records"], languages=["en"], rows=10**6))
    waves = 0
    while next_wave([supply], settings(rows=10**6), {"en": min(5000, waves * 3000)}, lambda url: 10**6):
        waves += 1
    assert waves == 3  # the third gave nothing new
    assert supply.used_up


def test_a_language_that_a_source_names_is_not_put_into_the_others(tmp_path):
    for name in ("c4-de.txt", "c4-en.txt", "en.txt"):
        (tmp_path / name).write_text("text")
    sources = [str(tmp_path / "c4-{lang}.txt"), {"path": str(tmp_path / "en.txt"), "lang": "en"}]
    supplies = open_supplies(settings(sources=sources, languages=["de", "en"], rows=10))
    assert {s.lang: [file.url.rsplit("/")[-1] for file in s.sources] for s in supplies} == {
        "de": ["c4-de.txt"],
        "en": ["en.txt"],
    }


def test_a_file_that_two_sources_match_is_read_once(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    [supply] = open_supplies(settings(sources=[str(tmp_path / "a.txt"), str(tmp_path / "*.txt")]))
    assert len(supply.sources) == 1

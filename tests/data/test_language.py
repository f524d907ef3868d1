"""Properties of the check of languages, on sentences of known languages."""

import builtins
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from embinv.data import language
from embinv.data.language import disagrees

SENTENCES = {
    "ar": "أين تقع أقرب محطة قطار من هنا؟",
    "de": "Der Zug nach München fährt heute leider nicht.",
    "en": "The train to Munich does not run today, unfortunately.",
    "es": "Los niños juegan en el jardín de la casa de su abuela.",
    "fr": "Nous avons mangé au restaurant près de la gare hier soir.",
    "ja": "昨日の夜、駅の近くのレストランで食べました。",
    "ko": "우리는 어젯밤 역 근처 식당에서 밥을 먹었습니다.",
    "pt": "Não sei se as crianças já chegaram à escola hoje de manhã.",
    "ru": "Вчера вечером мы поужинали в ресторане рядом с вокзалом.",
    "zh": "昨天晚上我们在火车站附近的饭馆吃了饭。",
}


@pytest.fixture(scope="module", autouse=True)
def _py3langid() -> None:
    pytest.importorskip("py3langid", reason="the check of languages is the optional extra `langid`")


@pytest.mark.parametrize("claimed", SENTENCES)
def test_a_sentence_agrees_with_its_own_language_only(claimed: str) -> None:
    mask = disagrees(list(SENTENCES.values()), [claimed] * len(SENTENCES))
    assert mask.dtype == np.bool_
    assert mask.tolist() == [lang != claimed for lang in SENTENCES]


def test_a_script_or_a_region_does_not_count() -> None:
    traditional = "昨天晚上我們在火車站附近的飯館吃了飯。"
    assert disagrees([traditional, traditional, SENTENCES["pt"]], ["zh-Hant", "ZH_tw", "pt-BR"]).tolist() == [False] * 3
    assert disagrees([SENTENCES["de"]], ["zh-Hant"]).tolist() == [True]


@pytest.mark.parametrize("unknown", ["und", "iw", "tlh", "", "x-private"])
def test_what_is_undetermined_or_unknown_to_the_model_never_disagrees(unknown: str) -> None:
    assert not disagrees(list(SENTENCES.values()), [unknown] * len(SENTENCES)).any()


def test_what_says_nothing_about_a_language_disagrees_with_none() -> None:
    empty_of_words = ["", " ", "1984", "12:30", "?!", "☺☺☺"]
    for text, lang in product(empty_of_words, SENTENCES):
        assert not disagrees([text], [lang]).any(), (text, lang)


def test_names_and_short_phrases_are_given_the_benefit_of_the_doubt() -> None:
    assert not disagrees(["OK", "Tom", "Anna Berlin", "Taxi, hotel, radio"], ["de", "fr", "es", "en"]).any()


def test_an_answer_does_not_depend_on_the_other_texts() -> None:
    pairs = [(text, lang) for text, lang in product(SENTENCES.values(), SENTENCES)]
    together = disagrees(*map(list, zip(*pairs, strict=True)))
    assert together.tolist() == [bool(disagrees([text], [lang])[0]) for text, lang in pairs]
    assert disagrees([], []).shape == (0,)


def test_the_model_is_loaded_once_and_not_at_import() -> None:
    assert language._identifier() is language._identifier()
    probe = "import sys, embinv.data.language; sys.exit('py3langid' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 texts and 1 languages"):
        disagrees(["a", "b"], ["en"])


def test_without_py3langid_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("py3langid"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    language._identifier.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install embinv\[langid\]"):
        disagrees(["a text"], ["en"])
    monkeypatch.undo()
    assert disagrees([SENTENCES["de"]], ["ja"]).all()

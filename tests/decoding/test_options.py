import pytest

from embinv.decoding.options import DecodingOptions, read_options


def test_lines_become_options_of_the_right_kind():
    found = read_options(["order=margin", "temperature=0.7", "candidates=8", "top_p=1"])
    assert found == DecodingOptions(order="margin", temperature=0.7, candidates=8)
    assert read_options([]) == DecodingOptions()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("heat=1", "option 'heat=1': give KEY=VALUE with one of order, reveal, temperature"),
        ("temperature", "option 'temperature': give KEY=VALUE"),
        ("temperature=-1", "option temperature=-1: Input should be greater than or equal to 0"),
        ("top_p=0", "option top_p=0: Input should be greater than 0"),
        ("order=surest", "option order=surest: Input should be 'confidence', 'margin' or 'entropy'"),
        ("temperature=.inf", "option temperature=inf: Input should be a finite number"),
        ("temperature=1e-9", "option temperature=1e-9: Value error, give 0 for the likeliest token"),
        ("candidates=[", "option 'candidates=[': the value cannot be read"),
    ],
)
def test_a_wrong_line_is_one_sentence_with_what_there_is(line, told):
    with pytest.raises(ValueError, match=r"^option") as caught:
        read_options(["reveal=cosine", line])
    assert told in str(caught.value)


def test_an_option_that_a_strategy_does_not_read_is_refused_with_those_that_it_reads():
    assert DecodingOptions(order="margin").read_by("confidence") == {"order": "margin", "reveal": "linear"}
    assert set(DecodingOptions(sampler="two_stage", refined_share=0.3).read_by("candidates")) == {
        *("temperature", "top_p", "refined_share", "candidates", "sampler")
    }
    for options, strategy, told in (
        (DecodingOptions(temperature=0.5), "confidence", "option temperature=0.5 does nothing for strategy confidence"),
        (DecodingOptions(candidates=8), "euler", "candidates=8 does nothing for strategy euler; it reads temperature,"),
        (
            DecodingOptions(order="margin"),
            "sequential",
            "does nothing for strategy sequential; it reads none",
        ),
        (DecodingOptions(refined_share=0.3), "candidates", "refined_share=0.3 does nothing for strategy candidates"),
    ):
        with pytest.raises(ValueError, match="does nothing for strategy") as caught:
            options.read_by(strategy)
        assert told in str(caught.value)

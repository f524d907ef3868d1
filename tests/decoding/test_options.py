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
        ("candidates=[", "option 'candidates=[': the value cannot be read"),
    ],
)
def test_a_wrong_line_is_one_sentence_with_what_there_is(line, told):
    with pytest.raises(ValueError, match=r"^option") as caught:
        read_options(["reveal=cosine", line])
    assert told in str(caught.value)

"""`embinv plan` as it is typed: what it prints, what it costs, and a sentence for each mistake."""

import json
from pathlib import Path

import pytest

from embinv.cli import main
from embinv.planning.throughput import Throughput

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MINILM = ("--config", str(CONFIGS / "minilm.yaml"), "--vocabulary", "5000")
ENCODE = (*MINILM, "--gpu", "a100-40g", "--stages", "encode")


def planned(capsys, *arguments):
    main(["plan", *arguments])
    return capsys.readouterr().out


def tree(capsys, *arguments):
    return json.loads(planned(capsys, *arguments, "--json"))


def refused(capsys, *arguments):
    """The sentence with which the command ends."""
    with pytest.raises(SystemExit) as caught:
        main(["plan", *arguments])
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def kept(tmp_path, **fields):
    measured = Throughput("encode", 10.0, 0.002, 1, "cpu", "a test", of={"data.seq_len": 28})
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"measured": [measured.to_dict() | fields]}))
    return str(path)


def test_report_says_times_disk_memory_and_everything_that_it_assumes(capsys):
    out = planned(capsys, *MINILM, "--gpu", "a100-40g", "--gpus", "8", "--rows", "2000000", "--price", "3.2")
    for part in ("encode 2,000,000 texts", "train ", "invert 2,000,000 vectors", "all, one after another"):
        assert part in out
    for heading in ("what the time is made of", "on disk", "on each GPU while training", "taken for granted"):
        assert heading in out
    assert "a100-40g: 312 in bfloat16" in out and "encode_mfu" in out and "cost" in out


def test_json_holds_the_same_figures_and_the_cost_is_price_times_gpu_hours(capsys):
    found = tree(capsys, *MINILM, "--gpu", "l4", "--gpus", "4", "--rows", "1000000", "--price", "0.8")
    assert [stage["name"] for stage in found["stages"]] == ["encode", "train", "invert"]
    assert found["cost"] == pytest.approx(0.8 * found["gpu_hours"])
    assert found["gpu_hours"] == pytest.approx(4 * found["seconds"] / 3600)
    assert found["seconds"] == pytest.approx(sum(stage["seconds"] for stage in found["stages"]))
    assert found["storage_bytes"] == pytest.approx(sum(item["size"] for item in found["storage"]))
    assert found["assumptions"]["train_mfu"]["expected"] == 0.3


def test_without_a_price_there_is_no_cost(capsys):
    assert tree(capsys, *ENCODE)["cost"] is None
    assert "cost" not in planned(capsys, *ENCODE)


def test_an_assumption_of_ones_own_changes_the_plan(capsys):
    own = ("--rows", "100000000", "--assume", "encode_start=0", "--assume", "align_us=0")
    one, two = (tree(capsys, *ENCODE, *own, "--assume", f"encode_mfu={mfu}")["seconds"] for mfu in (0.2, 0.4))
    assert one == pytest.approx(2 * two)


def test_a_plan_from_measurements_takes_their_line(capsys, tmp_path):
    given = (*MINILM, "--gpu", "cpu", "--stages", "encode", "--rows", "50000", "--measured", kept(tmp_path))
    found = tree(capsys, *given)
    assert found["seconds"] == pytest.approx(10 + 50_000 * 0.002)
    assert found["stages"][0]["limit"] == "measured"
    assert "500 texts/s on 1 x cpu: a test" in planned(capsys, *given)


def test_json_file_is_one_that_measured_reads_again(capsys, tmp_path):
    given = (*MINILM, "--gpu", "cpu", "--stages", "encode", "--rows", "50000")
    out = str(tmp_path / "plan.json")
    planned(capsys, *given, "--measured", kept(tmp_path), "--json", out)
    assert tree(capsys, *given, "--measured", out)["seconds"] == pytest.approx(110)


def test_a_full_disk_is_told(capsys):
    found = tree(capsys, *ENCODE, "--rows", "1000000", "--disk", "0.1")
    assert any("GB are needed and 0.1 GB are free" in warning for warning in found["warnings"])
    assert not tree(capsys, *ENCODE, "--rows", "1000", "--disk", "/")["warnings"][1:]


def test_minutes_bound_the_training(capsys):
    given = (
        *MINILM,
        "--gpu",
        "a100-40g",
        "--stages",
        "train",
        "--assume",
        "train_start=0",
        "--assume",
        "storage_mb=1e9",
    )
    assert tree(capsys, *given, "--minutes", "5")["seconds"] == pytest.approx(300, rel=0.02)


def test_minutes_bound_a_measured_training_on_more_machines_than_were_measured(capsys, tmp_path):
    measured = kept(tmp_path, stage="train", fixed=0.0, per_unit=0.01, of=None)
    given = (*MINILM, "--gpu", "cpu", "--gpus", "4", "--stages", "train", "--measured", measured)
    assert tree(capsys, *given, "--minutes", "60")["seconds"] == pytest.approx(3600, rel=0.001)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((*MINILM, "--gpu", "a100-4og"), "--gpu a100-4og: is not known (did you mean a100-40g"),
        ((*MINILM, "--gpu", "cpu"), "--gpu cpu: what a CPU does at encode has to be measured; add --measure"),
        ((*ENCODE, "--tokens", "300"), "--tokens 300: a text is cut to data.seq_len (28)"),
        ((*ENCODE, "--assume", "mfu=1"), "--assume mfu=1: nothing is called 'mfu'"),
        ((*ENCODE, "--set", "data.rows=null"), "--rows is missing"),
        ((*ENCODE, "--set", "encoder.model=no/such"), "encoder.model no/such: is not at hand"),
        ((*ENCODE, "--from", "/nowhere"), "--from /nowhere: holds no run"),
        ((*ENCODE, "--measured", "/nowhere"), "--measured /nowhere: cannot be read"),
        ((*ENCODE, "--disk", "nan"), "--disk nan: give the GB that are free"),
        ((*ENCODE, "--disk", "-1"), "--disk -1: give the GB that are free"),
        ((*ENCODE, "--rows", "0"), "0 is no whole number above 0"),
        ((*ENCODE, "--price", "-1"), "-1 is no number above 0"),
        ((*ENCODE, "--steps", "5", "--epochs", "2"), "not allowed with argument --steps"),
        ((*MINILM, "--gpu", "l4", "--stages", "encode,write"), "choose from encode, train, invert"),
        ((*ENCODE, "--scaling"), "--scaling is of GPUs and of all stages"),
        (
            (*MINILM, "--gpu", "l4", "--scaling", "--minutes", "30"),
            "in which --minutes has no place; leave it out, or take --steps or --epochs",
        ),
        ((*MINILM, "--gpu", "l4", "--scaling", "--measure"), "in which --measure has no place"),
        ((*MINILM, "--gpu", "l4", "--scaling", "--from", "runs"), "in which --from has no place"),
        ((*MINILM, "--gpu", "l4", "--scaling", "--json"), "in which --json has no place"),
        (
            ("--config", str(CONFIGS / "minilm.yaml"), "--set", "data.tokenizer=no/such", "--gpu", "l4"),
            "give --vocabulary N",
        ),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(capsys, arguments, sentence):
    assert sentence in refused(capsys, *arguments)


def test_measurements_of_something_else_are_refused(capsys, tmp_path):
    given = (*MINILM, "--stages", "encode", "--measured", kept(tmp_path))
    assert "encode was measured on cpu, and --gpu is l4" in refused(capsys, *given, "--gpu", "l4")
    assert "--set data.seq_len=28" in refused(capsys, *given, "--gpu", "cpu", "--set", "data.seq_len=64")

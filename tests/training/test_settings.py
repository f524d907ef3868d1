import pytest
from pydantic import ValidationError

from embinv.training.settings import TrainingSettings


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"batch_size": 10, "workers": 3},
            r"batch_size \(10\) must be a multiple of workers x gradient_accumulation \(3\)",
        ),
        ({"batch_size": 12, "workers": 2, "gradient_accumulation": 4}, r"must be a multiple .* \(8\)"),
        ({"optimizer": "muon", "zero_stage": 1}, "set training.zero_stage 0 .* or training.optimizer adamw"),
        ({"optimizer": "muon", "precision": "bfloat16"}, "training.precision float32 or bfloat16-mixed"),
        ({"offload_optimizer": "cpu"}, "offload_optimizer cpu needs training.zero_stage 1, 2 or 3"),
        ({"offload_parameters": "cpu", "zero_stage": 2}, "offload_parameters cpu needs training.zero_stage 3"),
        ({"warmup": 0.7, "decay": 0.4}, r"training.warmup \+ training.decay must be at most 1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_settings_that_do_not_fit_together_are_refused_with_the_fix(values, sentence):
    with pytest.raises(ValidationError, match=sentence):
        TrainingSettings(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"max_steps": 0},
        {"seed": -1},
        {"minutes": 0},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"ema_decay": 1},
        {"warmup": 1},
        {"validations": 0},
        {"optimizer": "sgd"},
        {"zero_stage": 4},
        {"loss_weight": "exp"},
        {"batchsize": 8},
        {"offload_optimizer": "nvme"},
    ],
    ids=str,
)
def test_value_outside_its_range_is_refused_and_named(values):
    [name] = values
    with pytest.raises(ValidationError, match=name):
        TrainingSettings(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"optimizer": "muon", "precision": "bfloat16-mixed"},
        {"optimizer": "adamw", "zero_stage": 3, "precision": "bfloat16"},
        {"warmup": 0.7, "decay": 0.4, "schedule": "cosine"},  # a cosine has no decay
        {"batch_size": 12, "workers": 2, "gradient_accumulation": 3},
        {"batch_size": None, "workers": 3, "gradient_accumulation": 7},
        {"offload_optimizer": "cpu", "zero_stage": 1},
        {"offload_optimizer": "cpu", "offload_parameters": "cpu", "zero_stage": 3, "activation_checkpointing": True},
    ],
    ids=str,
)
def test_settings_that_fit_together_are_taken(values):
    assert TrainingSettings(**values).model_dump().items() >= values.items()


@pytest.mark.parametrize(
    ("values", "compiles"),
    [
        ({"device": "cpu"}, False),
        ({"device": "cuda"}, True),
        ({"device": "cuda", "compile": False}, False),
        ({"device": "cpu", "compile": True}, True),
    ],
    ids=str,
)
def test_blocks_are_compiled_on_a_gpu_unless_said_otherwise(values, compiles):
    assert TrainingSettings(**values).compiles is compiles


def test_moving_average_spans_its_share_to_the_end_of_a_run_of_the_usual_length():
    usual = TrainingSettings()
    assert 1 / (1 - usual.ema_decay) >= 0.999 * usual.ema_share * usual.max_steps

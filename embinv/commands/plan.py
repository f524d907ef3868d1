"""`embinv plan`: how long encoding, training and inversion will take, what they need, and what they cost."""

import json
import shutil
from argparse import ArgumentTypeError, Namespace, RawDescriptionHelpFormatter, _SubParsersAction
from pathlib import Path
from typing import Any

from embinv.commands.plan_report import report
from embinv.commands.values import positive
from embinv.config import load_config
from embinv.data.folders import whole_file
from embinv.planning.accelerators import ACCELERATORS, CPU, accelerator
from embinv.planning.assumptions import assumed
from embinv.planning.encoder_size import encoder_size
from embinv.planning.inverter_size import inverter_size
from embinv.planning.loads import setting
from embinv.planning.plan import Plan, known_vocabulary, make_plan
from embinv.planning.runs import read_run
from embinv.planning.scaling import scaling_tables
from embinv.planning.stage_plan import STAGES
from embinv.planning.throughput import Throughput, read_measured
from embinv.planning.workload import Workload

MEASURE_SECONDS = 20.0
NOT_OF_SCALING = ("minutes", "price", "disk", "measure", "runs", "measured", "json")  # by the names in the namespace
STDOUT = "-"


def add(commands: "_SubParsersAction[Any]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "plan",
        help="hours, GPU-hours, storage and cost before anything is run",
        description="Plan encoding, training and inversion of a config: hours, GPU-hours, disk, memory, cost.\n\n"
        "Times come from the data sheet of the GPU (--gpu), or from what was measured on this hardware: a trial now\n"
        "(--measure), the folders of runs (--from), or an earlier plan's measurements (--measured). All that is taken\n"
        "for granted is printed with the result; --assume changes it.",
        epilog="examples:\n"
        "  embinv plan --config configs/qwen3-0.6b.yaml --rows 2000000 --gpus 8 --gpu a100-40g --price 3.2\n"
        "  embinv plan --config configs/minilm.yaml --rows 200000 --gpu cpu --measure --json plan.json\n"
        "  embinv plan --config configs/minilm.yaml --gpu cpu --from runs/demo/pairs --from runs/demo --stages "
        f"encode,train\n\nGPUs: {', '.join(ACCELERATORS)}; or {CPU}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="C", help="YAML of one encoder, see configs/")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="as in the jobs"
    )
    parser.add_argument("--gpu", required=True, metavar="NAME", help=f"such as a100-40g, see below; or {CPU}")
    parser.add_argument("--gpus", type=positive, default=1, metavar="K", help="of each stage (default 1)")
    parser.add_argument("--rows", type=positive, metavar="N", help="texts to encode (default: data.rows)")
    parser.add_argument("--vectors", type=positive, metavar="N", help="vectors to invert (default: as many as texts)")
    parser.add_argument("--passes", type=positive, metavar="N", help="of an inversion (default: evaluation.steps)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=positive, metavar="N", help="of training (default: training.max_steps)")
    length.add_argument("--epochs", type=above_zero, metavar="N", help="of training, in place of steps")
    length.add_argument("--minutes", type=above_zero, metavar="M", help="of training (default: training.minutes)")
    parser.add_argument("--tokens", type=above_zero, metavar="N", help="mean tokens of a text, if you know it")
    parser.add_argument(
        "--vocabulary", type=positive, metavar="N", help="tokens that the inverter knows (default: all)"
    )
    parser.add_argument("--stages", type=stages, default=STAGES, metavar="A,B", help=f"of {','.join(STAGES)} (all)")
    parser.add_argument("--price", type=above_zero, metavar="P", help="of an hour of one GPU, or of the machine")
    parser.add_argument("--disk", metavar="GB|DIR", help="what is free for it, or where it will lie, to see if it fits")
    parser.add_argument(
        "--measure",
        nargs="?",
        type=above_zero,
        const=MEASURE_SECONDS,
        metavar="SECONDS",
        help=f"time a trial of each stage on this machine first, for so long each (default {MEASURE_SECONDS:g})",
    )
    parser.add_argument(
        "--from", dest="runs", action="append", default=[], metavar="DIR", help="take its speed from a run; repeatable"
    )
    parser.add_argument("--measured", metavar="FILE", help="take speeds from an earlier plan's --json FILE")
    parser.add_argument(
        "--assume", action="append", default=[], metavar="NAME=NUMBER", help="what you know better; repeatable"
    )
    parser.add_argument(
        "--json", nargs="?", const=STDOUT, metavar="FILE", help="write it as JSON (without FILE: to stdout, alone)"
    )
    parser.add_argument(
        "--scaling",
        action="store_true",
        help="in place of the plan: tables of what breaks first at 10, 100 and 1,000 times --rows (docs/SCALING.md)",
    )
    parser.set_defaults(run=plan)


def plan(arguments: Namespace) -> None:
    """Makes the plan and prints it.

    Raises:
        ValueError: a flag or a setting cannot be used; the message names it.
    """
    sheet = None if arguments.gpu == CPU else accelerator(arguments.gpu)
    load = workload(arguments)
    if arguments.scaling:
        print(_scaling(arguments, load), end="")
        return
    measured = measurements(arguments, load)
    made = make_plan(load, arguments.gpu, arguments.stages, measured, arguments.price, _free(arguments.disk))
    if arguments.json is not None:
        _write_json(arguments, made, load, measured)
        if arguments.json == STDOUT:
            return
    encoder = load.config.encoder
    on = f"{load.gpus} x {arguments.gpu}" if sheet else f"{load.gpus} machine(s) like this one"
    print(
        f"{load.config.name}: {load.rows:,} texts of about {load.tokens:.0f} tokens (L {load.config.data.seq_len}), "
        f"vectors of {encoder.dim:,} numbers, on {on}\n"
    )
    print("\n".join(report(made, load.assumptions, sheet)))


def _scaling(arguments: Namespace, load: Workload) -> str:
    if arguments.gpu == CPU or set(arguments.stages) != set(STAGES):
        raise ValueError("--scaling is of GPUs and of all stages; give --gpu a100-40g, say, and leave --stages out")
    unused = [name for name in NOT_OF_SCALING if getattr(arguments, name) not in (None, [])]
    if unused:
        flag = {"runs": "from"}.get(unused[0], unused[0])
        instead = "--steps or --epochs" if flag == "minutes" else "the plan without --scaling"
        raise ValueError(f"--scaling prints tables in which --{flag} has no place; leave it out, or take {instead}")
    inverter = inverter_size(load.config, load.vocabulary)
    return scaling_tables(setting(load, encoder_size(load.config.encoder), inverter, accelerator(arguments.gpu)))


def workload(arguments: Namespace) -> Workload:
    """What the flags and the config say is to be done.

    Raises:
        ValueError: they do not say how much, or the config cannot be used.
    """
    config = load_config(arguments.config, arguments.overrides)
    assumptions = assumed(arguments.assume)
    rows = arguments.rows or config.data.rows
    if rows is None:
        raise ValueError("--rows is missing, and data.rows of the config leaves it open; give the number of texts")
    length = config.data.seq_len
    tokens = arguments.tokens or length * assumptions["tokens_share"].expected
    if tokens > length:
        raise ValueError(f"--tokens {tokens:g}: a text is cut to data.seq_len ({length}); give no more than that")
    needs_model = {"train", "invert"} & set(arguments.stages)
    vocabulary = arguments.vocabulary or (known_vocabulary(config) if needs_model else 0)
    return Workload(
        config=config,
        rows=rows,
        vectors=arguments.vectors or rows,
        gpus=arguments.gpus,
        tokens=tokens,
        vocabulary=vocabulary,
        passes=arguments.passes or config.evaluation.steps,
        assumptions=assumptions,
        steps=arguments.steps,
        epochs=arguments.epochs,
        minutes=arguments.minutes,
    )


def measurements(arguments: Namespace, load: Workload) -> dict[str, tuple[Throughput, str]]:
    """What is known of each stage's speed, and the flag that says so; of several the last: file, runs, trial.

    Raises:
        ValueError: a file or a run says nothing, or the trial cannot be made.
    """
    found: dict[str, tuple[Throughput, str]] = {}
    if arguments.measured is not None:
        flag = f"--measured {arguments.measured}"
        found |= {each.stage: (each, flag) for each in read_measured(Path(arguments.measured))}
    for folder in arguments.runs:
        each = read_run(Path(folder).expanduser())
        found[each.stage] = each, f"--from {folder}"
    if arguments.measure is not None:
        from embinv.planning.probe import probe  # sentence-transformers and more, which a plan alone need not wait for

        device = "cpu" if arguments.gpu == CPU else "cuda"
        for each in probe(load, arguments.stages, device, arguments.gpu, arguments.measure):
            found[each.stage] = each, "--measure"
    return {stage: each for stage, each in found.items() if stage in arguments.stages}


def _free(given: str | None) -> float | None:
    """Bytes that are free: a number of GB, or of the disk that a folder lies on."""
    if given is None:
        return None
    try:
        free = float(given)
    except ValueError:
        pass
    else:
        if not 0 <= free < float("inf"):
            raise ValueError(f"--disk {given}: give the GB that are free, from 0, or a folder")
        return free * 1e9
    place = Path(given).expanduser().resolve()
    while not place.exists() and place != place.parent:  # it may be made later
        place = place.parent
    return float(shutil.disk_usage(place).free)


def _write_json(arguments: Namespace, made: Plan, load: Workload, measured: dict[str, tuple[Throughput, str]]) -> None:
    tree = {
        "config": load.config.name,
        "rows": load.rows,
        "vectors": load.vectors,
        "gpu": arguments.gpu,
        "gpus": load.gpus,
        "tokens": load.tokens,
        "vocabulary": load.vocabulary,
        **made.to_dict(),
        "measured": [each.to_dict() for each, _ in measured.values()],
        "assumptions": {name: vars(each) for name, each in load.assumptions.items()},
    }
    text = json.dumps(tree, indent=2, ensure_ascii=False)
    if arguments.json == STDOUT:
        print(text)
        return
    with whole_file(Path(arguments.json)) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def above_zero(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{text} is no number above 0")
    return value


def stages(text: str) -> tuple[str, ...]:
    """Names of stages, in their order."""
    asked = [name.strip() for name in text.split(",")]
    unknown = [name for name in asked if name not in STAGES]
    if unknown or not asked:
        raise ArgumentTypeError(f"{text}: choose from {', '.join(STAGES)}")
    return tuple(name for name in STAGES if name in asked)

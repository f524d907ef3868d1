"""`embinv import`: a checkpoint folder of an inverter in vec2text's format."""

from argparse import Namespace, RawDescriptionHelpFormatter, _SubParsersAction
from typing import Any


def add(commands: "_SubParsersAction[Any]") -> None:
    """Adds the command."""
    taken = commands.add_parser(
        "import",
        help="an inverter in vec2text's format",
        description="Make a checkpoint folder of an inverter that was trained with vec2text (T5, Morris et al. 2023).",
        epilog="example:\n  embinv import --from kennethge123/qwen3-8b-t5-inverter --config configs/qwen3-8b.yaml "
        "--out runs/qwen3-8b-t5",
        formatter_class=RawDescriptionHelpFormatter,
    )
    taken.add_argument("--from", dest="source", required=True, metavar="SOURCE", help="folder or hub id")
    taken.add_argument("--revision", metavar="NAME", help="hub commit or tag")
    taken.add_argument("--config", required=True, metavar="YAML", help="its `name` and `encoder` are taken")
    taken.add_argument("--tokenizer", metavar="SOURCE", help="folder or hub id (default: the T5 that SOURCE names)")
    taken.add_argument("--out", required=True, metavar="DIR", help="checkpoint folder to write")
    taken.set_defaults(run=import_inverter)


def import_inverter(arguments: Namespace) -> None:
    """Makes a checkpoint of an inverter in vec2text's format.

    Raises:
        ValueError: it cannot be read, or encoder or tokenizer are not its own.
    """
    from embinv.config import load_config
    from embinv.importing import import_vec2text

    config = load_config(arguments.config)
    made = import_vec2text(
        arguments.source, arguments.out, config.name, config.encoder, arguments.tokenizer, arguments.revision
    )
    model = made.model
    print(
        f"{arguments.source}: {model.layers} layers, hidden {model.hidden}, vectors of {model.embedding_dim} dimensions"
    )
    print(f"{arguments.out} inverts vectors of {config.encoder.model}, up to {model.seq_len - 1} tokens")
    print("vectors must be made as it was trained: the same pooling, the same scale")

"""training.png: what a run looked like, from its history of validations and its progress."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def draw_training(
    path: Path, progress: Sequence[Mapping[str, float]], history: Sequence[Mapping[str, float]], title: str
) -> None:
    """Draws loss and learning rate on the left, and accuracy from a full mask beside gap filling on the right.

    Args:
        path: the PNG to write.
        progress: rows with seconds, loss, rate.
        history: rows with seconds, nelbo, token_accuracy, exact_match, accuracy_at_*_mask.
        title: of the whole picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    minutes = [row["seconds"] / 60 for row in progress]
    left.plot(minutes, [row["loss"] for row in progress], color="#9db4d0", linewidth=1, label="training loss")
    validated = [row["seconds"] / 60 for row in history]
    left.plot(validated, [row["nelbo"] for row in history], "o-", color="#1f4e8c", markersize=3, label="held-out NELBO")
    left.set(xlabel="minutes", ylabel="nats per token", title="Loss")
    rates = left.twinx()
    rates.plot(minutes, [row["rate"] for row in progress], color="#c9a227", linewidth=1, linestyle=":")
    rates.set(ylabel="learning rate (share of the full one)", ylim=(0, 1.05))
    left.plot([], [], color="#c9a227", linestyle=":", label="learning rate")
    left.legend(loc="upper right", fontsize=8, bbox_to_anchor=(1.0, 0.94))
    names = {"token_accuracy": "tokens, from a full mask", "exact_match": "whole texts, from a full mask"}
    for name, color in zip(names, ("#a8323e", "#6b2d8c"), strict=True):
        right.plot(validated, [row[name] for row in history], "o-", color=color, markersize=3, label=names[name])
    for name in sorted(key for key in history[0] if key.startswith("accuracy_at_")) if history else ():
        share = name.removeprefix("accuracy_at_").removesuffix("_mask")
        right.plot(
            validated,
            [row[name] for row in history],
            "--",
            color="#888888",
            linewidth=1,
            label=f"gap filling at {share} mask (not inversion)",
        )
    right.set(xlabel="minutes", ylabel="share right", ylim=(0, 1), title="Held-out accuracy")
    right.grid(alpha=0.3)
    right.legend(loc="best", fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)

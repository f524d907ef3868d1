"""A state in each worker's part becomes one that any number of workers can read: DeepSpeed's universal checkpoint."""

import contextlib
import io
import os
import shutil
from argparse import Namespace
from pathlib import Path

from jobs.deepspeed_engine import TAG
from jobs.train_disk import disk_errors_by_name

UNIVERSAL = ".universal"


def make_universal(saved: Path, storage: Path, device: str) -> None:
    """Converts a save of ZeRO 1 to 3 into `storage`/UNIVERSAL/state; one worker does it for all.

    It takes as much disk as the save's weights and optimizer, until `forget_universal`.

    Args:
        saved: the save, with what DeepSpeed wrote in `saved`/state.
        storage: folder that all workers see.
        device: training.device.

    Raises:
        OSError: it cannot be written.
    """
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    from deepspeed.checkpoint import ds_to_universal

    forget_universal(storage)
    folder = storage / UNIVERSAL
    folder.mkdir()
    with disk_errors_by_name(folder), contextlib.redirect_stdout(io.StringIO()):  # it tells of every step it takes
        ds_to_universal.main(
            Namespace(
                input_folder=str(saved / TAG),
                output_folder=str(folder / TAG),
                num_extract_workers=1,  # no processes beside those of the cluster
                num_merge_workers=1,
                keep_temp_folder=False,
                strict=True,
                inject_missing_state=True,  # stage 1 and 2 keep no note for the conversion
            )
        )


def forget_universal(storage: Path) -> None:
    """Deletes what `make_universal` made, once all workers have read it."""
    shutil.rmtree(storage / UNIVERSAL, ignore_errors=True)

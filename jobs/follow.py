"""Shows the lines that a worker writes to a file, on the driver, as they come.

Workers may be on other machines and their output is wrapped by Ray; a log that lies in the run's folder is plain,
stays there, and reads the same under `ray job submit`.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EVERY = 0.5  # seconds


@contextmanager
def followed(path: Path) -> Iterator[None]:
    """Prints what is added to a text file while the block runs."""
    path.touch()
    file = path.open(encoding="utf-8")
    file.seek(0, 2)  # here and not in the thread, which may start after the first line
    done = threading.Event()

    def follow() -> None:
        while True:
            last = done.is_set()
            for line in file:
                print(line, end="", flush=True)
            if last:
                return
            done.wait(EVERY)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        file.close()

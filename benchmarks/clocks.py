"""How many cores a piece of work really had."""

import time


class Clocks:
    """Both clocks of this process, started when it is made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def cores_used(self) -> float:
        """Cores that computed since then, on average; fewer than there are threads: it waited, or had to share."""
        return round((time.process_time() - self.cpu) / (time.perf_counter() - self.wall), 2)

"""What does a process that holds one library do? It prepares cases and times calls, as told.

``python benchmarks/worker.py LIBRARY THREADS``: each line of JSON in is an order, each line out its
answer. `turns.py` gives the orders.
"""

import json
import os
import sys
import time

import adapters
from cases import CASES

# Seconds of a sample: a clock read costs about 0.1 µs, and a core that waited is slow at first.
SHORTEST_SAMPLE = 10e-3
# While others had their turn, this process did not run: so many seconds bring its caches back.
WARM_UP = 60e-3


class Worker:
    """One library, and the case it has at hand."""

    def __init__(self, library, threads):
        self._library = library
        self._threads = threads
        self._call = None
        self._count = 1

    def prepare(self, case):
        """Why the library cannot run the case, or, warmed up, the seconds of a first sample."""
        self._call = None  # its arrays go before the next ones come
        found = next(known for known in CASES if known.name == case)
        why_not = self._library.why_not(found)
        if why_not is not None:
            return {"why_not": why_not}
        try:
            self._call = self._library.prepare(found, found.inputs(), self._threads)
            self._call()
        except Exception as error:  # a library's own refusal is a result, not our failure
            return {"why_not": f"failed: {str(error).strip().rpartition(chr(10))[2][:100]}"}
        self._count = 1
        while (seconds := self.sample()["seconds"]) * self._count < SHORTEST_SAMPLE:
            enough = int(1.2 * SHORTEST_SAMPLE / max(seconds, 1e-9))
            self._count = max(2 * self._count, enough)
        return {"why_not": None, "seconds": seconds}

    def sample(self):
        """Seconds of one call; of short ones, the mean of as many as fill a sample."""
        begin = time.perf_counter()
        while time.perf_counter() - begin < WARM_UP:
            self._call()
        return {"seconds": self._time(self._count)}

    def _time(self, count):
        begin = time.perf_counter()
        for _ in range(count):
            self._call()
        return (time.perf_counter() - begin) / count


def main(name, threads):
    """Answer orders until there are no more."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(facts):
        print(json.dumps(facts), file=answers, flush=True)

    try:
        worker = Worker(library := adapters.load(name), threads)
    except ImportError as error:
        return answer({"missing": str(error)})
    answer({"version": library.version()})
    for line in sys.stdin:
        name, arguments = json.loads(line)
        answer({"prepare": worker.prepare, "sample": worker.sample}[name](**arguments))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

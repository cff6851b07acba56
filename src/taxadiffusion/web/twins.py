"""The most like training photograph of each picture that somebody looks at, found by a process beside the pages."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import OrderedDict, deque

from taxadiffusion.web.looking import Looking, Picture, Told, Twin, look
from taxadiffusion.web.store import Kept

_KEPT = 10_000
_WAITING = 256
_POLL_S = 0.2
_SAID_S = 2.0


class Twins:
    """Answers at once: what is known, or that it is being looked for."""

    def __init__(self, looking: Looking) -> None:
        self._looking = looking
        self._found: OrderedDict[str, Twin] = OrderedDict()
        self._waiting: deque[Picture] = deque(maxlen=_WAITING)
        self._closing = False
        self._said = 0.0
        self.state = "Copies are sought from the moment that the training photographs have been looked at."
        """Why the twin of a picture is not known, for people."""
        self.version = 0
        """Another number whenever something is found, or the state is another."""
        self._thread = threading.Thread(target=self._run, name="twins", daemon=True)

    def begin(self) -> None:
        """Start the process; pictures can be asked for at once."""
        self._thread.start()

    def close(self) -> None:
        """End the process."""
        self._closing = True
        if self._thread.is_alive():
            self._thread.join()

    def of(self, kept: Kept) -> Twin | None:
        """The picture's twin; None where it is not known yet, and then it is looked for."""
        twin = self._found.get(kept.id)
        if twin is None and kept.lineage and all(picture.id != kept.id for picture in list(self._waiting)):
            self._waiting.append(Picture(kept.id, kept.path, kept.lineage))
        return twin

    def _run(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=look, args=(theirs, self._looking), name="looking", daemon=True)
        process.start()
        theirs.close()
        ready = busy = False
        try:
            while not self._closing:
                if ready and not busy and self._waiting:
                    ours.send(self._waiting[0])
                    busy = True
                if not ours.poll(_POLL_S):
                    continue
                word = ours.recv()
                if isinstance(word, Twin):
                    self._note(word)
                    busy = False
                elif isinstance(word, Told):
                    ready = ready or word.ready
                    words = "It is being looked for; reload the page." if ready else _words(word)
                    self._say(words, on_the_way=not (ready or word.fault))
        except (EOFError, OSError):
            if "could not" not in self.state:
                self._say("The process that looks for copies was lost; start the page again to have it.")
        finally:
            ours.close()
            process.kill()
            process.join()

    def _note(self, twin: Twin) -> None:
        self._waiting.popleft()
        self._found[twin.id] = twin
        while len(self._found) > _KEPT:
            self._found.popitem(last=False)
        self.version += 1

    def _say(self, words: str, *, on_the_way: bool = False) -> None:
        """on_the_way: words that others follow soon; pages are not made anew for each of them."""
        self.state = words
        now = time.monotonic()
        if not on_the_way or now > self._said + _SAID_S:
            self._said = now
            self.version += 1


def _words(told: Told) -> str:
    return f"Copies could not be looked for: {told.words}" if told.fault else f"Not yet: {told.words}."

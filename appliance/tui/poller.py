"""Asks the daemon, away from the keys.

One thread of our own, marked as daemon thread: a call that hangs delays neither a key nor quitting (the executor of
an event loop would be waited for). It posts typed messages; one that is still waiting is replaced by a newer one,
so a busy screen never works through old news.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from textual.message import Message

from appliance.messages import Case, Status
from appliance.tui.feed import NoAnswerError, RefusedError, StatusSource, contradiction


class News(Message):
    """What polling found out; only the latest matters."""

    def can_replace(self, message: Message) -> bool:
        """Any newer piece of news makes an older one pointless."""
        return isinstance(message, News)


class StatusArrived(News):
    """The daemon answered."""

    def __init__(self, status: Status) -> None:
        super().__init__()
        self.status = status


class DaemonSilent(News):
    """The daemon did not answer."""

    def __init__(self, trouble: str) -> None:
        super().__init__()
        self.trouble = trouble


class AcknowledgeDone(Message):
    """The outcome of one acknowledgement; `trouble` is empty when the daemon carried it out."""

    def __init__(self, alert: int, operator: str, trouble: str = "") -> None:
        super().__init__()
        self.alert = alert
        self.operator = operator
        self.trouble = trouble


class CasesArrived(Message):
    """Parts that wait for a person; `trouble` says why they could not be read."""

    def __init__(self, cases: tuple[Case, ...], trouble: str = "") -> None:
        super().__init__()
        self.cases = cases
        self.trouble = trouble


class JudgeDone(Message):
    """The outcome of one judgement; `trouble` is empty when it is on record."""

    def __init__(self, row: int, decision: str, trouble: str = "") -> None:
        super().__init__()
        self.row = row
        self.decision = decision
        self.trouble = trouble


class Poller:
    """Fetches the status every `period_s` seconds and carries out what the operator asks for, in one thread."""

    def __init__(self, source: StatusSource, post: Callable[[Message], object], period_s: float) -> None:
        self._source = source
        self._post = post
        self._period_s = period_s
        self._requests: queue.SimpleQueue[Callable[[], Message] | None] = queue.SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="tui-poller", daemon=True)

    def start(self) -> None:
        """Begin; the first fetch happens at once."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; does not wait for a call that is under way."""
        self._stopped = True
        self._requests.put(None)

    def acknowledge(self, alert: int, operator: str) -> None:
        """Queue an acknowledgement; AcknowledgeDone tells its outcome."""
        act = self._source.acknowledge
        self._requests.put(
            lambda: AcknowledgeDone(alert, operator, self._trouble("acknowledged", act, alert, operator))
        )

    def look_at_cases(self) -> None:
        """Queue a look at the parts that wait for a person; CasesArrived tells them."""
        self._requests.put(self._cases)

    def judge(self, row: int, decision: str, operator: str) -> None:
        """Queue a judgement; JudgeDone tells its outcome, and CasesArrived what waits then."""
        act = self._source.judge
        self._requests.put(lambda: JudgeDone(row, decision, self._trouble("recorded", act, row, decision, operator)))
        self._requests.put(self._cases)

    def _work(self) -> None:
        while not self._stopped:
            self._tell(self._fetch())
            try:
                request = self._requests.get(timeout=self._period_s)
            except queue.Empty:
                continue
            if request is not None:
                self._tell(request())

    def _fetch(self) -> News:
        try:
            status = self._source.fetch()
            wrong = contradiction(status)
            return DaemonSilent(f"the daemon sent {wrong}") if wrong else StatusArrived(status)
        except NoAnswerError as error:
            return DaemonSilent(str(error))
        except Exception as error:
            # top of this worker: a dead thread would leave the operator with a screen that silently stands still
            return DaemonSilent(f"{type(error).__name__}: {error}")

    def _cases(self) -> CasesArrived:
        found: list[Case] = []
        trouble = self._trouble("read", lambda: found.extend(self._source.cases()))
        return CasesArrived(tuple(found), trouble)

    @staticmethod
    def _trouble(done: str, act: Callable[..., None], *words: object) -> str:
        """Carry something out; what went wrong, or nothing."""
        try:
            act(*words)
        except RefusedError as error:
            return f"not {done}: {error}"
        except NoAnswerError as error:
            return f"see whether it stays open: {error}"
        except Exception as error:  # as in _fetch
            return f"not {done}: {type(error).__name__}: {error}"
        return ""

    def _tell(self, message: Message) -> None:
        if self._stopped:
            return
        try:
            self._post(message)
        except RuntimeError:
            # the event loop was closed between the check and the call: the screen is gone, nobody to tell
            self._stopped = True

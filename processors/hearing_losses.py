"""What failed in the agent's hearing, kept until it is known what that cost the caller. Pure."""

from dataclasses import dataclass

from processors.recognisers import RecogniserFailed, RecogniserFailure
from processors.voices import FailureKind

_KNOWN_LATER = (FailureKind.LATE, FailureKind.SILENT)
"""Failures that are found out only after the caller has waited for words."""


@dataclass(frozen=True)
class Loss:
    """A failure whose cost is not known yet."""

    vendor: str
    failure: RecogniserFailure
    stage: str
    at_s: float
    """When, in seconds of the loop's clock."""

    def told(self, action: str, cost_s: float = 0.0) -> RecogniserFailed:
        """Return it as it is told, with what was done and what it cost."""
        return RecogniserFailed(
            self.vendor, self.failure.kind, self.stage, action, cost_s, self.failure.detail
        )


class HearingLosses:
    """Those of one call, in their order."""

    def __init__(self) -> None:
        """Begin without any."""
        self._losses: list[Loss] = []

    def add(self, loss: Loss) -> None:
        """Keep one."""
        self._losses.append(loss)

    def knows(self, vendor: str, stage: str) -> bool:
        """Whether such a one is kept already."""
        return any(known.vendor == vendor and known.stage == stage for known in self._losses)

    def settle(
        self, action: str, now_s: float, *, quiet_since_s: float | None, listening: str | None
    ) -> list[RecogniserFailed]:
        """Return all of them, each with what was done and what it cost; none is kept.

        What the caller notices is how much later than usual they are understood, once they are quiet. The last
        failure has all of that.

        Args:
            action: What was done, if nobody listens.
            now_s: Now.
            quiet_since_s: When the caller stopped speaking; None if they speak, or have not spoken.
            listening: The vendor that listens, None if none does.
        """
        losses, self._losses = self._losses, []
        told: list[RecogniserFailed] = []
        for loss in losses:
            cost_s = 0.0
            if loss is losses[-1] and quiet_since_s is not None:
                is_late = loss.failure.kind in _KNOWN_LATER
                cost_s = max(0.0, now_s - (quiet_since_s if is_late else max(loss.at_s, quiet_since_s)))
            done = action if listening is None else _who_listens(listening, loss)
            told.append(loss.told(done, cost_s))
        return told


def _who_listens(vendor: str, loss: Loss) -> str:
    return f"{'again' if vendor == loss.vendor else 'next'}:{vendor}"

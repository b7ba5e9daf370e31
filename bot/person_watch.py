"""Watches for callers who need a person: who ask for one, or whose patience is at its end.

Is told what is heard (a `processors.repair.RepairListener`); `bot/handoff_reasons.py` decides, and whoever puts
callers through is asked for it.
"""

from collections.abc import Callable

from loguru import logger

from bot.handoff_reasons import CallerPatience, HandoffReason
from flows.business import PersonAnswer
from processors.confidence import Trust


class PersonWatch:
    """One call's."""

    def __init__(
        self, patience: CallerPatience, hand_off: Callable[[HandoffReason, str], PersonAnswer]
    ) -> None:
        """Watch from here on.

        Args:
            patience: The caller's.
            hand_off: Puts them through, if anybody can come: gets why, and what they want. Returns at once.
        """
        self._patience = patience
        self._hand_off = hand_off

    def asked(self, about: str) -> PersonAnswer:
        """A tool wants a person for the caller.

        Args:
            about: What they want.
        """
        return self._hand_off(HandoffReason.ASKED, about)

    def turn_over(self, text: str) -> None:
        """A turn of the caller's was understood.

        Args:
            text: Its words.
        """
        self._put_through(self._patience.turn_over(text))

    # RepairListener

    def failed_turn(self, count: int) -> bool:
        """The caller could not be understood, `count` times in a row; returns whether to ask them again."""
        logger.info("a turn could not be heard: {} in a row", count)
        return not self._put_through(self._patience.failed_turn(count))

    def heard(self, trust: Trust) -> None:
        """Words of the caller's were understood, well or with doubt."""
        self._patience.heard(trust)

    def _put_through(self, reason: HandoffReason | None) -> bool:
        """Put the caller through for a reason of ours; returns whether they are."""
        return reason is not None and self._hand_off(reason, "") is not PersonAnswer.NOBODY

"""What a process carries, as admission wants to know it: the event loop's lateness, the builds that wait, the plans."""

from collections.abc import Callable, Iterable, Mapping

from bot.agent import Agent
from bot.services import Layer, share_of_plan
from processors.voice_health import VoiceHealth
from telephony.capacity import CALLS_PER_UTTERANCE, Load, LoopHealth, VendorPlan

_CALLS_PER_PLACE: Mapping[Layer, int] = {
    Layer.STT: 1,  # a stream is open for as long as the call
    Layer.LLM: CALLS_PER_UTTERANCE,
    Layer.TTS: CALLS_PER_UTTERANCE,
}
_COUNTS_SOCKETS = frozenset({(Layer.TTS, "deepgram")})
"""Vendors whose plan counts connections of that layer, of which each call has one from its start."""


def vendor_plans(agents: Iterable[Agent], *, workers: int = 1) -> dict[str, tuple[VendorPlan, ...]]:
    """Return agent to what its vendors' plans allow one of several workers, by `concurrency` in `services:`.

    Vendors of a layer stand in for each other, so their places add up; with one whose plan is not known there is no
    limit that could be.

    Args:
        agents: All.
        workers: Processes that share the plans.
    """
    plans: dict[str, tuple[VendorPlan, ...]] = {}
    for agent in agents:
        found: list[VendorPlan] = []
        for layer in Layer:
            chosen = agent.config.services.of(layer)
            places = [(choice.name, share_of_plan(choice.options, workers)) for choice in chosen]
            known = [place * _calls_per_place(layer, name) for name, place in places if place is not None]
            if len(known) == len(chosen):
                names = frozenset(f"{layer.value}:{choice.name}" for choice in chosen)
                found.append(VendorPlan(names, sum(known)))
        plans[agent.slug] = tuple(found)
    return plans


def _calls_per_place(layer: Layer, vendor: str) -> int:
    return 1 if (layer, vendor) in _COUNTS_SOCKETS else _CALLS_PER_PLACE[layer]


class ProcessMeter:
    """`telephony.admission.Meter` of one process."""

    def __init__(
        self,
        agents: Iterable[Agent],
        *,
        loop: LoopHealth,
        backlog_s: Callable[[], float],
        voice_health: VoiceHealth,
        workers: int = 1,
    ) -> None:
        """Join what is measured.

        Args:
            agents: All.
            loop: Fed by `bot.loop_lag`.
            backlog_s: Returns how long one more call would wait for its pipeline, in seconds.
            voice_health: Counts the utterances that are being said.
            workers: Processes that share the vendors' plans.
        """
        agents = tuple(agents)
        self.plans: Mapping[str, tuple[VendorPlan, ...]] = vendor_plans(agents, workers=workers)
        self._voices = {
            agent.slug: [
                (choice.name, share_of_plan(choice.options, workers)) for choice in agent.config.services.tts
            ]
            for agent in agents
        }
        self._loop = loop
        self._backlog_s = backlog_s
        self._voice_health = voice_health

    def load(self, agent: str, calls: Mapping[str, int]) -> Load:
        """Return what there is; see `Meter`."""
        return Load(
            calls,
            is_behind=self._loop.is_behind,
            backlog_s=self._backlog_s(),
            is_voice_taken=self._is_voice_taken(agent),
        )

    def _is_voice_taken(self, agent: str) -> bool:
        plans = self._voices.get(agent, [])
        return bool(plans) and all(
            most is not None and not self._voice_health.has_room(vendor, most) for vendor, most in plans
        )

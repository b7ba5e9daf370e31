"""A switchboard in memory whose calls only ring; what surrounds them is under test."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from prometheus_client import generate_latest

from bot.build_queue import BuildQueue
from bot.call import Call
from bot.call_life import EndReason
from bot.flow_check import check_agent
from bot.metrics import Metrics
from bot.resources import Resources
from bot.switchboard import Switchboard
from processors.familiar_lines import FamiliarLines
from processors.playout import PlayoutWire
from store.calls import new_process_id
from store.events import CallEvent
from telephony.admission import Admission, ClaimLedger, derive_secret
from telephony.rest import TwilioCredentials, TwilioRest
from telephony.signature import PublicAddress
from tests.bot.agent_files import AGENT, write_agent
from tests.fakes.memory_calls import MemoryCallStore
from tests.fakes.memory_handoffs import MemoryHandoffStore

FIRST, SECOND = "+18506872085", "+18506872099"


NO_BOOKS = SimpleNamespace(calendar=None, messages=None, callbacks=None, hours=None, timezone=None)


class Board:
    """A switchboard whose calls have no pipeline: they ring until somebody ends them."""

    def __init__(
        self,
        folder: Path,
        *,
        agents: int,
        max_calls: int,
        ledger: ClaimLedger | None = None,
        calls: MemoryCallStore | None = None,
    ) -> None:
        checked = {}
        for number, called in enumerate([FIRST, SECOND][:agents]):
            path = write_agent(folder / f"agent-{number}", agent=AGENT.replace(FIRST, called))
            checked[path.name] = check_agent(path)
        settings = SimpleNamespace(recordings_url=folder / "recordings")
        self.calls = calls or MemoryCallStore()
        self.events: list[CallEvent] = []
        stores = SimpleNamespace(
            events=SimpleNamespace(note=self.events.append),
            calls=self.calls,
            handoffs=MemoryHandoffStore(),
            process=new_process_id(),
        )
        self.resources = SimpleNamespace(
            agents=checked,
            books=dict.fromkeys(checked, NO_BOOKS),
            builds=BuildQueue(),
            clients=SimpleNamespace(transcriber=None),
            settings=settings,
            disk=None,
            usage=None,
            stores=stores,
            familiar_lines=lambda _: FamiliarLines(),
        )
        self.metrics = Metrics.create()
        self.switchboard = Switchboard(
            cast("Resources", self.resources),
            admission=Admission(max_calls=max_calls, secret=derive_secret("token"), ledger=ledger),
            rest=TwilioRest(TwilioCredentials("AC" + "0" * 32, "secret")),
            address=PublicAddress("https://phone.example.com"),
            metrics=self.metrics,
        )

    def answer(self, call_sid: str, called: str = FIRST, caller: str = "+15550001111") -> str:
        return self.switchboard.answer(call_sid=call_sid, called=called, caller=caller)

    def counted(self, line: str) -> bool:
        return line in generate_latest(self.metrics._exposed).decode()


class RingingCall(Call):
    """A call that only rings; what surrounds it is under test."""

    async def put_on(self, wire: PlayoutWire) -> None:
        self.life.line_came()

    async def _run_pipeline(self) -> None:
        await self.life.end_asked.wait()

    async def _hang_up(self, reason: EndReason) -> None:
        await self._close_state(reason)

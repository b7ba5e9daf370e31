"""The shell every sim shares: an aiohttp server on loopback with a control surface.

A vendor adds its routes; `/sim/…` is ours and never imitates anything:
`GET /sim/stats`, `POST /sim/faults` (a `FaultSpec`), `DELETE /sim/faults`, `POST /sim/profile` (`{"name": …}`).
"""

import abc
import random
from collections import Counter
from typing import ClassVar, Self

from aiohttp import web
from pydantic import ValidationError

from sims.faults import FaultBoard, FaultKind, FaultSpec
from sims.profiles import PROFILES, Profile


class VendorSim(abc.ABC):
    """One vendor on one loopback port.

    Use as an async context manager; `base_url` is known once it is entered.
    """

    name: ClassVar[str]
    """Lower-case vendor name, as in `DEEPGRAM_BASE_URL`."""
    scheme: ClassVar[str] = "http"
    """Scheme of `base_url`: `http` or `ws`."""
    supported_faults: ClassVar[frozenset[FaultKind]] = frozenset(FaultKind)

    def __init__(self, profile: Profile, *, seed: int = 0) -> None:
        """Create a stopped sim.

        Args:
            profile: Timing.
            seed: Seed of every random choice, so that a run can be repeated.
        """
        self.profile = profile
        self.rng = random.Random(seed)  # noqa: S311 - repeatable delays, not secrets
        self.faults = FaultBoard(self.supported_faults, error_rate=profile.error_rate, seed=seed)
        self.stats: Counter[str] = Counter()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def base_url(self) -> str:
        """Scheme and host, e.g. `ws://127.0.0.1:9001`."""
        return f"{self.scheme}://127.0.0.1:{self._port}"

    @property
    def control_url(self) -> str:
        """Where `/sim/…` is served, always http."""
        return f"http://127.0.0.1:{self._port}"

    @abc.abstractmethod
    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register the vendor's own routes."""

    def fault_hits(self) -> Counter[FaultKind]:
        """Return how often each kind of fault has hit."""
        return Counter(self.faults.hits)

    async def start(self, port: int = 0) -> None:
        """Serve on 127.0.0.1; port 0 picks a free one."""
        app = web.Application(client_max_size=32 * 2**20)
        self.add_routes(app.router)
        app.router.add_get("/sim/stats", self._get_stats)
        app.router.add_post("/sim/faults", self._post_fault)
        app.router.add_delete("/sim/faults", self._delete_faults)
        app.router.add_post("/sim/profile", self._post_profile)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handle_signals=False)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self._runner = runner
        self._port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Close every connection and the port."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _get_stats(self, _: web.Request) -> web.Response:
        hits = {kind.value: count for kind, count in self.fault_hits().items()}
        return web.json_response({"stats": dict(self.stats), "faults": hits})

    async def _post_fault(self, request: web.Request) -> web.Response:
        try:
            self.faults.arm(FaultSpec.model_validate_json(await request.read()))
        except (ValidationError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=422)
        return web.json_response({"armed": True})

    async def _delete_faults(self, _: web.Request) -> web.Response:
        self.faults.clear()
        return web.json_response({"armed": False})

    async def _post_profile(self, request: web.Request) -> web.Response:
        name = (await request.json()).get("name")
        if name not in PROFILES:
            return web.json_response({"error": f"profiles: {', '.join(PROFILES)}"}, status=422)
        self.profile = PROFILES[name]
        self.faults.error_rate = self.profile.error_rate
        return web.json_response({"profile": name})

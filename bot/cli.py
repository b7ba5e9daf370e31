"""The `firstring` command. Each command is thin: it reads the settings, calls one function, sets the exit code.

Imports inside the commands are on purpose: the vendors' SDKs take seconds to import, and `firstring --help`
needs none of them.
"""

import asyncio
import subprocess
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from bot.errors import AgentFilesError, SettingsError, SimProcessError
from bot.logs import log_at
from bot.settings import (
    Settings,
    Vendor,
    VendorSource,
    load_settings,
    load_settings_with,
    missing_settings,
    plan_vendors,
)

if TYPE_CHECKING:
    from bot.agent import Agent
    from bot.doctor import Finding

app = typer.Typer(
    name="firstring",
    help="A phone agent a small business can trust with its line.",
    no_args_is_help=True,
    add_completion=False,
)
_out = Console(soft_wrap=True, highlight=False)
_errors = Console(soft_wrap=True, highlight=False, stderr=True)


@app.command()
def check(
    flows: Annotated[list[Path], typer.Argument(help="Agents' folders, e.g. flows/reception.")],
) -> None:
    """Explain what is wrong with an agent's files, with file and line."""
    log_at("WARNING")
    from bot.flow_check import check_agent

    faults: list[str] = []
    for folder in flows:
        try:
            check_agent(folder)
        except AgentFilesError as error:
            faults += error.faults
    if faults:
        _refuse(faults)
    _out.print("ok")


@app.command()
def doctor(
    profile: Annotated[str, typer.Option(help="Timing of the sims, where no key is set.")] = "instant",
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Print what answers at the carrier when this machine does not.")
    ] = False,
) -> None:
    """Try keys, voices, numbers, webhook, database and clock, and say what to mend."""
    log_at("ERROR")
    if fallback:
        _print_fallbacks()
        return
    from bot.doctor import Verdict, examine

    with _ready(profile) as ready:
        findings = asyncio.run(examine(ready.settings, ready.agents, ready.plan))
    _print_findings(findings)
    if any(finding.verdict is Verdict.FAULT for finding in findings):
        raise typer.Exit(1)


@app.command()
def serve(
    profile: Annotated[str, typer.Option(help="Timing of the sims, where no key is set.")] = "realistic",
) -> None:
    """Answer calls. Vendors without a key are played by sims."""
    with _ready(profile) as ready:
        from bot.serve import serve as run_server

        for vendor, source in ready.plan.items():
            if source is VendorSource.SIM:
                _errors.print(f"{vendor.value}: no key set, played by a sim")
        _errors.print(f"open http://{ready.settings.host}:{ready.settings.port}/")
        run_server(ready.settings, ready.environment)


@app.command()
def call(
    scenario: Annotated[str, typer.Option(help="What the test caller does.")] = "booking",
    profile: Annotated[str, typer.Option(help="Timing of the sims.")] = "realistic",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run one test call through the sims and print its timeline; exit 1 if the call failed."""
    log_at("WARNING")
    from bot.trial_call import run_trial_call

    with _ready(profile, is_quiet=True) as ready:
        code = run_trial_call(
            ready.settings, environment=ready.environment, scenario=scenario, as_json=as_json
        )
    raise typer.Exit(code)


@app.command()
def warm() -> None:
    """Render every fixed line of every agent into the audio cache."""
    with _ready("instant") as ready:
        from bot.warm import warm_now

        raise typer.Exit(asyncio.run(warm_now(ready.settings)))


@app.command()
def evals(
    only: Annotated[str, typer.Option(help="Part of the names of those to run.")] = "",
    profile: Annotated[str, typer.Option(help="Timing of the sims, where no key is set.")] = "instant",
) -> None:
    """Run every agent's eval scenarios through Pipecat's harness; exit 1 if one fails."""
    with _ready(profile, is_quiet=True) as ready:
        from bot.evals import run_evals

        raise typer.Exit(asyncio.run(run_evals(ready.settings, only=only)))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(context: typer.Context) -> None:
    """Measure against a plain Pipecat bot; takes the options of `python -m bench`."""
    raise typer.Exit(subprocess.call([sys.executable, "-m", "bench", *context.args]))  # noqa: S603 - our own module


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def chaos(context: typer.Context) -> None:
    """Play seeded calls while vendors fail; takes the options of `python -m bench.chaos`."""
    raise typer.Exit(subprocess.call([sys.executable, "-m", "bench.chaos", *context.args]))  # noqa: S603 - our own module


@dataclass(frozen=True)
class Ready:
    """Everything a command needs to begin."""

    settings: Settings
    agents: "Mapping[str, Agent]"
    plan: Mapping[Vendor, VendorSource]
    environment: Mapping[str, str]
    """Settings that the sims brought along."""


@contextmanager
def _ready(profile: str, *, is_quiet: bool = False) -> Generator[Ready]:
    """Settings, agents and vendors, with sims running for the vendors that have no key.

    Prints every fault of the settings and of the agents' files together and exits with 1.
    """
    settings = _settings()
    log_at("WARNING" if is_quiet else settings.log_level)
    from bot.flow_check import load_checked_agents
    from bot.sim_process import sims_for

    try:
        checked = load_checked_agents(settings.agents_dir)
    except AgentFilesError as error:
        _refuse(error.faults)
    agents = {slug: one.agent for slug, one in checked.items()}
    plan = plan_vendors(settings, needed_vendors(agents.values()))
    if missing := missing_settings(settings, plan):
        _refuse(missing)
    try:
        with sims_for(plan, profile=profile) as environment:
            ready = load_settings_with(environment) if environment else settings
            yield Ready(ready, agents, plan, environment)
    except SimProcessError as error:
        _refuse([str(error)])


def needed_vendors(agents: "Iterable[Agent]") -> list[Vendor]:
    """Return what these agents need, the telephone included, in a fixed order."""
    needed = {Vendor.TWILIO}.union(*(agent.vendors for agent in agents))
    return [vendor for vendor in Vendor if vendor in needed]


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        _refuse(error.faults)


def _refuse(faults: Iterable[str]) -> NoReturn:
    for fault in faults:
        _errors.print(escape(fault))
    raise typer.Exit(1)


def _print_fallbacks() -> None:
    """Print each agent's document; whose it is goes to standard error, so that one can be piped."""
    from bot.agent import load_agents
    from bot.fallback import fallback_document

    try:
        agents = load_agents(_settings().agents_dir)
    except AgentFilesError as error:
        _refuse(error.faults)
    for slug, agent in agents.items():
        if len(agents) > 1:
            _errors.print(escape(f"{slug} ({', '.join(agent.config.numbers) or 'any number'}):"))
        typer.echo(fallback_document(agent.config))


def _print_findings(findings: "Iterable[Finding]") -> None:
    colours = {"good": "green", "warning": "yellow", "fault": "red"}
    for finding in findings:
        verdict = finding.verdict.value
        _out.print(f"[{colours[verdict]}]{verdict:>7}[/]  {escape(f'{finding.subject}: {finding.sentence}')}")


if __name__ == "__main__":
    app()

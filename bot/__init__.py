"""One call and everything it is built from: settings, agents, vendor services, the command line."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Give Pipecat's runner what it looks for, the function `bot.bot`, and load it only then.

    Raises:
        AttributeError: For any other name.
    """
    if name != "bot":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bot.bot import bot

    globals()["bot"] = bot  # the import has put the module of that name here
    return bot

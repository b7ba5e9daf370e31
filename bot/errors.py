"""Every error this product raises on purpose.

    FirstRingError
    ├── ConfigurationError      what a person wrote is wrong; `faults` has one sentence for each
    │   ├── SettingsError       environment or .env
    │   └── AgentFilesError     agent.yaml, flow.yaml or tools.py of an agent
    └── SimProcessError         the sims did not start

Messages name rule and value, never a secret and never a caller's words.
"""

from collections.abc import Iterable


class FirstRingError(Exception):
    """Root of the tree."""


class ConfigurationError(FirstRingError):
    """What a person wrote is wrong; all faults at once."""

    def __init__(self, faults: Iterable[object]) -> None:
        """Create the error.

        Args:
            faults: One sentence each (or an object whose `str` is one), in reading order.
        """
        self.faults: tuple[str, ...] = tuple(str(fault) for fault in faults)
        """One sentence for each fault."""
        super().__init__("\n".join(self.faults))


class SettingsError(ConfigurationError):
    """The environment or the .env file is wrong."""


class AgentFilesError(ConfigurationError):
    """An agent's folder is wrong; each fault starts with file and line."""


class SimProcessError(FirstRingError):
    """The sims' process did not start."""

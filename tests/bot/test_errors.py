import pytest

from bot.errors import AgentFilesError, ConfigurationError, FirstRingError, SettingsError, SimProcessError


def test_configuration_errors_keep_every_fault_in_order() -> None:
    error = SettingsError(["B: wrong", "A: missing"])
    assert error.faults == ("B: wrong", "A: missing")
    assert str(error) == "B: wrong\nA: missing"


@pytest.mark.parametrize("kind", [SettingsError, AgentFilesError])
def test_one_handler_catches_what_a_person_wrote(kind: type[ConfigurationError]) -> None:
    with pytest.raises(ConfigurationError):
        raise kind(["fault"])


def test_everything_has_one_root() -> None:
    assert issubclass(ConfigurationError, FirstRingError)
    assert issubclass(SimProcessError, FirstRingError)

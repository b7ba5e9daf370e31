"""What the operator sets: environment variables, or the same names in a `.env` file.

The only module that reads the environment. Built once at the edge (`load_settings`), frozen, passed on as a
value; it never opens a connection and never prints a secret. What an agent's owner tunes is `bot/agent.py`.
"""

import difflib
import enum
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as EnvironmentParseError

from bot.errors import SettingsError


class SimsMode(enum.Enum):
    """When vendors are played by the sims on loopback."""

    AUTO = "auto"
    """A vendor whose key is set is real, every other one is a sim."""
    ON = "on"
    """Every vendor is a sim, whatever keys are set."""
    OFF = "off"
    """No sims; a missing key is a fault."""


class Vendor(enum.Enum):
    """Who we talk to. The value is the prefix of the vendor's settings, in lower case."""

    DEEPGRAM = "deepgram"
    ASSEMBLYAI = "assemblyai"
    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    GROQ = "groq"
    FIREWORKS = "fireworks"
    TOGETHER = "together"
    ELEVENLABS = "elevenlabs"
    CARTESIA = "cartesia"
    TWILIO = "twilio"


class VendorSource(enum.Enum):
    """Where a vendor's answers come from in this run."""

    REAL = "real"
    SIM = "sim"
    MISSING = "missing"
    """It should be real and its key is not set."""


def _origin(schemes: Sequence[str], *, path: str = "") -> AfterValidator:
    """Accept scheme and host only, with one of `schemes`; drop a trailing slash.

    Args:
        schemes: Those allowed.
        path: Of the vendor's API, which may stand behind the host: other programs want it there. It is dropped.
    """

    def check(url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in schemes:
            raise ValueError(f"the scheme must be {' or '.join(schemes)}, got {parts.scheme or 'none'!r}")
        if not parts.hostname:
            raise ValueError(f"a base URL is scheme and host, e.g. {schemes[0]}://127.0.0.1:9001")
        if parts.username or parts.password:
            raise ValueError("a base URL must not carry a user or password")
        if parts.path.strip("/") not in ("", path.strip("/")) or parts.query or parts.fragment:
            raise ValueError("a base URL is scheme and host only, without a path or query")
        _ = parts.port  # raises ValueError when it is not a port
        return f"{parts.scheme}://{parts.netloc}"

    return AfterValidator(check)


SocketUrl = Annotated[str, _origin(("wss", "ws"))]
HttpUrl = Annotated[str, _origin(("https", "http"))]


def _database_url(url: str) -> str:
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme == "sqlite":
        if not url.removeprefix("sqlite:///"):
            raise ValueError("name a file, e.g. sqlite:///data/first-ring.db")
        if not url.startswith("sqlite:///"):
            raise ValueError("a SQLite URL has three slashes: sqlite:///data/first-ring.db")
        return url
    if scheme in ("postgresql", "postgres"):
        raise ValueError("PostgreSQL is not supported yet; use sqlite:///<file>")
    raise ValueError(f"the scheme must be sqlite, got {scheme or 'none'!r}")


def _redis_url(url: SecretStr) -> SecretStr:
    parts = urlsplit(url.get_secret_value())  # may hold a password: no message shows it
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError(f"the scheme must be redis or rediss, got {parts.scheme or 'none'!r}")
    if not parts.hostname:
        raise ValueError("name a host, e.g. redis://127.0.0.1:6379/0")
    if parts.path.strip("/") and not parts.path.strip("/").isdecimal():
        raise ValueError(
            "what stands behind the host is the database's number, e.g. redis://127.0.0.1:6379/0"
        )
    _ = parts.port  # raises ValueError when it is not a port
    return url


def _recordings_folder(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.startswith("file://"):
        return value.removeprefix("file://")
    if "://" in value:
        raise ValueError(f"only a local folder is supported yet, got scheme {value.partition(':')[0]!r}")
    return value


class KeyedVendor(BaseModel, frozen=True):
    """Settings of a vendor with one API key."""

    api_key: SecretStr | None = None

    def has_key(self) -> bool:
        """Tell whether requests can be signed."""
        return self.api_key is not None

    def missing(self) -> tuple[str, ...]:
        """Return the fields that must be set for the real vendor."""
        return () if self.has_key() else ("api_key",)


class DeepgramSettings(KeyedVendor, frozen=True):
    """`DEEPGRAM_…`."""

    base_url: SocketUrl = "wss://api.deepgram.com"


class AssemblyAISettings(KeyedVendor, frozen=True):
    """`ASSEMBLYAI_…`."""

    base_url: SocketUrl = "wss://streaming.assemblyai.com"


class AnthropicSettings(KeyedVendor, frozen=True):
    """`ANTHROPIC_…`."""

    base_url: HttpUrl = "https://api.anthropic.com"


class OpenAISettings(KeyedVendor, frozen=True):
    """`OPENAI_…`."""

    base_url: Annotated[str, _origin(("https", "http"), path="v1")] = "https://api.openai.com"


class GroqSettings(KeyedVendor, frozen=True):
    """`GROQ_…`."""

    base_url: Annotated[str, _origin(("https", "http"), path="openai/v1")] = "https://api.groq.com"


class FireworksSettings(KeyedVendor, frozen=True):
    """`FIREWORKS_…`."""

    base_url: Annotated[str, _origin(("https", "http"), path="inference/v1")] = "https://api.fireworks.ai"


class TogetherSettings(KeyedVendor, frozen=True):
    """`TOGETHER_…`."""

    base_url: Annotated[str, _origin(("https", "http"), path="v1")] = "https://api.together.xyz"


class ElevenLabsSettings(KeyedVendor, frozen=True):
    """`ELEVENLABS_…`."""

    base_url: SocketUrl = "wss://api.elevenlabs.io"


class CartesiaSettings(KeyedVendor, frozen=True):
    """`CARTESIA_…`."""

    base_url: SocketUrl = "wss://api.cartesia.ai"


class TwilioSettings(BaseModel, frozen=True):
    """`TWILIO_…`.

    The auth token is needed even beside an API key pair: Twilio signs its webhooks with it.
    """

    account_sid: str | None = Field(default=None, pattern=r"^AC[0-9a-zA-Z]{32}$")
    auth_token: SecretStr | None = None
    api_key: str | None = Field(default=None, pattern=r"^SK[0-9a-zA-Z]{32}$")
    """SID of an API key, used for REST instead of the auth token when its secret is set too."""
    api_secret: SecretStr | None = None
    base_url: HttpUrl = "https://api.twilio.com"

    @model_validator(mode="after")
    def _key_pair_is_whole(self) -> Self:
        if (self.api_key is None) != (self.api_secret is None):
            raise ValueError("TWILIO_API_KEY and TWILIO_API_SECRET belong together; set both or neither")
        return self

    def has_key(self) -> bool:
        """Tell whether any credential is set."""
        return any((self.account_sid, self.auth_token, self.api_key))

    def missing(self) -> tuple[str, ...]:
        """Return the fields that must be set for the real vendor."""
        return tuple(name for name in ("account_sid", "auth_token") if getattr(self, name) is None)


class Settings(BaseSettings):
    """Everything the operator can set. Names are the public contract; see `.env.example`."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        # DEEPGRAM_API_KEY is `api_key` of `deepgram`.
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="ignore",
        hide_input_in_errors=True,
        nested_model_default_partial_update=True,
    )

    sims: SimsMode = SimsMode.AUTO
    public_url: HttpUrl | None = None
    """Where Twilio reaches us, e.g. `https://calls.example.com`; never derived from a request."""
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=7860, ge=0, le=65535)
    workers: PositiveInt = 1
    max_calls: PositiveInt = 20
    """Calls at once in each worker process; one more gets the agent's overflow."""
    agents_dir: Path = Path("flows")
    database_url: Annotated[str, AfterValidator(_database_url)] = "sqlite:///data/first-ring.db"
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = None
    """Where calls and the event log are kept when several machines share them; None keeps them in the database."""
    recordings_url: Annotated[Path, BeforeValidator(_recordings_folder)] = Path("data/recordings")
    log_level: Annotated[
        Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"],
        BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
    ] = "INFO"

    evals: bool = False
    """Whether `bot()` takes the connections of an eval harness: whoever opens one types to the agent."""
    prometheus_multiproc_dir: Path | None = None
    """Set by `firstring serve` for its worker processes; read by prometheus_client too."""

    deepgram: DeepgramSettings = DeepgramSettings()
    assemblyai: AssemblyAISettings = AssemblyAISettings()
    anthropic: AnthropicSettings = AnthropicSettings()
    openai: OpenAISettings = OpenAISettings()
    groq: GroqSettings = GroqSettings()
    fireworks: FireworksSettings = FireworksSettings()
    together: TogetherSettings = TogetherSettings()
    elevenlabs: ElevenLabsSettings = ElevenLabsSettings()
    cartesia: CartesiaSettings = CartesiaSettings()
    twilio: TwilioSettings = TwilioSettings()

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        return Path(self.database_url.removeprefix("sqlite:///"))

    @property
    def data_dir(self) -> Path:
        """Where the process keeps what it can make again: rendered lines, used tokens."""
        return self.database_path.parent

    def vendor(self, vendor: Vendor) -> KeyedVendor | TwilioSettings:
        """Return the settings of one vendor."""
        return getattr(self, vendor.value)


def load_settings(**overrides: Any) -> Settings:
    """Read the environment and `.env`.

    Settings of the environment that are empty are taken out of it: they count as not set, and libraries that look
    for themselves take them for set. Docker's `--env-file` makes one of each empty line.

    Args:
        overrides: Values that win over both, by field name; `_env_file=None` reads no file.

    Raises:
        SettingsError: All faults at once, each naming its variable and none showing a secret.
    """
    for name in setting_names():
        if os.environ.get(name) == "":
            del os.environ[name]
    env_file = overrides.get("_env_file", Settings.model_config.get("env_file"))
    faults = misspelt_names({*os.environ, *_names_in(env_file)})
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise SettingsError([*_explain(error), *faults]) from None
    except EnvironmentParseError as error:
        # A whole section (DEEPGRAM=…) was given where only its fields can be; the message has no value.
        raise SettingsError([f"{error}; set its fields one by one", *faults]) from None
    if faults:
        raise SettingsError(faults)
    return settings


def load_settings_with(environment: Mapping[str, str]) -> Settings:
    """Put variables into this process's environment and read the settings again.

    Worker processes inherit them. Used for what the sims printed.

    Raises:
        SettingsError: As `load_settings`.
    """
    os.environ.update(environment)
    return load_settings()


def child_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a process of ours: this one's, with `settings` by name over it."""
    return {**os.environ, **settings}


def setting_names() -> tuple[str, ...]:
    """Return every environment variable that is a setting, in the order of the fields."""
    return tuple(_names(Settings, ""))


def misspelt_names(names: Iterable[str]) -> list[str]:
    """Explain names that look like a vendor's setting and are none, e.g. `DEEPGRAM_APIKEY`.

    Only near misses within a vendor's prefix count: an environment has many other variables.
    """
    known = setting_names()
    prefixes = tuple(f"{vendor.value.upper()}_" for vendor in Vendor)
    faults: list[str] = []
    for name in sorted({name.upper() for name in names} - set(known)):
        if name.startswith(prefixes):
            siblings = [k for k in known if k.startswith(name.partition("_")[0] + "_")]
            if near := difflib.get_close_matches(name, siblings, n=1, cutoff=0.9):
                faults.append(f"{name}: is not a setting; did you mean {near[0]}?")
    return faults


def plan_vendors(settings: Settings, needed: Iterable[Vendor]) -> dict[Vendor, VendorSource]:
    """Decide for each needed vendor whether it is real, a sim, or missing its key.

    With `SIMS=auto` a base URL without a key is `MISSING` too: whoever sets one does not want a sim instead.
    """
    return {vendor: _source(settings, vendor) for vendor in needed}


def missing_settings(settings: Settings, plan: Mapping[Vendor, VendorSource]) -> list[str]:
    """Return one sentence for each variable that `plan` says is missing."""
    return [
        f"{vendor.value}_{field}".upper() + f": missing ({_why_needed(settings, vendor)})"
        for vendor, source in plan.items()
        if source is VendorSource.MISSING
        for field in settings.vendor(vendor).missing()
    ]


def _source(settings: Settings, vendor: Vendor) -> VendorSource:
    section = settings.vendor(vendor)
    if settings.sims is SimsMode.ON:
        return VendorSource.SIM
    if not section.missing():
        return VendorSource.REAL
    is_meant = section.has_key() or "base_url" in section.model_fields_set
    if settings.sims is SimsMode.OFF or is_meant:
        return VendorSource.MISSING
    return VendorSource.SIM


def _why_needed(settings: Settings, vendor: Vendor) -> str:
    if settings.sims is SimsMode.OFF:
        return "SIMS=off"
    return f"other {vendor.value.upper()}_ settings are set; unset them all to use the sim"


def _names(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from _names(nested, f"{prefix}{name}_")
        else:
            yield f"{prefix}{name}".upper()


def _names_in(env_file: object) -> set[str]:
    if not isinstance(env_file, (str, Path)) or not Path(env_file).is_file():
        return set()
    return set(dotenv_values(env_file))


def _explain(error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        name = "_".join(str(part) for part in detail["loc"]).upper()
        yield f"{name}: {detail['msg'].removeprefix('Value error, ')}"

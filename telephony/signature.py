"""Is this request really from Twilio? `X-Twilio-Signature` on webhooks and on the media socket's upgrade.

The routes of `server.py` ask it before they read anything. Pure: takes the request's parts, gives a verdict.
The signed URL is built from the configured public address, never from the request: behind a proxy the request
names another scheme, host or port, and its headers are the sender's to choose.

Source: Twilio, Webhooks security; `twilio.request_validator.RequestValidator` (9.13) computes the signature.
"""

import enum
import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qs, parse_qsl, urlsplit

from twilio.request_validator import RequestValidator

SIGNATURE_HEADER: Final = "X-Twilio-Signature"

MAX_BODY_BYTES: Final = 64 * 1024
"""Largest webhook body looked at; Twilio's are about 1 kB."""

_MAX_FIELDS = 200
_FORM = "application/x-www-form-urlencoded"
_DEFAULT_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}


class SignatureVerdict(enum.StrEnum):
    """What the check found; the value is the reason shown by the counter."""

    VALID = "valid"
    MISSING_HEADER = "missing_header"
    MISMATCH = "mismatch"
    UNSIGNED_BODY = "unsigned_body"
    """A body that is not a form needs `bodySHA256` in the query."""
    BODY_HASH_MISMATCH = "body_hash_mismatch"
    MALFORMED_BODY = "malformed_body"
    OVERSIZED_BODY = "oversized_body"


class FormFields(Mapping[str, str]):
    """The fields of a form as they were signed: empty values kept, the first of equal names shown."""

    def __init__(self, pairs: tuple[tuple[str, str], ...] = ()) -> None:
        """Keep `pairs` in the order sent."""
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> str:
        return self._values[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def getall(self, name: str) -> list[str]:
        """Return every value of `name`; RequestValidator asks for them by this method."""
        return self._values[name]


@dataclass(frozen=True, slots=True)
class SignatureCheck:
    """The verdict, and the fields that may be trusted (none unless it is valid)."""

    verdict: SignatureVerdict
    fields: FormFields

    @property
    def is_valid(self) -> bool:
        """Whether the request may be served; answer 403 otherwise."""
        return self.verdict is SignatureVerdict.VALID


class PublicAddress:
    """Where Twilio finds us: turns paths into the URLs that stand in TwiML and that are signed."""

    def __init__(self, public_url: str) -> None:
        """Take the address apart.

        Args:
            public_url: Scheme and host, maybe a port and a path prefix: `https://phone.example.com`.

        Raises:
            ValueError: If it is not an http(s) URL, or has user, query or fragment.
        """
        parts = urlsplit(public_url)
        _require_plain_http(parts)
        self._http = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"

    def http(self, path: str) -> str:
        """Return the webhook URL of `path` (absolute, percent-encoded, maybe with a query)."""
        if not path.startswith("/"):
            raise ValueError(f"path must start with /, got {path!r}")
        return self._http + path

    def ws(self, path: str) -> str:
        """Return the socket URL of `path`: wss for https, ws for http (loopback)."""
        return "ws" + self.http(path).removeprefix("http")


class SignatureChecker:
    """Checks every request that claims to come from Twilio."""

    def __init__(self, auth_token: str, address: PublicAddress) -> None:
        """Create a checker.

        Args:
            auth_token: The account's primary auth token; an API key's secret signs nothing.
            address: What Twilio was told to call.

        Raises:
            ValueError: If the token is empty: anyone could sign.
        """
        if not auth_token:
            raise ValueError("auth_token must not be empty")
        self._validator = RequestValidator(auth_token)
        self._address = address

    def check_webhook(
        self, *, path_and_query: str, content_type: str | None, body: bytes, signature: str | None
    ) -> SignatureCheck:
        """Check a GET or POST webhook.

        Args:
            path_and_query: As received, still percent-encoded, e.g. `/twilio/voice?a=%2B1`.
            content_type: Header value, or None.
            body: The raw body, empty for GET.
            signature: Header `X-Twilio-Signature`, or None.

        Returns:
            The verdict; when valid, `fields` holds the form's fields (a GET's: the query's).
        """
        if not signature:
            return _refused(SignatureVerdict.MISSING_HEADER)
        if len(body) > MAX_BODY_BYTES:
            return _refused(SignatureVerdict.OVERSIZED_BODY)
        url = self._address.http(path_and_query)
        query = urlsplit(url).query
        if body and not _is_form(content_type):
            return self._check_hashed_body(url, query, body, signature)
        try:
            form = _parse_form(body)
            fields = form or _parse_form(query.encode())
        except ValueError:
            return _refused(SignatureVerdict.MALFORMED_BODY)
        if not self._is_signed(_spellings(url), form, signature):
            return _refused(SignatureVerdict.MISMATCH)
        return SignatureCheck(SignatureVerdict.VALID, fields)

    def check_upgrade(self, *, path: str, signature: str | None) -> SignatureVerdict:
        """Check the media socket's upgrade request, signed over the `wss` URL of the TwiML, without fields.

        Args:
            path: As received, without query (Twilio sends none).
            signature: Header `X-Twilio-Signature`, or None.
        """
        if not signature:
            return SignatureVerdict.MISSING_HEADER
        url = self._address.ws(path)
        # Twilio's advice: try the URL with a slash behind it when it fails without.
        spellings = [*_spellings(url), *_spellings(url + "/")]
        is_signed = self._is_signed(spellings, FormFields(), signature)
        return SignatureVerdict.VALID if is_signed else SignatureVerdict.MISMATCH

    def _check_hashed_body(self, url: str, query: str, body: bytes, signature: str) -> SignatureCheck:
        """Check a JSON body: its hash stands in the query, and the signature covers the URL alone."""
        claimed_hash = parse_qs(query).get("bodySHA256")
        if claimed_hash is None:
            return _refused(SignatureVerdict.UNSIGNED_BODY)
        if not _is_equal(hashlib.sha256(body).hexdigest(), claimed_hash[0].lower()):
            return _refused(SignatureVerdict.BODY_HASH_MISMATCH)
        if not self._is_signed(_spellings(url), FormFields(), signature):
            return _refused(SignatureVerdict.MISMATCH)
        return SignatureCheck(SignatureVerdict.VALID, FormFields())

    def _is_signed(self, urls: list[str], fields: FormFields, signature: str) -> bool:
        is_signed = False
        for url in urls:  # all of them, always: the time taken tells nothing
            is_signed |= _is_equal(self._validator.compute_signature(url, fields), signature)
        return is_signed


def _require_plain_http(parts: SplitResult) -> None:
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("public_url must be http(s)://host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("public_url must not hold a user or password")
    if parts.query or parts.fragment:
        raise ValueError("public_url must not have a query or fragment")
    if parts.port == 0:
        raise ValueError("public_url must not have port 0")


def _spellings(url: str) -> list[str]:
    """Return `url` as it is, and with its scheme's default port added or any port taken away.

    Twilio is not consistent about ports. RequestValidator's own attempt gets `wss` wrong (it adds 80) and cuts
    an IPv6 host at its first colon.
    """
    parts = urlsplit(url)
    head = f"{parts.scheme}://"
    host = parts.netloc.removesuffix(f":{parts.port}")
    other = host if parts.port is not None else f"{host}:{_DEFAULT_PORTS[parts.scheme]}"
    return [url, head + other + url.removeprefix(head + parts.netloc)]


def _is_form(content_type: str | None) -> bool:
    return content_type is not None and content_type.partition(";")[0].strip().lower() == _FORM


def _parse_form(body: bytes) -> FormFields:
    """Parse a form, keeping empty values, which are signed too.

    Raises:
        ValueError: If it is not ASCII, not UTF-8 once decoded, or has too many fields.
    """
    pairs = parse_qsl(
        body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS
    )
    return FormFields(tuple(pairs))


def _is_equal(expected: str, given: str) -> bool:
    """Compare in constant time; `given` may hold anything a header can."""
    return hmac.compare_digest(expected.encode(), given.encode(errors="replace"))


def _refused(verdict: SignatureVerdict) -> SignatureCheck:
    return SignatureCheck(verdict, FormFields())

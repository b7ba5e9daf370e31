"""What an exception of a model vendor's client means for the attempt that it ended. The one place that knows both SDKs.

Source: anthropic 1.17 and openai 3.52, `_exceptions.py`, which share their shape; the vendors' lists of error codes.
"""

from collections.abc import Mapping
from typing import Any, cast

import anthropic
import httpx2
import openai
from pipecat.adapters.llm.base_llm_adapter import LLMContextConversionError

from processors.llm_attempts import Failure
from processors.llm_guard import VendorError

_BY_STATUS: Mapping[int, Failure] = {
    400: Failure.REJECTED,
    401: Failure.UNAUTHORIZED,
    402: Failure.UNAUTHORIZED,
    403: Failure.UNAUTHORIZED,
    404: Failure.UNAUTHORIZED,
    408: Failure.SERVER_ERROR,
    409: Failure.SERVER_ERROR,
    412: Failure.UNAUTHORIZED,  # Fireworks: the account is suspended
    429: Failure.RATE_LIMITED,
    498: Failure.OVERLOADED,  # Groq: no flex capacity
    503: Failure.OVERLOADED,
    529: Failure.OVERLOADED,
}
_IN_STREAM: Mapping[str, Failure] = {
    "overloaded_error": Failure.OVERLOADED,
    "rate_limit_error": Failure.RATE_LIMITED,
    "rate_limit_exceeded": Failure.RATE_LIMITED,
}
NEVER_S = 3600.0
"""For a pause that is told as a date: longer than any turn."""


def vendor_error(error: BaseException) -> VendorError:
    """Say what an exception means.

    Args:
        error: Raised by a vendor's client, or by Pipecat while it built a request or read a stream.
    """
    if isinstance(error, anthropic.APIStatusError | openai.APIStatusError):
        return _by_status(error)
    if isinstance(error, anthropic.APITimeoutError | openai.APITimeoutError | TimeoutError):
        return VendorError(Failure.HANG)
    if isinstance(error, anthropic.APIConnectionError | openai.APIConnectionError):
        return VendorError(_by_transport(error.__cause__))
    if isinstance(error, httpx2.TransportError | OSError):
        return VendorError(_by_transport(error))
    if isinstance(error, LLMContextConversionError):
        return VendorError(Failure.REJECTED)
    if type(error) in (openai.APIError, anthropic.APIError):  # an error event in a stream
        return VendorError(_in_stream(error))
    return VendorError(Failure.GARBAGE)


def _by_status(error: anthropic.APIStatusError | openai.APIStatusError) -> VendorError:
    status = error.status_code
    if status < 400:  # an error event in a stream, which Anthropic's client gives the stream's status
        return VendorError(_in_stream(error))
    failure = _BY_STATUS.get(status, Failure.SERVER_ERROR if status >= 500 else Failure.REJECTED)
    if failure is Failure.RATE_LIMITED and "insufficient_quota" in str(error.body):
        failure = Failure.UNAUTHORIZED  # OpenAI: no credit, which no pause brings back
    return VendorError(failure, _retry_after_s(error.response.headers))


def _in_stream(error: BaseException) -> Failure:
    body: Any = getattr(error, "body", None)
    if isinstance(body, dict):
        told = cast(dict[str, Any], body)
        inner: Any = told.get("error", told)
        names = (str(inner.get("type")), str(inner.get("code"))) if isinstance(inner, dict) else ()
        for name in names:
            if name in _IN_STREAM:
                return _IN_STREAM[name]
    return Failure.SERVER_ERROR


def _by_transport(error: BaseException | None) -> Failure:
    if isinstance(error, httpx2.TimeoutException):
        return Failure.HANG
    if isinstance(error, httpx2.RemoteProtocolError) and "without sending a response" not in str(error):
        return Failure.CLOSED
    return Failure.CLOSED if isinstance(error, httpx2.ReadError) else Failure.REFUSED


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is not None:
            try:
                return max(0.0, float(value) / scale)
            except ValueError:
                return NEVER_S
    return None

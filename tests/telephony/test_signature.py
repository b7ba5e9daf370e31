"""Only what Twilio signed, over the URL we published, is let in. The SDK makes the signatures here."""

import base64
import hashlib
import hmac
import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from telephony.signature import (
    MAX_BODY_BYTES,
    PublicAddress,
    SignatureCheck,
    SignatureChecker,
    SignatureVerdict,
)

AUTH_TOKEN = "12345678901234567890123456789012"
PUBLIC_URL = "https://phone.example.com"
PATH = "/twilio/voice"
FORM_TYPE = "application/x-www-form-urlencoded; charset=UTF-8"
FIELDS = {
    "CallSid": "CA1",
    "From": "+15551230000",
    "FromCity": "",
    "CallerName": "José & Söhne",
    "Digits": "1 2",
}

SIGNER = RequestValidator(AUTH_TOKEN)
CHECKER = SignatureChecker(AUTH_TOKEN, PublicAddress(PUBLIC_URL))


def sign(url: str, fields: dict[str, str] | None = None, auth_token: str = AUTH_TOKEN) -> str:
    return RequestValidator(auth_token).compute_signature(url, fields or {})


def check_form(
    fields: dict[str, str], signature: str | None, *, path: str = PATH, checker: SignatureChecker = CHECKER
) -> SignatureCheck:
    body = urlencode(fields).encode()
    return checker.check_webhook(path_and_query=path, content_type=FORM_TYPE, body=body, signature=signature)


def test_a_signed_form_is_valid_and_gives_the_signed_fields_empty_ones_too() -> None:
    check = check_form(FIELDS, sign(PUBLIC_URL + PATH, FIELDS))
    assert check.is_valid
    assert dict(check.fields) == FIELDS


def test_our_verdict_does_not_rest_on_the_sdk_alone() -> None:
    text = PUBLIC_URL + PATH + "".join(name + FIELDS[name] for name in sorted(FIELDS))
    digest = hmac.digest(AUTH_TOKEN.encode(), text.encode(), "sha1")
    assert check_form(FIELDS, base64.b64encode(digest).decode()).is_valid


@pytest.mark.parametrize("signature", [None, ""], ids=["none", "empty"])
def test_no_header_is_its_own_reason(signature: str | None) -> None:
    assert check_form(FIELDS, signature).verdict is SignatureVerdict.MISSING_HEADER
    assert CHECKER.check_upgrade(path="/m", signature=signature) is SignatureVerdict.MISSING_HEADER


@pytest.mark.parametrize("signature", ["x", "ÿ" * 28, "\udcff", "=" * 28])
def test_a_header_of_junk_is_a_mismatch(signature: str) -> None:
    assert check_form(FIELDS, signature).verdict is SignatureVerdict.MISMATCH


def test_another_key_another_url_or_another_field_is_a_mismatch_and_no_field_is_given() -> None:
    for check in (
        check_form(FIELDS, sign(PUBLIC_URL + PATH, FIELDS, "0" * 32)),
        check_form(FIELDS, sign(PUBLIC_URL + "/twilio/status", FIELDS)),
        check_form(FIELDS, sign("http://phone.example.com" + PATH, FIELDS)),
        check_form(FIELDS | {"From": "+15550000000"}, sign(PUBLIC_URL + PATH, FIELDS)),
        check_form(FIELDS | {"Extra": ""}, sign(PUBLIC_URL + PATH, FIELDS)),
    ):
        assert check.verdict is SignatureVerdict.MISMATCH
        assert not check.fields


@pytest.mark.parametrize(
    ("public_url", "signed_host"),
    [
        ("https://phone.example.com", "https://phone.example.com:443"),
        ("https://phone.example.com:443", "https://phone.example.com"),
        ("https://phone.example.com:8443", "https://phone.example.com:8443"),
        ("https://phone.example.com:8443", "https://phone.example.com"),
        ("http://127.0.0.1:7860", "http://127.0.0.1:7860"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]"),
        ("https://h", "https://h:443"),
        ("https://phone.example.com/", "https://phone.example.com"),
        ("https://phone.example.com/tenant/", "https://phone.example.com/tenant"),
    ],
)
def test_ports_and_slashes_of_the_public_address_may_be_spelt_either_way(
    public_url: str, signed_host: str
) -> None:
    checker = SignatureChecker(AUTH_TOKEN, PublicAddress(public_url))
    assert check_form(FIELDS, sign(signed_host + PATH, FIELDS), checker=checker).is_valid
    ws_host = "ws" + signed_host.removeprefix("http")
    assert checker.check_upgrade(path="/m", signature=sign(ws_host + "/m")) is SignatureVerdict.VALID


def test_the_query_stays_as_it_was_sent() -> None:
    path = PATH + "?to=%2B1850&empty=&q=a+b"
    assert check_form(FIELDS, sign(PUBLIC_URL + path, FIELDS), path=path).is_valid
    decoded = PATH + "?to=+1850&empty=&q=a b"
    assert not check_form(FIELDS, sign(PUBLIC_URL + decoded, FIELDS), path=path).is_valid


def test_a_get_is_signed_over_its_url_and_gives_the_query_as_fields() -> None:
    path = PATH + "?CallSid=CA1&From=%2B1555&FromCity="
    signature = sign(PUBLIC_URL + path)
    check = CHECKER.check_webhook(path_and_query=path, content_type=None, body=b"", signature=signature)
    assert check.is_valid
    assert dict(check.fields) == {"CallSid": "CA1", "From": "+1555", "FromCity": ""}


def test_fields_of_one_name_are_all_signed_and_the_first_is_shown() -> None:
    url = PUBLIC_URL + PATH
    text = url + "Aone" + "Atwo" + "Bx"
    signature = base64.b64encode(hmac.digest(AUTH_TOKEN.encode(), text.encode(), "sha1")).decode()
    body = b"A=two&B=x&A=one&A=two"
    check = CHECKER.check_webhook(path_and_query=PATH, content_type=FORM_TYPE, body=body, signature=signature)
    assert check.is_valid
    assert (check.fields["A"], check.fields.getall("A")) == ("two", ["two", "one", "two"])


def check_json(body: bytes, path: str) -> SignatureVerdict:
    signature = sign(PUBLIC_URL + path)
    return CHECKER.check_webhook(
        path_and_query=path, content_type="application/json", body=body, signature=signature
    ).verdict


def test_a_json_body_is_tied_to_the_url_by_its_hash() -> None:
    body = json.dumps({"status": "ok"}).encode()
    path = "/twilio/status?bodySHA256=" + hashlib.sha256(body).hexdigest()
    assert check_json(body, path) is SignatureVerdict.VALID
    assert SIGNER.validate(PUBLIC_URL + path, body.decode(), sign(PUBLIC_URL + path))
    assert check_json(body + b" ", path) is SignatureVerdict.BODY_HASH_MISMATCH
    assert check_json(body, "/twilio/status") is SignatureVerdict.UNSIGNED_BODY
    assert check_json(body, "/twilio/status?bodySHA256=") is SignatureVerdict.UNSIGNED_BODY
    assert check_json(b"\xff\xfe", path) is SignatureVerdict.BODY_HASH_MISMATCH


def test_a_form_cannot_pass_for_json_to_escape_the_check_of_its_fields() -> None:
    body = urlencode(FIELDS | {"From": "+15550000000"}).encode()
    for content_type in (None, "text/plain", "application/json"):
        check = CHECKER.check_webhook(
            path_and_query=PATH, content_type=content_type, body=body, signature=sign(PUBLIC_URL + PATH)
        )
        assert check.verdict is SignatureVerdict.UNSIGNED_BODY


@pytest.mark.parametrize(
    "body", [b"A=\xc3\xa9", b"A=%ff", b"&".join([b"A=1"] * 300)], ids=["raw", "not utf-8", "300 fields"]
)
def test_a_form_that_cannot_be_read_is_malformed(body: bytes) -> None:
    check = CHECKER.check_webhook(path_and_query=PATH, content_type=FORM_TYPE, body=body, signature="x")
    assert check.verdict is SignatureVerdict.MALFORMED_BODY


def test_a_huge_body_is_not_even_hashed() -> None:
    body = b"A=" + b"x" * MAX_BODY_BYTES
    check = CHECKER.check_webhook(path_and_query=PATH, content_type=FORM_TYPE, body=body, signature="x")
    assert check.verdict is SignatureVerdict.OVERSIZED_BODY


@pytest.mark.parametrize(
    ("signed_url", "verdict"),
    [
        ("wss://phone.example.com/twilio/media", SignatureVerdict.VALID),
        ("wss://phone.example.com/twilio/media/", SignatureVerdict.VALID),
        ("https://phone.example.com/twilio/media", SignatureVerdict.MISMATCH),
        ("ws://phone.example.com/twilio/media", SignatureVerdict.MISMATCH),
        ("wss://evil.example.com/twilio/media", SignatureVerdict.MISMATCH),
    ],
)
def test_the_upgrade_is_signed_over_the_socket_url(signed_url: str, verdict: SignatureVerdict) -> None:
    assert CHECKER.check_upgrade(path="/twilio/media", signature=sign(signed_url)) is verdict


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=10))
def test_whatever_fields_twilio_adds_the_sdk_and_we_agree(fields: dict[str, str]) -> None:
    signature = sign(PUBLIC_URL + PATH, fields)
    check = check_form(fields, signature)
    assert SIGNER.validate(PUBLIC_URL + PATH, fields, signature)
    assert check.is_valid
    assert dict(check.fields) == fields


@given(
    path=st.text(st.characters(codec="ascii"), max_size=20),
    content_type=st.none() | st.just(FORM_TYPE) | st.text(max_size=20),
    body=st.binary(max_size=50),
    signature=st.none() | st.text(st.characters(codec=None), max_size=40),
)
def test_no_forged_request_is_valid_or_raises(
    path: str, content_type: str | None, body: bytes, signature: str | None
) -> None:
    check = CHECKER.check_webhook(
        path_and_query="/" + path, content_type=content_type, body=body, signature=signature
    )
    assert not check.is_valid
    assert CHECKER.check_upgrade(path="/" + path, signature=signature) is not SignatureVerdict.VALID


@pytest.mark.parametrize(
    "url",
    [
        "phone.example.com",
        "wss://phone.example.com",
        "https://",
        "https://user:secret@phone.example.com",
        "https://phone.example.com?x=1",
        "https://phone.example.com#f",
        "https://phone.example.com:0",
        "https://phone.example.com:http",
        "https://[::1",
    ],
)
def test_an_address_that_could_never_match_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        PublicAddress(url)
    assert "secret" not in str(refusal.value)


def test_an_empty_token_would_let_anyone_sign() -> None:
    with pytest.raises(ValueError, match="auth_token"):
        SignatureChecker("", PublicAddress(PUBLIC_URL))


def test_the_public_address_makes_both_kinds_of_url() -> None:
    address = PublicAddress("http://127.0.0.1:7860")
    assert address.http("/twilio/voice?a=1") == "http://127.0.0.1:7860/twilio/voice?a=1"
    assert address.ws("/twilio/media") == "ws://127.0.0.1:7860/twilio/media"
    with pytest.raises(ValueError, match="start with /"):
        address.http("twilio")

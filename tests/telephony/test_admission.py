"""Slots are never oversold or lost, and a token opens one media socket, of its call, once, in time."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from telephony.admission import (
    MAX_TOKEN_CHARS,
    Admission,
    AdmissionVerdict,
    Admitted,
    ClaimVerdict,
    Expiry,
    FileClaimLedger,
    MediaToken,
    MemoryClaimLedger,
    Refused,
    derive_secret,
    sign_token,
    verify_token,
)

SECRET = derive_secret("0123456789abcdef")
NOW_S = 1_800_000_000.0
CALL = "CA" + "1" * 32
REPOSITORY = Path(__file__).parents[2]


def admission(**changes: object) -> Admission:
    arguments: dict[str, object] = {"max_calls": 2, "secret": SECRET}
    return Admission(**arguments | changes)  # pyright: ignore[reportArgumentType] - built from keywords


def token_of(answer: Admitted | Refused) -> str:
    assert isinstance(answer, Admitted), answer
    return answer.token


def test_a_call_is_reserved_claimed_and_released() -> None:
    slots = admission()
    answer = slots.reserve(CALL, "reception", NOW_S)
    assert isinstance(answer, Admitted)
    assert (answer.expires_at_s, answer.is_repeated) == (NOW_S + 60, False)
    assert (slots.reserved_calls, slots.live_calls) == (1, 0)
    claim = slots.claim(answer.token, CALL, NOW_S + 1)
    assert (claim.is_accepted, claim.agent, claim.is_reserved_here) == (True, "reception", True)
    assert (slots.reserved_calls, slots.live_calls) == (0, 1)
    slots.release(CALL)
    slots.release(CALL)
    assert (slots.reserved_calls, slots.live_calls) == (0, 0)


def test_the_same_webhook_again_gets_the_same_admission_and_takes_no_second_slot() -> None:
    slots = admission(max_calls=1)
    first = slots.reserve(CALL, "reception", NOW_S)
    slots.drain()
    again = slots.reserve(CALL, "reception", NOW_S + 14)
    assert token_of(again) == token_of(first)
    assert isinstance(again, Admitted)
    assert again.is_repeated
    assert slots.reserved_calls == 1


def test_reserved_and_live_calls_fill_the_slots_and_a_release_frees_one() -> None:
    slots = admission(max_calls=2)
    slots.claim(token_of(slots.reserve("CA1", "a", NOW_S)), "CA1", NOW_S)
    slots.reserve("CA2", "a", NOW_S)
    assert slots.reserve("CA3", "a", NOW_S) == Refused(AdmissionVerdict.FULL)
    slots.release("CA1")
    assert isinstance(slots.reserve("CA3", "a", NOW_S), Admitted)
    assert slots.reserve("CA4", "a", NOW_S) == Refused(AdmissionVerdict.FULL)


def test_reasons_to_refuse() -> None:
    slots = admission()
    assert slots.reserve(CALL, None, NOW_S) == Refused(AdmissionVerdict.UNKNOWN_NUMBER)
    slots.claim(token_of(slots.reserve(CALL, "a", NOW_S)), CALL, NOW_S)
    assert slots.reserve(CALL, "a", NOW_S) == Refused(AdmissionVerdict.DUPLICATE)
    slots.drain()
    assert slots.is_draining
    assert slots.reserve("CA2", "a", NOW_S) == Refused(AdmissionVerdict.DRAINING)
    assert slots.admissions == {
        AdmissionVerdict.UNKNOWN_NUMBER: 1,
        AdmissionVerdict.ADMITTED: 1,
        AdmissionVerdict.DUPLICATE: 1,
        AdmissionVerdict.DRAINING: 1,
    }


def test_a_call_let_in_before_the_drain_may_still_connect() -> None:
    slots = admission()
    token = token_of(slots.reserve(CALL, "a", NOW_S))
    slots.drain()
    assert slots.claim(token, CALL, NOW_S).is_accepted


def test_a_token_opens_only_its_own_call_once_and_in_time() -> None:
    slots = admission()
    token = token_of(slots.reserve(CALL, "a", NOW_S))
    expected = [
        (None, CALL, NOW_S, ClaimVerdict.MISSING),
        ("", CALL, NOW_S, ClaimVerdict.MISSING),
        ("nonsense", CALL, NOW_S, ClaimVerdict.MALFORMED),
        ("ä" + token, CALL, NOW_S, ClaimVerdict.MALFORMED),
        (token + "x" * MAX_TOKEN_CHARS, CALL, NOW_S, ClaimVerdict.MALFORMED),
        ("A" + token, CALL, NOW_S, ClaimVerdict.FORGED),
        (token + "=", CALL, NOW_S, ClaimVerdict.FORGED),
        (token[:-1], CALL, NOW_S, ClaimVerdict.FORGED),
        (token, "CA2", NOW_S, ClaimVerdict.WRONG_CALL),
        (token, CALL, NOW_S + 60, ClaimVerdict.EXPIRED),
        (token, CALL, NOW_S + 59, ClaimVerdict.ACCEPTED),
        (token, CALL, NOW_S + 59, ClaimVerdict.REUSED),
    ]
    for text, call_sid, now_s, verdict in expected:
        assert slots.claim(text, call_sid, now_s).verdict is verdict
    slots.release(CALL)
    assert slots.claim(token, CALL, NOW_S + 59).verdict is ClaimVerdict.REUSED
    assert slots.claims[ClaimVerdict.FORGED] == 3
    assert slots.claims.total() == len(expected) + 1
    assert slots.live_calls == 0


def test_another_deployment_s_token_is_forged() -> None:
    token = token_of(admission(secret=derive_secret("another")).reserve(CALL, "a", NOW_S))
    assert admission().claim(token, CALL, NOW_S).verdict is ClaimVerdict.FORGED


def test_a_reservation_nobody_claims_frees_its_slot_and_is_named_once() -> None:
    slots = admission(max_calls=1)
    token = token_of(slots.reserve(CALL, "a", NOW_S))
    assert slots.expire(NOW_S + 59) == {}
    assert isinstance(
        slots.reserve("CA2", "a", NOW_S + 60), Admitted
    )  # free at once, not only when expire() runs
    assert slots.expire(NOW_S + 60) == {CALL: Expiry.TIME_OVER}
    assert slots.expire(NOW_S + 60) == {}
    assert slots.claim(token, CALL, NOW_S + 60).verdict is ClaimVerdict.EXPIRED


def test_asking_again_after_the_time_is_over_gives_a_new_token_for_what_is_still_prepared() -> None:
    slots = admission(max_calls=1)
    old = token_of(slots.reserve(CALL, "a", NOW_S))
    answer = slots.reserve(CALL, "a", NOW_S + 61)
    assert token_of(answer) != old
    assert isinstance(answer, Admitted)
    assert answer.is_repeated
    assert slots.expire(NOW_S + 61) == {}
    assert slots.claim(answer.token, CALL, NOW_S + 62).is_reserved_here


def test_a_call_that_ends_before_its_media_came_takes_its_token_with_it() -> None:
    slots = admission()
    token = token_of(slots.reserve(CALL, "a", NOW_S))
    slots.release(CALL)
    assert slots.claim(token, CALL, NOW_S).verdict is ClaimVerdict.REUSED


def test_a_call_may_come_back_after_it_was_released() -> None:
    slots = admission()
    for _ in range(3):
        assert slots.claim(token_of(slots.reserve(CALL, "a", NOW_S)), CALL, NOW_S).is_accepted
        slots.release(CALL)


@pytest.fixture
def workers(tmp_path: Path) -> tuple[Admission, Admission]:
    """Two workers of one deployment, as far as they know of each other: the secret and a directory."""
    first, second = (admission(max_calls=1, ledger=FileClaimLedger(tmp_path / "claims")) for _ in range(2))
    return first, second


def test_a_media_socket_may_land_in_another_worker_and_the_first_lets_go(
    workers: tuple[Admission, Admission],
) -> None:
    first, second = workers
    token = token_of(first.reserve(CALL, "reception", NOW_S))
    claim = second.claim(token, CALL, NOW_S + 1)
    assert (claim.is_accepted, claim.agent, claim.is_reserved_here) == (True, "reception", False)
    assert second.reserve("CA2", "a", NOW_S + 1) == Refused(AdmissionVerdict.FULL)
    assert first.claim(token, CALL, NOW_S + 1).verdict is ClaimVerdict.REUSED
    assert first.expire(NOW_S + 1) == {CALL: Expiry.TAKEN}
    assert first.reserved_calls == 0


def test_a_token_carries_the_callers_number_to_whichever_worker_claims_it(
    workers: tuple[Admission, Admission],
) -> None:
    first, second = workers
    token = token_of(first.reserve(CALL, "reception", NOW_S, caller="+15550001111"))
    assert second.claim(token, CALL, NOW_S + 1).caller == "+15550001111"


@pytest.mark.parametrize(
    "caller", ["", "sip:" + "x" * 400, "+1555\n0001111"], ids=["none", "long", "line break"]
)
def test_a_number_that_cannot_stand_in_a_token_is_left_out_and_the_call_comes_in(caller: str) -> None:
    slots = admission()
    claim = slots.claim(token_of(slots.reserve(CALL, "reception", NOW_S, caller=caller)), CALL, NOW_S)
    assert (claim.is_accepted, claim.caller) == (True, "")


def test_a_call_that_ends_here_after_another_worker_took_it_is_told_apart(
    workers: tuple[Admission, Admission],
) -> None:
    first, second = workers
    second.claim(token_of(first.reserve(CALL, "a", NOW_S)), CALL, NOW_S)
    assert first.release(CALL) is True
    assert first.release(CALL) is False
    assert second.release(CALL) is False


def test_a_withdrawn_token_is_dead_in_every_worker(workers: tuple[Admission, Admission]) -> None:
    first, second = workers
    token = token_of(first.reserve(CALL, "a", NOW_S))
    first.release(CALL)
    assert second.claim(token, CALL, NOW_S).verdict is ClaimVerdict.REUSED


def test_a_webhook_sent_to_two_workers_opens_one_socket_while_the_call_lives_and_after(
    workers: tuple[Admission, Admission],
) -> None:
    first, second = workers
    token, other = (token_of(worker.reserve(CALL, "a", NOW_S)) for worker in workers)
    claim = second.claim(token, CALL, NOW_S)
    assert (claim.is_accepted, claim.is_reserved_here) == (True, True)
    second.release(CALL)
    assert second.claim(other, CALL, NOW_S).verdict is ClaimVerdict.REUSED
    assert first.expire(NOW_S) == {CALL: Expiry.TAKEN}


def test_a_second_token_for_a_live_call_is_a_duplicate(workers: tuple[Admission, Admission]) -> None:
    first, second = workers
    token, other = (token_of(worker.reserve(CALL, "a", NOW_S)) for worker in workers)
    assert first.claim(token, CALL, NOW_S).is_accepted
    assert first.claim(other, CALL, NOW_S).verdict is ClaimVerdict.DUPLICATE
    assert first.live_calls == 1
    assert second.expire(NOW_S + 60) == {CALL: Expiry.TIME_OVER}


CLAIM_ALL = """
import sys
from pathlib import Path
from telephony.admission import Admission, FileClaimLedger, derive_secret

directory, secret, now_s = Path(sys.argv[1]), derive_secret(sys.argv[2]), float(sys.argv[3])
slots = Admission(max_calls=1, secret=secret, ledger=FileClaimLedger(directory / "claims"))
tokens = (directory / "tokens").read_text().splitlines()
print("ready", flush=True)
sys.stdin.readline()  # both start together
for number, token in enumerate(tokens):
    if slots.claim(token, f"CA{number}", now_s).is_accepted:
        print(number, flush=True)
"""


@pytest.mark.real_time
def test_of_two_processes_that_race_for_each_token_exactly_one_gets_it(tmp_path: Path) -> None:
    count = 500
    issuer = admission(max_calls=count)
    tokens = [token_of(issuer.reserve(f"CA{number}", "a", NOW_S)) for number in range(count)]
    (tmp_path / "tokens").write_text("\n".join(tokens))
    command = [sys.executable, "-c", CLAIM_ALL, str(tmp_path), "0123456789abcdef", str(NOW_S)]
    racers = [
        subprocess.Popen(  # noqa: S603 - the program above
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        for _ in range(2)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        won = [[int(line) for line in racer.communicate(timeout=50)[0].split()] for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait(timeout=5)
    assert sorted(won[0] + won[1]) == list(range(count))


def test_markers_are_swept_once_their_tokens_have_expired(tmp_path: Path) -> None:
    ledger = FileClaimLedger(tmp_path)
    (tmp_path / "README").touch()
    early, late = MediaToken("CA1", "a", 100, "n1"), MediaToken("CA2", "a", 200, "n2")
    assert ledger.claim(early)
    assert ledger.claim(late)
    ledger.sweep(150.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["200.n2", "README"]
    assert (ledger.is_claimed(early), ledger.is_claimed(late)) == (False, True)
    ledger.sweep(160.0)
    (tmp_path / "0.n0").touch()
    ledger.sweep(179.0)  # too soon to look again
    assert (tmp_path / "0.n0").exists()
    ledger.sweep(1000.0)
    assert [path.name for path in tmp_path.iterdir()] == ["README"]


def test_a_directory_that_vanished_keeps_no_caller_out(tmp_path: Path) -> None:
    ledger = FileClaimLedger(tmp_path / "claims")
    (tmp_path / "claims").rmdir()
    slots = admission(ledger=ledger)
    token = token_of(slots.reserve(CALL, "a", NOW_S))
    assert slots.claim(token, CALL, NOW_S).is_accepted
    slots.release(CALL)
    assert slots.claim(token, CALL, NOW_S).verdict is ClaimVerdict.REUSED
    assert slots.expire(NOW_S) == {}


def test_the_memory_ledger_forgets_what_has_expired() -> None:
    ledger = MemoryClaimLedger()
    token = MediaToken("CA1", "a", 100, "n1")
    assert ledger.claim(token)
    assert not ledger.claim(token)
    ledger.sweep(100.0)
    assert ledger.is_claimed(token)
    ledger.sweep(101.0)
    assert not ledger.is_claimed(token)


@given(
    call_sid=st.text(min_size=1, max_size=34).filter(lambda text: "\n" not in text),
    agent=st.text(min_size=1, max_size=30).filter(lambda text: "\n" not in text),
    expires_at_s=st.integers(0, 2**40),
    caller=st.text(max_size=20).filter(lambda text: "\n" not in text),
)
def test_every_token_reads_back_as_it_was_written(
    call_sid: str, agent: str, expires_at_s: int, caller: str
) -> None:
    token = MediaToken(call_sid, agent, expires_at_s, "n0nce", caller)
    assert verify_token(sign_token(token, SECRET), SECRET) == token


@given(st.data())
def test_no_change_to_a_token_leaves_it_valid(data: st.DataObject) -> None:
    text = sign_token(MediaToken(CALL, "a", 100, "n0nce"), SECRET)
    place = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.characters().filter(lambda other: other != text[place]))
    changed = text[:place] + character + text[place + 1 :]
    assert verify_token(changed, SECRET) in (ClaimVerdict.FORGED, ClaimVerdict.MALFORMED)


@given(st.text(st.characters(codec=None), max_size=80))
def test_no_text_is_taken_for_a_token(text: str) -> None:
    assert isinstance(verify_token(text, SECRET), ClaimVerdict)


@pytest.mark.parametrize(
    ("call_sid", "agent"),
    [("", "a"), ("CA1", ""), ("CA1\nCA2", "a"), ("CA1", "a" * 400)],
    ids=["no call", "no agent", "line break", "too long"],
)
def test_what_cannot_stand_in_a_token_is_refused_and_takes_no_slot(call_sid: str, agent: str) -> None:
    slots = admission()
    with pytest.raises(ValueError, match="must"):
        slots.reserve(call_sid, agent, NOW_S)
    assert slots.reserved_calls == 0


@pytest.mark.parametrize(
    "changes", [{"max_calls": 0}, {"token_lifetime_s": 0.5}, {"secret": b"short"}], ids=str
)
def test_an_admission_that_cannot_work_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        admission(**changes)


def test_an_empty_auth_token_makes_no_secret() -> None:
    with pytest.raises(ValueError, match="auth_token"):
        derive_secret("")


CALLS = st.sampled_from(["CA1", "CA2", "CA3", "CA4"])


class AdmissionMachine(RuleBasedStateMachine):
    """Any order of webhooks, sockets, endings and time, on one worker with two slots."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = admission(max_calls=2)
        self.now_s = NOW_S
        self.tokens: dict[str, str] = {}
        self.used: set[str] = set()
        self.live: set[str] = set()

    @rule(call_sid=CALLS)
    def reserve(self, call_sid: str) -> None:
        answer = self.slots.reserve(call_sid, "a", self.now_s)
        if isinstance(answer, Admitted):
            assert call_sid not in self.live
            assert answer.token not in self.used
            assert answer.expires_at_s > self.now_s
            self.tokens[call_sid] = answer.token

    @rule(call_sid=CALLS)
    def claim(self, call_sid: str) -> None:
        token = self.tokens.get(call_sid)
        claim = self.slots.claim(token, call_sid, self.now_s)
        if claim.is_accepted:
            assert token is not None
            assert token not in self.used
            self.used.add(token)
            self.live.add(call_sid)

    @rule(call_sid=CALLS)
    def release(self, call_sid: str) -> None:
        self.slots.release(call_sid)
        self.live.discard(call_sid)

    @rule(pause_s=st.sampled_from([0.5, 10.0, 59.0, 61.0]))
    def wait(self, pause_s: float) -> None:
        self.now_s += pause_s

    @rule()
    def expire(self) -> None:
        for call_sid in self.slots.expire(self.now_s):
            assert call_sid not in self.live

    @invariant()
    def no_slot_is_oversold_or_lost(self) -> None:
        assert self.slots.live_calls == len(self.live) <= 2


test_admission_machine = AdmissionMachine.TestCase
test_admission_machine.settings = settings(max_examples=40, stateful_step_count=30)


def test_a_call_that_was_cut_gets_in_again_without_room_and_while_draining() -> None:
    slots = admission(max_calls=1)
    slots.claim(token_of(slots.reserve(CALL, "reception", NOW_S, caller="+15550001111")), CALL, NOW_S)
    slots.drain()
    again = slots.readmit(CALL, "reception", NOW_S + 5, caller="+15550001111")
    claim = slots.claim(again, CALL, NOW_S + 6, is_resumed=True)
    assert (claim.is_accepted, claim.agent, claim.caller) == (True, "reception", "+15550001111")
    assert slots.live_calls == 1
    assert slots.claim(again, CALL, NOW_S + 7, is_resumed=True).verdict is ClaimVerdict.REUSED
    slots.release(CALL)
    assert slots.live_calls == 0


def test_a_token_for_another_line_is_good_in_any_worker_and_once() -> None:
    first, second = admission(), admission()
    token = first.readmit(CALL, "reception", NOW_S)
    assert first.reserved_calls == 0
    assert second.claim(token, CALL, NOW_S + 1, is_resumed=True).is_accepted
    assert second.claim(token, "CA" + "2" * 32, NOW_S + 1, is_resumed=True).verdict is ClaimVerdict.WRONG_CALL
    late = first.readmit(CALL, "reception", NOW_S)
    assert second.claim(late, CALL, NOW_S + 61, is_resumed=True).verdict is ClaimVerdict.EXPIRED


def test_who_does_not_say_that_a_line_is_another_one_is_a_duplicate() -> None:
    slots = admission()
    slots.claim(token_of(slots.reserve(CALL, "reception", NOW_S)), CALL, NOW_S)
    again = slots.readmit(CALL, "reception", NOW_S)
    assert slots.claim(again, CALL, NOW_S + 1).verdict is ClaimVerdict.DUPLICATE

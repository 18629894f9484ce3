"""The handshake over real sockets: who may come in, and every way to cheat that we know of."""

from __future__ import annotations

import json
import random

import pytest

from nbps.errors import ConnectionLostError, TransportError
from nbps.transport.mesh.handshake import PROTOCOL, Accepting, Connecting, Refusal
from support.meeting import hello, meet, note, pair, receive, run

SECRET = b"the secret of the job"


def admit_all(_hello):
    return None


def raw_hello(**other):
    """Return what node 1 says first, or an impostor."""
    fields = {
        "protocol": PROTOCOL, "version": "1.0", "job": "job", "nodes": 3, "rank": 1, "incarnation": 5, "join": False,
        "farewell": "",         "nonce": "ab" * 32,
    }  # fmt: skip
    return json.dumps(fields | other).encode()


def accepting(connection, admit=admit_all, secret=SECRET, **other):
    return Accepting(connection, hello(0, **other), secret, admit)


def connecting(connection, secret=SECRET, **other):
    return Connecting(connection, hello(1, **other), secret, 0)


def advance(handshake):
    """Have one end take the frame that was just sent to it."""
    before = handshake._next
    while handshake._next is before:
        handshake.advance()


@pytest.mark.parametrize("secret", [SECRET, b"", b"x" * 1000])
def test_two_nodes_of_a_job_know_each_other(secret):
    """Each end has the other's hello, and frames of the job follow on the same connection."""
    with pair() as (first, second):
        one, other = connecting(first, secret), accepting(second, secret=secret)
        assert meet(one, other) == [None, None]
        assert (one.peer, other.peer) == (hello(0), hello(1))
        first.send(b"frame")
        assert receive(second) == b"frame"


def test_nothing_after_the_handshake_is_taken_for_it():
    """What the other end sends right after its last frame is left for whoever uses the connection."""
    with pair() as (first, second):
        one, other = connecting(first), accepting(second)
        assert meet(one, other) == [None, None]
        second.send(b"first")
        second.send(b"second")
        assert one.advance()
        assert [receive(first), receive(first)] == [b"first", b"second"]


@pytest.mark.parametrize(("mine", "theirs"), [(b"wrong", SECRET), (b"", SECRET), (SECRET, b"")])
def test_a_wrong_secret_is_refused_and_both_ends_say_so(mine, theirs):
    """A secret on one side only is a wrong one too."""
    with pair() as (first, second):
        connected, accepted = meet(connecting(first, mine), accepting(second, secret=theirs))
        assert type(connected) is TransportError
        assert type(accepted) is TransportError
        assert "refused node 1: the secrets differ" in str(connected)
        assert "the secrets differ" in str(accepted)


def test_who_accepts_proves_itself_too():
    """A node at the address that does not know the secret is found out, though it lets everybody in."""
    with pair() as (first, second):
        one = connecting(first)
        receive(second)
        second.send(raw_hello(rank=0))
        one.advance()
        note(second)
        second.send(json.dumps({"proof": "00" * 32}).encode())
        assert "the secrets differ" in str(run(one))


def test_a_proof_sent_back_proves_nothing():
    """Reflection: the role is part of the proof."""
    with pair() as (first, second):
        one = connecting(first)
        receive(second)
        second.send(raw_hello(rank=0))
        one.advance()
        second.send(receive(second))
        assert "the secrets differ" in str(run(one))


def test_a_hello_sent_back_is_refused():
    """Who is told its own hello again is not at another node."""
    with pair() as (first, second):
        one = connecting(first)
        second.send(receive(second))
        assert "node 1 answers there, expected node 0" in str(run(one))


def recorded():
    """Everything both ends of a good handshake sent."""
    said = {"connects": [], "accepts": []}
    with pair() as (first, second), pair() as (third, fourth):
        one, other = connecting(first), accepting(fourth)
        for _ in range(2):
            said["connects"].append(receive(second))
            third.send(said["connects"][-1])
            advance(other)
            said["accepts"].append(receive(third))
            second.send(said["accepts"][-1])
            advance(one)
        assert one.advance()
        assert other.advance()
    return said


def test_a_replayed_node_is_refused():
    """What a node said once lets nobody in again: the nonce of who accepts is fresh."""
    said = recorded()
    with pair() as (first, second):
        for frame in said["connects"]:
            first.send(frame)
        assert "the secrets differ" in str(run(accepting(second)))


def test_a_replayed_acceptor_is_found_out():
    """Nor does it help to answer a node with what another one was answered."""
    said = recorded()
    with pair() as (first, second):
        for frame in said["accepts"]:
            second.send(frame)
        assert "the secrets differ" in str(run(connecting(first)))


CHANGES = [
    ("rank", 2),
    ("incarnation", 7),
    ("join", True),
    ("farewell", "gone"),
    ("nonce", "cd" * 32),
    ("how it is written", None),
]


# A node expects the rank to which it connects: another one is refused before the proof.
@pytest.mark.parametrize(
    ("end", "field", "value"),
    [("connects", *change) for change in CHANGES] + [("accepts", *change) for change in CHANGES[1:]],
)
def test_every_field_is_part_of_the_proof(end, field, value):
    """Somebody in between who changes one field of a hello, or only how it is written, is found out."""

    def changed(frame):
        fields = json.loads(frame)
        return json.dumps(fields | {field: value} if field in fields else fields, indent=1).encode()

    with pair() as (first, second), pair() as (third, fourth):
        one, other = connecting(first), accepting(fourth)
        frame = receive(second)
        third.send(changed(frame) if end == "connects" else frame)
        advance(other)
        frame = receive(third)
        second.send(changed(frame) if end == "accepts" else frame)
        advance(one)
        third.send(receive(second))
        assert "the secrets differ" in str(run(other))


def test_who_accepts_proves_nothing_to_strangers():
    """Before it has seen a proof it sends its hello only: there is nothing to try secrets on."""
    with pair() as (first, second):
        other = accepting(second)
        first.send(raw_hello())
        advance(other)
        answer = note(first)
        assert "proof" not in answer
        first.send(json.dumps({"proof": "00" * 32}).encode())
        assert isinstance(run(other), TransportError)
        assert note(first).keys() == {"refused", "again"}


def test_proofs_differ_every_time():
    """Fresh nonces: the same two nodes never say the same twice."""
    first, second = recorded(), recorded()
    for end in ("connects", "accepts"):
        assert set(first[end]).isdisjoint(second[end])


@pytest.mark.parametrize("version", ["1.1", "0.9", "2.0 \n\x1b[31m"])
def test_other_versions_are_named_on_both_sides(version):
    """Both versions are in the message, at both ends, without control characters."""
    with pair() as (first, second):
        outcomes = meet(connecting(first, version=version), accepting(second))
        for outcome in outcomes:
            assert type(outcome) is TransportError
            assert f"node 0 runs nbps 1.0 (protocol {PROTOCOL}), the other end nbps {version[:3]}" in str(outcome)
            assert str(outcome).isprintable()


def test_another_protocol_is_named_though_its_hello_is_unknown():
    """Of a later protocol only two keys are known; that is enough to say what is wrong."""
    with pair() as (first, second):
        first.send(json.dumps({"protocol": 99, "version": "7.0", "news": [1, 2]}).encode())
        assert "nbps 7.0 (protocol 99)" in str(run(accepting(second)))
        assert "nbps 7.0 (protocol 99); install one version" in note(first)["refused"]


def test_the_acceptors_version_counts_too():
    """A node that lets in another version is not accepted by it."""
    with pair() as (first, second):
        second.send(raw_hello(rank=0, version="0.5"))
        assert "the other end nbps 0.5" in str(run(connecting(first)))


def test_another_job_is_refused_by_name():
    """Both jobs are named, and trying again is no use."""
    with pair() as (first, second):
        connected, accepted = meet(connecting(first, job="other"), accepting(second))
        assert type(connected) is TransportError
        assert "node 0 belongs to job 'job', node 1 to job 'other'" in str(connected)
        assert "node 0 belongs to job 'job', node 1 to job 'other'" in str(accepted)


@pytest.mark.parametrize(
    ("mine", "theirs", "again"),
    [("fit/2", "fit/3", True), ("fit/3", "fit/2", True), ("fit/2", "sum/2", False), ("fit", "fit/1", False)],
)
def test_a_node_at_another_job_of_the_script_may_try_again(mine, theirs, again):
    """Jobs of one script follow each other; nodes get there at different times."""
    with pair() as (first, second):
        connected, _ = meet(connecting(first, job=mine), accepting(second, job=theirs))
        assert type(connected) is (ConnectionLostError if again else TransportError)
        assert ("not now" in str(connected)) == again


def test_other_numbers_of_nodes_are_refused():
    """Both numbers are named."""
    with pair() as (first, second):
        outcomes = meet(connecting(first, nodes=2), accepting(second))
        assert all("node 0 was started as one of 3 nodes, node 1 as one of 2" in str(outcome) for outcome in outcomes)


def test_only_higher_ranks_connect():
    """A node that has this rank, or a lower one, is refused."""
    for rank, reason in ((1, "node 1 was started twice"), (0, "only higher ranks do")):
        with pair() as (first, second):
            one, other = Connecting(first, hello(rank), SECRET, 1), Accepting(second, hello(1), SECRET, admit_all)
            assert all(reason in str(outcome) for outcome in meet(one, other))


def test_another_node_at_the_address_is_not_taken():
    """Who connects knows to whom: the rank, and the incarnation where the node is known."""
    with pair() as (first, second):
        one = Connecting(first, hello(2), SECRET, 1)
        assert "node 0 answers there, expected node 1" in str(meet(one, accepting(second))[0])
    with pair() as (first, second):
        one = Connecting(first, hello(2), SECRET, 0, incarnation=999)
        assert "node 0 was restarted" in str(meet(one, accepting(second))[0])
    with pair() as (first, second):
        one = Connecting(first, hello(2), SECRET, 0, incarnation=1000)
        assert meet(one, accepting(second)) == [None, None]


@pytest.mark.parametrize("again", [False, True])
def test_who_proved_itself_may_still_be_refused(again):
    """The last word is the mesh's, and it is only asked about nodes that know the secret."""
    asked = []

    def admit(peer):
        asked.append(peer.rank)
        return Refusal("full", again)

    with pair() as (first, second):
        connected, accepted = meet(connecting(first), accepting(second, admit))
        assert type(connected) is (ConnectionLostError if again else TransportError)
        assert "refused node 1: full" in str(connected)
        assert str(accepted) == "full"
    with pair() as (first, second):
        meet(connecting(first, b"wrong"), accepting(second, admit))
    assert asked == [1]


BAD_HELLOS = {
    "no JSON": b"hello",
    "nothing": b"",
    "no UTF-8": b'{"protocol": "\xff"}',
    "UTF-16": raw_hello().decode().encode("utf-16"),
    "a list": b"[1]",
    "a number": b"1",
    "deep": b"[" * 60_000,
    "deep objects": b'{"a":' * 10_000,
    "two documents": raw_hello() + raw_hello(),
    "a key twice": raw_hello()[:-1] + b', "rank": 1}',
    "NaN": raw_hello()[:-1] + b', "more": NaN}',
    "many digits": raw_hello()[:-1] + b', "more": ' + b"9" * 60_000 + b"}",
    "one key more": raw_hello(more=1),
    "one key less": json.dumps({"protocol": PROTOCOL, "version": "1.0"}).encode(),
    "no protocol": b"{}",
    "protocol as text": raw_hello(protocol="1"),
    "protocol as bool": raw_hello(protocol=True),
    "version as number": raw_hello(version=1),
    "job as list": raw_hello(job=["job"]),
    "rank as bool": raw_hello(rank=True),
    "rank as float": raw_hello(rank=1.0),
    "rank below 0": raw_hello(rank=-1),
    "rank too high": raw_hello(rank=3),
    "join as number": raw_hello(join=0),
    "incarnation below 0": raw_hello(incarnation=-1),
    "incarnation too high": raw_hello(incarnation=2**64),
    "short nonce": raw_hello(nonce="ab"),
    "long nonce": raw_hello(nonce="ab" * 33),
    "null": raw_hello(rank=None),
}


@pytest.mark.parametrize("raw", BAD_HELLOS.values(), ids=BAD_HELLOS.keys())
def test_what_is_no_hello_is_refused(raw):
    """Each way to write a bad hello: our error here, a short reason there."""
    with pair() as (first, second):
        first.send(raw)
        outcome = run(accepting(second))
        assert type(outcome) is TransportError
        assert len(str(outcome)) < 1000
        assert str(outcome).isprintable()
        assert note(first)["refused"] == str(outcome)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"proof": 1}', b'{"proof": "\\ud800"}', b'{"proof": "", "x": 1}'])
def test_what_is_no_proof_is_refused(raw):
    """Nor does anything else than a proof pass for one."""
    with pair() as (first, second):
        first.send(raw_hello())
        first.send(raw)
        assert type(run(accepting(second))) is TransportError


def test_a_frame_beyond_the_limit_ends_the_connection():
    """Before two nodes know each other, 64 KiB are the most that is taken."""
    with pair() as (first, second):
        first.send(b" " * ((1 << 16) + 1))
        outcome = run(accepting(second))
        assert type(outcome) is ConnectionLostError
        assert "65,537 bytes was announced" in str(outcome)


def test_an_end_that_goes_away_is_a_lost_connection():
    """Also in the middle: worth trying again, no refusal."""
    for frames in ([], [raw_hello()]):
        with pair() as (first, second):
            for frame in frames:
                first.send(frame)
            first.close()
            assert type(run(accepting(second))) is ConnectionLostError


def test_the_reason_of_a_refusal_is_printed_clean():
    """Somebody without a secret may send a refusal; it cannot play with the terminal, or fill the log."""
    with pair() as (first, second):
        second.send(json.dumps({"refused": "\x1b[2J\n" + "x" * 60_000, "again": False}).encode())
        outcome = run(connecting(first))
        assert str(outcome).isprintable()
        assert len(str(outcome)) < 3000


def test_thousands_of_changed_handshakes_are_refused():
    """Hellos and proofs with changed bytes: in, if nothing that counts changed; else our error and no other."""
    draw = random.Random(2)
    for _ in range(1000):
        with pair() as (first, second):
            frames = [bytearray(raw_hello()), bytearray(json.dumps({"proof": "00" * 32}).encode())]
            for frame in frames:
                for _ in range(draw.randint(0, 3)):
                    frame[draw.randrange(len(frame))] = draw.choice(b'{}[]",:0a\xff\x00')
                first.send(bytes(frame))
            first.close(linger=False)  # 40 ms otherwise, until the other machine acknowledges what it has
            assert isinstance(run(accepting(second)), TransportError)

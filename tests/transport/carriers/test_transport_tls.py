"""TLS: who is let in, what is said to who is not, and that nobody is held up by a handshake."""

from __future__ import annotations

import contextlib
import re
import select
import shutil
import socket
import ssl
import subprocess

import pytest

from nbps.errors import ConfigError
from nbps.testing.transport.ends import End, accepted, drive
from nbps.transport import Listener, Options, Tls, get_transport

tcp = get_transport("tcp")


@contextlib.contextmanager
def meeting(listening: Tls | None, connecting: Tls | None):
    """Give who connected and who listened, each with its files."""
    with (
        contextlib.closing(tcp.listen("127.0.0.1:0", Options(tls=listening))) as listener,
        contextlib.closing(tcp.connect(listener.address, Options(tls=connecting), 30)) as first,
        contextlib.closing(accepted(listener)) as second,
    ):
        yield End(first, [(b"hello",)]), End(second, [(b"hello",)])


def dial(listener: Listener) -> socket.socket:
    """Connect as somebody who is no node."""
    return socket.create_connection(("127.0.0.1", int(listener.address.rpartition(":")[2])))


def outcome(first: End, second: End) -> tuple[str, str]:
    """Drive both until both have ended, and return why."""
    drive(first, second, until=lambda: first.lost is not None and second.lost is not None)
    assert first.frames == second.frames == []
    return str(first.lost), str(second.lost)


def test_nodes_with_certificates_of_one_authority_talk(certificates):
    """Each has its own certificate; TLS is of version 1.3."""
    with meeting(certificates("one"), certificates("two")) as ends:
        drive(*ends, until=lambda: all(end.frames for end in ends))
        assert [end.frames[0].tobytes() for end in ends] == [b"hello", b"hello"]
        assert {end.connection._socket.version() for end in ends} == {"TLSv1.3"}


def test_a_certificate_of_another_authority_is_refused(certificates):
    """By who listens: there it says why, and who connected learns that it was not accepted."""
    wrong = certificates("two", "stranger")
    known = certificates("one")
    with meeting(known, Tls(wrong.certificate, wrong.key, known.authority)) as ends:
        there, here = outcome(*ends)
    assert "the certificate of the other end is not accepted here: unable to get local issuer certificate" in here
    assert "the other end does not accept our certificate or our TLS: tlsv1 alert unknown ca" in there


def test_a_listener_of_another_authority_is_refused(certificates):
    """By who connects; the listener learns that it was not accepted."""
    with meeting(certificates("one", "stranger"), certificates("two")) as ends:
        there, here = outcome(*ends)
    assert re.search("the certificate of the other end is not accepted here: (unable to get|self-signed)", there)
    assert "the other end does not accept our certificate or our TLS: tlsv1 alert unknown ca" in here


def test_tls_at_one_end_only_is_told_at_both(certificates):
    """Either end may be the one without."""
    both = "switch it on at both ends or at none"
    with meeting(certificates("one"), None) as ends:
        there, here = outcome(*ends)
        assert f"does not speak TLS 1.3: {both}" in here
        assert re.search(f"looks like TLS: {both}|other end is gone|closed it", there)
    with meeting(None, certificates("one")) as ends:
        there, here = outcome(*ends)
        assert f"looks like TLS: {both}" in here
        assert re.search("does not speak TLS|closed it within the TLS handshake: does it use TLS too|is gone", there)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "what arrived is not TLS, it looks like HTTP"),
        (b"\0" * 50, "does not speak TLS 1.3"),
        (b"", "closed it within the TLS handshake"),
    ],
)
def test_strangers_are_told_from_nodes(certificates, said, found):
    """On the port of a listener with TLS."""
    with (
        contextlib.closing(tcp.listen("127.0.0.1:0", Options(tls=certificates("one")))) as listener,
        dial(listener) as stranger,
        contextlib.closing(accepted(listener)) as connection,
    ):
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        end = End(connection)
        drive(end, until=lambda: end.lost is not None)
        assert found in end.lost


@pytest.mark.parametrize("fault", ["no certificate", "TLS 1.2"])
def test_a_client_that_is_no_node_is_refused(certificates, fault):
    """One that knows the authority but shows no certificate, and one with an old TLS."""
    files = certificates("one")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(files.authority)
    if fault == "TLS 1.2":
        context.load_cert_chain(files.certificate, files.key)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    with contextlib.closing(tcp.listen("127.0.0.1:0", Options(tls=files))) as listener:
        stranger = dial(listener)
        stranger.settimeout(None)
        with contextlib.closing(accepted(listener)) as connection, stranger:
            stranger.setblocking(False)
            client = context.wrap_socket(stranger, do_handshake_on_connect=False)
            end = End(connection)
            with client, contextlib.suppress(ssl.SSLError):
                while end.lost is None:
                    with contextlib.suppress(ssl.SSLWantReadError):
                        client.do_handshake()
                    end.turn()
                    select.select([client], [], [], 0.01)
            drive(end, until=lambda: end.lost is not None)
            assert re.search("peer did not return a certificate|does not speak TLS 1.3", end.lost)


def test_a_silent_client_holds_up_nobody(certificates):
    """It is accepted, says nothing, and others come and talk."""
    files = certificates("one")
    with contextlib.closing(tcp.listen("127.0.0.1:0", Options(tls=files))) as listener, dial(listener):
        silent = End(accepted(listener), [(b"anybody?",)])
        first = End(tcp.connect(listener.address, Options(tls=files), 30), [(b"hello",)])
        second = End(accepted(listener))
        drive(silent, first, second, until=lambda: bool(second.frames))
        assert not silent.connection.wants_write
        for end in (silent, first, second):
            end.connection.close()


def test_who_connected_may_wait_before_the_first_call(certificates):
    """Its first word went out when it connected, so that an answer wakes it."""
    with meeting(certificates("one"), certificates("two")) as (first, second):
        drive(second, until=lambda: bool(select.select([first.connection], [], [], 0)[0]))


def test_nothing_is_readable_on_the_way(certificates):
    """A relay between the two sees bytes of TLS, and not what they say."""
    secret = b"the factors of row 17" * 50
    with contextlib.closing(tcp.listen("127.0.0.1:0", Options(tls=certificates("one")))) as listener:
        with socket.create_server(("127.0.0.1", 0)) as door:
            files = certificates("two")
            first = tcp.connect(f"127.0.0.1:{door.getsockname()[1]}", Options(tls=files), 30)
            inside, _ = door.accept()
        outside = dial(listener)
        ends = End(first, [(secret,)]), End(accepted(listener))
        seen = b""
        with inside, outside:
            while not ends[1].frames:
                for end in ends:
                    end.turn()
                for source, target in ((inside, outside), (outside, inside)):
                    if select.select([source], [], [], 0.001)[0]:
                        seen += (data := source.recv(1 << 16))
                        target.sendall(data)
        assert ends[1].frames[0].tobytes() == secret
        assert seen.startswith(b"\x16\x03")
        assert secret[:20] not in seen
        for end in ends:
            end.connection.close()


def test_files_that_cannot_be_used_are_named(certificates, tmp_path):
    """A missing file, one that is no certificate, a key of another certificate, and one with a password."""
    good, other = certificates("one"), certificates("two")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    locked = tmp_path / "locked.key"
    openssl = shutil.which("openssl")
    command = [openssl, "ec", "-in", good.key, "-out", locked, "-aes256", "-passout", "pass:word"]
    subprocess.run(command, check=True, capture_output=True)
    for files, named in [
        (Tls(tmp_path / "absent", good.key, good.authority), "absent.*No such file"),
        (Tls(good.certificate, good.key, tmp_path / "absent"), "absent.*authority.*No such file"),
        (Tls(good.certificate, good.key, nonsense), "nonsense.pem cannot be read as the certificate of an authority"),
        (Tls(nonsense, good.key, good.authority), "nonsense.pem and .* cannot be read as a certificate and its key"),
        (Tls(good.certificate, other.key, good.authority), "key values mismatch"),
        (Tls(good.certificate, locked, good.authority), "locked.key .*the key is encrypted"),
    ]:
        for attempt in (
            lambda files=files: tcp.listen("127.0.0.1:0", Options(tls=files)),
            lambda files=files: tcp.connect("127.0.0.1:1", Options(tls=files), 0),
        ):
            with pytest.raises(ConfigError, match=named):
                attempt()


@pytest.mark.parametrize("name", ["inproc", "shm"])
def test_tls_is_refused_where_nothing_leaves_the_machine(certificates, name):
    """With the reason, and what to take instead."""
    with pytest.raises(ConfigError, match=f"{name} needs no TLS.*leave tls out, or take the transport tcp"):
        get_transport(name).listen("node-0", Options(tls=certificates("one")))

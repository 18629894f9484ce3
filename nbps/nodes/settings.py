"""Settings of the nodes that variables of ours give, whoever launched the process; among them the job's secret.

The secret may be in a file, which nobody else may be able to read. It never appears in a message.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbps.errors import ConfigError
from nbps.transport.interface import Tls

_BYTES_LIMIT = 4096
MAKE_ONE = 'python -c "import secrets; print(secrets.token_hex(32))"'
# Fields of `nbps.nodes.Nodes`, and of its `tls`.
VARIABLES = {
    "rendezvous": "NBPS_RENDEZVOUS",
    "transport": "NBPS_TRANSPORT",
    "job": "NBPS_JOB",
    "secret": "NBPS_SECRET",
    "bind": "NBPS_BIND",
    "certificate": "NBPS_TLS_CERT",
    "key": "NBPS_TLS_KEY",
    "authority": "NBPS_TLS_CA",
    "insecure": "NBPS_INSECURE",
}
_YES_OR_NO = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of `nbps.nodes.Nodes` that variables give.

    Raises
    ------
    ConfigError
        If one cannot be used: names the variable.
    """
    found: dict[str, Any] = {}
    for name in ("rendezvous", "transport", "job", "bind"):
        variable = VARIABLES[name]
        if variable in environ:
            if not environ[variable].strip():
                raise ConfigError(f"{variable} is empty; unset it, or give it a value")
            found[name] = environ[variable].strip()
    if "NBPS_SECRET" in environ or "NBPS_SECRET_FILE" in environ:
        found["secret"] = _secret(environ)
    tls = {what: environ.get(VARIABLES[what]) for what in ("certificate", "key", "authority")}
    missing = [VARIABLES[what] for what, path in tls.items() if path is None]
    if 0 < len(missing) < len(tls):
        raise ConfigError(
            f"{missing[0]} is not set, but others of NBPS_TLS_CERT, NBPS_TLS_KEY and NBPS_TLS_CA are; set all three, "
            f"or none for connections without encryption"
        )
    if not missing:
        found["tls"] = Tls(**{what: Path(str(path)) for what, path in tls.items()})
    if "NBPS_INSECURE" in environ:
        answer = environ["NBPS_INSECURE"]
        if answer.strip().lower() not in _YES_OR_NO:
            raise ConfigError(f"NBPS_INSECURE is {answer!r}; expected 1 or 0")
        found["insecure"] = _YES_OR_NO[answer.strip().lower()]
    if "NBPS_ROLL" in environ:
        found["roll"] = environ["NBPS_ROLL"]
    return found


def _secret(environ: Mapping[str, str]) -> bytes:
    if "NBPS_SECRET_FILE" in environ:
        if "NBPS_SECRET" in environ:
            raise ConfigError("NBPS_SECRET and NBPS_SECRET_FILE are both set; unset one of them")
        return _read_secret(environ["NBPS_SECRET_FILE"], "NBPS_SECRET_FILE")
    secret = os.fsencode(environ["NBPS_SECRET"]).strip()
    if not secret:
        raise ConfigError(f"NBPS_SECRET is empty; unset it, or set it to a secret (make one: {MAKE_ONE})")
    return secret


def _read_secret(path: str, name: str) -> bytes:
    """Return what the file holds, without white space around it.

    Parameters
    ----------
    path : str
    name : str
        What named the file, for messages.

    Raises
    ------
    ConfigError
        If there is no such file, others may read or write it, it belongs to somebody else, or holds no secret.
    """
    where = f"{name} is {path!r}"
    try:
        # A pipe would block until somebody writes into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{where}, which cannot be opened: {reason}; make one: {_make(path)}") from None
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        # Of what was opened, not of the path: that could be another file by now.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{where}, which is not a regular file; make one: {_make(path)}")
        if status.st_uid != os.geteuid():
            raise ConfigError(
                f"{where}, which belongs to user {status.st_uid}; expected a file of user {os.geteuid()}, who runs "
                f"this job, so that nobody else can change it; copy it, or chown {os.geteuid()} {shlex.quote(path)}"
            )
        if status.st_mode & 0o077:
            raise ConfigError(
                f"{where}, which has mode {stat.S_IMODE(status.st_mode):04o}: other users may use it; expected 0600; "
                f"chmod 600 {shlex.quote(path)}"
            )
        content = b""
        while len(content) <= _BYTES_LIMIT and (part := os.read(descriptor, _BYTES_LIMIT + 1 - len(content))):
            content += part
    if len(content) > _BYTES_LIMIT:
        raise ConfigError(f"{where}, which has more than {_BYTES_LIMIT} bytes; is this the right file?")
    if not content.strip():
        raise ConfigError(f"{where}, which holds no secret; make one: {_make(path)}")
    return content.strip()


def _make(path: str) -> str:
    return f"(umask 077; {MAKE_ONE} > {shlex.quote(path)})"

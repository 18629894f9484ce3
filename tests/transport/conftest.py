"""Certificates for tests of TLS, made anew in every run: no private key lies in the repository."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nbps.transport import Tls

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def _openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Tls]:
    """Return a function that gives the files of a node, signed by an authority that it makes when needed."""
    if shutil.which("openssl") is None:
        pytest.skip("the command openssl, which makes the certificates, is not installed here")
    folder = tmp_path_factory.mktemp("certificates")

    def make(node: str, authority: str = "authority") -> Tls:
        if not (folder / f"{authority}.pem").exists():
            files = ["-keyout", f"{authority}.key", "-out", f"{authority}.pem"]
            _openssl(folder, "req", "-x509", *_KEY, *files, "-days", "2", "-subj", f"/CN={authority}")
        name = f"{node}-{authority}"
        if not (folder / f"{name}.pem").exists():
            _openssl(folder, "req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={node}")
            signer = ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "2"]
            _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signer)
        return Tls(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{authority}.pem")

    return make

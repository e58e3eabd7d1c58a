"""Certificates for tests, made by the openssl command as SECURITY.md shows."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

_CA = """[ca]
default_ca = own
[own]
database = {directory}/index.txt
new_certs_dir = {directory}
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = ext
[any]
commonName = supplied
[ext]
subjectAltName = {names}
keyUsage = critical,digitalSignature,keyCertSign
"""


def make_certificate(
    directory: Path, name: str = "policy-server", names: str = "DNS:localhost,IP:127.0.0.1"
) -> tuple[str, str]:
    """A self-signed certificate for localhost, or other names, and its key: two PEM files."""
    openssl = _openssl()
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    made = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    told = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={names}"]
    told += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    subprocess.run([*made, *told, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return str(cert), str(key)


def make_dated_certificate(directory: Path, begins: str, ends: str) -> tuple[str, str]:
    """A self-signed certificate for localhost that holds from one day to another, such as 20200131, and its key."""
    openssl = _openssl()
    cert, key, asked, config = (directory / f"dated.{ending}" for ending in ("pem", "key", "csr", "cnf"))
    (directory / "index.txt").touch()
    config.write_text(_CA.format(directory=directory, names="DNS:localhost,IP:127.0.0.1"))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=dated"]
    dates = ["-startdate", f"{begins}000000Z", "-enddate", f"{ends}000000Z"]
    signed = ["ca", "-selfsign", "-batch", "-notext", "-config", str(config), *dates, "-keyfile", str(key)]
    for command in (
        ["req", "-new", *curve, "-keyout", str(key), "-out", str(asked)],
        [*signed, "-in", str(asked), "-out", str(cert)],
    ):
        subprocess.run([openssl, *command], check=True, capture_output=True)
    return str(cert), str(key)


def _openssl() -> str:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command here")
    return openssl


def trusting(cert: str) -> ssl.SSLContext:
    """A client's context that trusts this certificate alone."""
    return ssl.create_default_context(cafile=cert)

"""Serve over TLS to robots that have a key, with a CA and a certificate that are made on the spot.

Usage:
    python examples/tls_and_keys.py make runs
    policyserve serve cartpole_ppo --api-key-file runs/keys --tls-cert runs/server.pem --tls-key runs/server.key
    python examples/tls_and_keys.py ask runs

Needs the openssl program, version 3. The certificate is for this machine alone and lasts for a month: SECURITY.md says
how to make those of a lab, and who is to keep which file.
"""

import secrets
import ssl
import subprocess
from pathlib import Path

import numpy as np
import tyro
from tyro.conf import Positional

import policyserve

PAIR = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30"
CA = f"openssl req -x509 {PAIR} -subj /CN=Lab -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem"
NAMES = "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:false"
OUT = "-keyout server.key -out server.pem"
SERVER = f"openssl req -x509 -CA ca.pem -CAkey ca.key {PAIR} -subj /CN=localhost {NAMES} {OUT}"


def make(folder: Positional[Path]) -> None:
    """Make a CA, the server's certificate and the key of a robot."""
    folder.mkdir(parents=True, exist_ok=True)
    for command in (CA, SERVER):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    keys = folder / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"robot-7: {secrets.token_hex(24)}\n")
    print(f"made {', '.join(sorted(path.name for path in folder.iterdir()))}")


def ask(folder: Positional[Path], url: str = "wss://localhost:8000") -> None:
    """Ask as a robot that has its key and the CA's certificate."""
    key = (folder / "keys").read_text().split(": ")[1]
    trust = ssl.create_default_context(cafile=folder / "ca.pem")
    with policyserve.Client(url, api_key=key, ssl_context=trust) as client:
        print(f"action {client.infer({'obs': np.zeros(4)}).actions} from {client.url}")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"make": make, "ask": ask})

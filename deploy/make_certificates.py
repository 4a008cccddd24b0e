"""Certificates for a Dask cluster: ``python -m ojala.deploy.make_certificates --out FOLDER``.

Makes an authority and one certificate each for scheduler, workers and clients. Whoever has none that the
authority has signed can neither join the cluster nor give it work: the private keys are the shared secret.
The authority's own key is not kept, so that nobody can sign another certificate; for more, make all anew.

    ca.pem          the authority; everybody needs it
    scheduler.pem   certificate and private key of the scheduler
    worker.pem      of the workers
    client.pem      of whoever gives work: the Prefect worker, and people
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROLES = ("scheduler", "worker", "client")


def make_certificates(folder: Path, days: int) -> list[Path]:
    """Write an authority and the certificates of all roles, readable by their owner alone.

    Parameters
    ----------
    folder : Path
        Made if it is not there; certificates that it holds are not overwritten.
    days : int
        How long they are valid.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    FileExistsError
        If the folder holds one of them.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("ojala authority", authority_key, None, authority_key, days)
    files = [_write_secret(folder / "ca.pem", _pem(authority))]
    for role in ROLES:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(f"ojala {role}", key, authority, authority_key, days)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        files.append(_write_secret(folder / f"{role}.pem", _pem(certificate) + private))
    return files


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    days: int,
) -> x509.Certificate:
    """A certificate signed by its issuer; without one, an authority that signs itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    sign = issuer is None
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of machines differ a little.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=sign, path_length=0 if sign else None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not sign,
                key_cert_sign=sign,
                crl_sign=sign,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            # Workers listen to each other and to the scheduler: all roles are servers and clients.
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_secret(path: Path, content: bytes) -> Path:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    return path


def main(
    out: Annotated[Path, typer.Option(help="Folder for the certificates; outside of the repository.")],
    days: Annotated[int, typer.Option(help="Days that they are valid.", min=1)] = 365,
) -> None:
    """Make certificates for the scheduler, the workers and the clients of a Dask cluster."""
    try:
        files = make_certificates(out, days)
    except FileExistsError as problem:
        typer.echo(f"{problem.filename} is there; move it away to make new certificates", err=True)
        raise typer.Exit(1) from None
    typer.echo("\n".join(map(str, files)))


if __name__ == "__main__":
    typer.run(main)

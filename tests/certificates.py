"""Certificates that a test makes for itself: an authority, and a signer that it vouches for."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = timedelta(days=1)
_UNUSED = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
_NO_USAGE = dict.fromkeys((*_UNUSED, "encipher_only", "decipher_only"), False)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def certificate(key: Any, authority_key: Any, *, authority: bool = False, days_left: int = 9) -> bytes:
    """Of the signer, or of the authority itself; as PEM."""
    now = datetime.now(timezone.utc)
    subject, issuer = (
        x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, name),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Museum of Tests"),
            ]
        )
        for name in ("Authority" if authority else "Curator", "Authority")
    )
    built = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - 30 * _DAY)
        .not_valid_after(now + days_left * _DAY)
        .add_extension(x509.BasicConstraints(authority, 0 if authority else None), True)
        .add_extension(
            x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **_NO_USAGE),
            True,
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), False)
    )
    if not authority:
        built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    algorithm = None if isinstance(authority_key, ed25519.Ed25519PrivateKey) else SHA256()
    return built.sign(authority_key, algorithm).public_bytes(Encoding.PEM)


def key_pem(key: Any, password: bytes | None = None) -> bytes:
    how = NoEncryption() if password is None else BestAvailableEncryption(password)
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
    return pem


def sign_pem(key: Any = None, *, days_left: int = 9) -> bytes:
    """What `--sign` takes."""
    root, key = new_key(), key or new_key()
    signer, authority = certificate(key, root, days_left=days_left), certificate(root, root, authority=True)
    return signer + authority + key_pem(key)

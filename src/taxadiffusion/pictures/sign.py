"""Content credentials (C2PA) in a picture: who signed it, that a trained model made it, and its recipe."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.files import whole
from taxadiffusion.pictures.png import DIGITAL_SOURCE_TYPE, RECIPE_CHUNK

ASSERTION = "taxadiffusion.recipe"
"""The label under which a manifest holds the recipe."""

_FORMAT = "image/png"
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_PART = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
_MIN_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose certificate stands in a picture. `key` is a secret: it is in no message and no `repr`."""

    path: Path
    algorithm: str
    chain: str
    key: SecretText

    def sign(self, path: Path) -> bool:
        """Put the manifest into the PNG, in place, and read it back. False: a manifest that holds was there already.

        Pixels and text chunks stay as they are; the manifest's bytes differ at each signing. Raises `DataError` where
        the file has no recipe of ours, or what was written does not verify.
        """
        data = path.read_bytes()
        if credentials(data) is not None:
            return False
        signed = self._signed(data, _recipe_of(path))
        with whole(path) as aside:
            aside.write_bytes(signed)
        return True

    def _signed(self, data: bytes, recipe: Mapping[str, str]) -> bytes:
        """Raises what `c2pa` raises, and `DataError` where the result does not verify."""
        import c2pa

        # No time stamp: it would ask a server.
        info = c2pa.C2paSignerInfo(*(text.encode() for text in (self.algorithm, self.chain, self.key.text)), None)
        # No thumbnail: the picture is small, and a second copy of it tells nothing.
        context = c2pa.Context(c2pa.Settings.from_dict({"builder": {"thumbnail": {"enabled": False}}}))
        out = io.BytesIO()
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(_manifest(recipe), context) as builder:
            builder.sign(signer, _FORMAT, io.BytesIO(data), out)
        if credentials(out.getvalue()) is None:
            raise DataError("the signature that was just made does not verify")
        return out.getvalue()


@dataclass(frozen=True, slots=True, repr=False)
class SecretText:
    text: str


def open_signer(path: Path) -> Signer:
    """A PEM file: the signer's certificate, then those that vouch for it (the root may be left out), and its key.

    The key is that of the first certificate, not encrypted: ECDSA on P-256, P-384 or P-521, Ed25519, or RSA of 2048
    bits or more. A picture is signed for trial, in memory. Raises `SettingsError`: the package, file or a part is
    missing, the certificate is of another key, not valid today or not for signing.
    """
    if find_spec("c2pa") is None or find_spec("cryptography") is None:
        raise SettingsError("--sign needs c2pa-python: pip install 'taxadiffusion[sign]'")
    certificates, key = _parts(path)
    signer = Signer(path, _algorithm(path, key), _pem(certificates), SecretText(_key_pem(key)))
    _require_valid(path, certificates[0], key)
    blank = io.BytesIO()
    Image.new("RGB", (8, 8)).save(blank, format="PNG")
    import c2pa

    try:
        signer._signed(blank.getvalue(), {"software": "taxadiffusion 0", "scientific_name": "none"})
    except (c2pa.C2paError, DataError, ValueError) as error:
        raise SettingsError(
            f"{path}: cannot sign with it ({error}). Content credentials want a certificate of version 3 for digital "
            "signatures (keyUsage digitalSignature, extendedKeyUsage emailProtection or documentSigning)"
        ) from error
    return signer


def credentials(data: bytes) -> dict[str, Any] | None:
    """The manifest in a PNG's bytes, if one is there and fits them; None if not, or if anything was changed since.

    Whether its signer is to be trusted is not asked: the validation says `signingCredential.untrusted` of those whose
    root is on no list.
    """
    import c2pa

    try:
        with c2pa.Reader(_FORMAT, io.BytesIO(data)) as reader:
            if reader.get_validation_state() not in ("Valid", "Trusted"):
                return None
            manifest: dict[str, Any] | None = reader.get_active_manifest()
            return manifest
    except c2pa.C2paError:
        return None


def _recipe_of(path: Path) -> dict[str, str]:
    with Image.open(path, formats=("PNG",)) as image:
        text = getattr(image, "text", {}).get(RECIPE_CHUNK)
    if text is None:
        raise DataError(f"{path}: holds no recipe, so it is no picture of ours and is not signed")
    recipe: dict[str, str] = json.loads(text)
    return recipe


def _manifest(recipe: Mapping[str, str]) -> dict[str, Any]:
    name, _, version = recipe["software"].partition(" ")
    agent = {"name": name, "version": version}
    created = {"action": "c2pa.created", "digitalSourceType": DIGITAL_SOURCE_TYPE, "softwareAgent": agent}
    return {
        "claim_generator_info": [agent],
        "title": recipe["scientific_name"],
        "format": _FORMAT,
        "assertions": [
            {"label": "c2pa.actions", "data": {"actions": [created]}},
            {"label": ASSERTION, "data": dict(recipe)},
        ],
    }


def _parts(path: Path) -> tuple[list[Any], Any]:
    """Certificates in their order, and the private key."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    found = [(match[1].decode(), match[0]) for match in _PART.finditer(data)]
    keys = [part for kind, part in found if kind.endswith("PRIVATE KEY")]
    chain = [part for kind, part in found if kind == "CERTIFICATE"]
    if not chain or len(keys) != 1:
        raise SettingsError(
            f"{path}: holds {len(chain)} certificates and {len(keys)} private keys; --sign wants one PEM file with the "
            "certificate, those that vouch for it, and its one key: cat cert.pem chain.pem key.pem > sign.pem"
        )
    try:
        key = load_pem_private_key(keys[0], password=None)
        return [x509.load_pem_x509_certificate(part) for part in chain], key
    except TypeError as error:  # what cryptography raises for a missing password
        raise SettingsError(f"{path}: its key is encrypted; decrypt it: openssl pkcs8 -in KEY -out PLAIN") from error
    except ValueError as error:
        raise SettingsError(f"{path}: not readable ({error})") from error


def _algorithm(path: Path, key: Any) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _MIN_RSA_BITS:
        return "ps256"
    size = getattr(key, "key_size", "")
    name = getattr(getattr(key, "curve", None), "name", type(key).__name__)
    raise SettingsError(
        f"{path}: content credentials are not signed with a key of this kind ({name} {size}); make one on P-256: "
        "openssl ecparam -name prime256v1 -genkey -noout"
    )


def _require_valid(path: Path, certificate: Any, key: Any) -> None:
    now = datetime.now(timezone.utc)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise SettingsError(
            f"{path}: the certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d}, and today is {now:%Y-%m-%d}; renew it"
        )
    if certificate.public_key() != key.public_key():
        raise SettingsError(
            f"{path}: the key is not the first certificate's; the signer's comes before those that vouch for it"
        )


def _pem(certificates: list[Any]) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def _key_pem(key: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    text: str = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return text

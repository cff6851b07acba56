"""Laws of content credentials: they say what made a picture, hold its recipe, and change nothing else of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("c2pa", reason="needs the extra [sign]")

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from taxadiffusion.adapter import Adapter, load_adapter, save_adapter
from taxadiffusion.cli import app
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.guidance import Guidance
from taxadiffusion.pictures import sign
from taxadiffusion.pictures.generate import Sampling, generate
from taxadiffusion.pictures.png import DIGITAL_SOURCE_TYPE, is_whole, read_picture
from taxadiffusion.pictures.sign import ASSERTION, credentials, open_signer
from taxadiffusion.sampler import Request
from tests.certificates import certificate, key_pem, new_key, sign_pem
from tests.tiny_adapter import RANKS, TAXA, TAXONOMY, make
from tests.tiny_base import write_tiny_base

FEW = Sampling(num_steps=2, batch_size=4)
REQUESTS = [Request(lineage, seed, Guidance(2.0)) for lineage in TAXA for seed in (0, 1)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model's folder and its base's."""
    base = write_tiny_base(tmp_path_factory.mktemp("base"))
    path = tmp_path_factory.mktemp("adapters") / "fish"
    save_adapter(path, make(base, ranks=RANKS), TAXONOMY, recipe={}, read_me="# Fish\n")
    return path, base


@pytest.fixture(scope="module")
def adapter(model: tuple[Path, Path]) -> Adapter:
    return load_adapter(model[0], base=str(model[1]))


@pytest.fixture
def cert(tmp_path: Path) -> Path:
    path = tmp_path / "sign.pem"
    path.write_bytes(sign_pem())
    return path


def recipe_and_pixels(path: Path) -> tuple[dict[str, str], bytes]:
    with Image.open(path) as image:
        return dict(image.text), read_picture(path).tobytes()


def test_a_signed_picture_says_what_made_it_and_keeps_all_that_it_said(
    adapter: Adapter, cert: Path, tmp_path: Path
) -> None:
    plain = list(generate(adapter, REQUESTS, tmp_path / "plain", FEW))
    signed = list(generate(adapter, REQUESTS, tmp_path / "signed", FEW, signer=open_signer(cert)))
    assert [p.path.name for p in plain] == [p.path.name for p in signed]
    assert (tmp_path / "plain/metadata.csv").read_bytes() == (tmp_path / "signed/metadata.csv").read_bytes()
    for one, other in zip(plain, signed, strict=True):
        assert recipe_and_pixels(one.path) == recipe_and_pixels(other.path)
        assert is_whole(other.path)
        assert credentials(one.path.read_bytes()) is None
        manifest = credentials(other.path.read_bytes())
        assert manifest is not None
        assertions = {entry["label"]: entry["data"] for entry in manifest["assertions"]}
        recipe = json.loads(recipe_and_pixels(one.path)[0]["taxadiffusion"])
        (action,) = assertions["c2pa.actions.v2"]["actions"]
        assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", DIGITAL_SOURCE_TYPE)
        assert " ".join(action["softwareAgent"][key] for key in ("name", "version")) == recipe["software"]
        assert assertions[ASSERTION] == recipe
        assert manifest["title"] == recipe["scientific_name"]
        assert manifest["signature_info"]["issuer"] == "Museum of Tests"


def test_any_change_of_a_signed_picture_is_seen(adapter: Adapter, cert: Path, tmp_path: Path) -> None:
    (picture,) = generate(adapter, REQUESTS[:1], tmp_path / "out", FEW, signer=open_signer(cert))
    data = bytearray(picture.path.read_bytes())
    place = data.index(b"IDAT") + 20
    data[place] ^= 1
    assert credentials(bytes(data)) is None
    again = io.BytesIO()
    Image.open(picture.path).save(again, format="PNG")  # a program that drops what it does not know
    assert credentials(again.getvalue()) is None


def test_pictures_that_lie_there_are_signed_as_well_and_once(adapter: Adapter, cert: Path, tmp_path: Path) -> None:
    signer = open_signer(cert)
    two = list(generate(adapter, REQUESTS[:2], tmp_path / "out", FEW))
    before = recipe_and_pixels(two[0].path)
    four = list(generate(adapter, REQUESTS, tmp_path / "out", FEW, signer=signer))
    assert [p.made for p in four] == [False, False, True, True]
    assert all(credentials(p.path.read_bytes()) is not None for p in four)
    assert recipe_and_pixels(two[0].path) == before
    bytes_then = [p.path.read_bytes() for p in four]
    list(generate(adapter, REQUESTS, tmp_path / "out", FEW, signer=signer))
    assert not any(p.made for p in generate(adapter, REQUESTS, tmp_path / "out", FEW))  # nor is a signature lost
    assert [p.path.read_bytes() for p in four] == bytes_then
    assert not list((tmp_path / "out").rglob(".tmp-*"))


def test_only_pictures_of_ours_are_signed(cert: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    with pytest.raises(DataError, match=r"photo\.png: holds no recipe"):
        open_signer(cert).sign(tmp_path / "photo.png")


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "Ed25519", "RSA"],
)
def test_each_kind_of_key_signs(key: object, tmp_path: Path) -> None:
    (tmp_path / "sign.pem").write_bytes(sign_pem(key))
    signer = open_signer(tmp_path / "sign.pem")  # signs for trial and reads it back
    assert signer.algorithm in ("es384", "ed25519", "ps256")
    assert "PRIVATE KEY" not in repr(signer)


def bad_files() -> dict[str, tuple[bytes, str]]:
    root, key = new_key(), new_key()
    signer, authority = certificate(key, root), certificate(root, root, authority=True)
    return {
        "no key": (signer + authority, "holds 2 certificates and 0 private keys; .*cat cert.pem chain.pem key.pem"),
        "no certificate": (key_pem(key), "holds 0 certificates and 1 private keys"),
        "not PEM": (b"\x00\x01", "holds 0 certificates and 0 private keys"),
        "damaged": (signer.replace(b"MII", b"AAA", 1) + key_pem(key), "not readable"),
        "encrypted": (signer + authority + key_pem(key, b"secret"), "its key is encrypted; .*openssl pkcs8"),
        "expired": (sign_pem(days_left=-2), r"is valid from \d{4}-\d\d-\d\d to .* today is .*; renew it"),
        "another key": (signer + authority + key_pem(root), "the key is not the first certificate's"),
        "authority first": (authority + signer + key_pem(key), "the key is not the first certificate's"),
        "unsuited key": (signer + key_pem(dsa.generate_private_key(1024)), r"not signed with a key of this kind \(DSA"),
        "unsuited curve": (signer + key_pem(ec.generate_private_key(ec.SECP256K1())), r"secp256k1 256.*on P-256"),
        "not for signing": (authority + key_pem(root), "cannot sign with it .*keyUsage digitalSignature"),
    }


BAD = bad_files()


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_sign_is_a_wrong_setting(name: str, tmp_path: Path) -> None:
    content, message = BAD[name]
    (tmp_path / "sign.pem").write_bytes(content)
    with pytest.raises(SettingsError, match=rf"(?s)sign\.pem: .*{message}"):
        open_signer(tmp_path / "sign.pem")


def test_the_command_refuses_before_it_draws_and_signs_what_it_draws(
    model: tuple[Path, Path], cert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["generate", str(model[0]), "--base", str(model[1]), TAXA[0].label, "-n", "1", "--steps", "2"]
    asked += ["--device", "cpu", "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, [*asked, "--sign", str(tmp_path / "none.pem")])
    assert isinstance(refused.exception, SettingsError)
    assert "none.pem: No such file" in str(refused.exception)
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(app, [*asked, "--sign", str(cert)])
    assert done.exit_code == 0, done.output
    (picture,) = (tmp_path / "out").rglob("*-0-*.png")
    assert credentials(picture.read_bytes()) is not None
    monkeypatch.setattr(sign, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'taxadiffusion\[sign\]'"):
        open_signer(cert)

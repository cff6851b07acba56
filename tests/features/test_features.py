"""Laws of the feature networks: equal to the kept libraries, one hash per network, refused rather than guessed."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from taxadiffusion.errors import SettingsError
from taxadiffusion.features import CachedExtractor, open_extractor
from taxadiffusion.features.bioclip import PUBLISHED, BioclipExtractor, encoder_of_names, taxonomic_name
from taxadiffusion.features.inception import InceptionExtractor
from taxadiffusion.features.perceptual import PerceptualDistance
from taxadiffusion.features.weights import state_hash
from taxadiffusion.names import Lineage
from tests.tiny_clip import write_tiny_clip


def pictures(number: int, size_px: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (number, 3, size_px, size_px), dtype=np.uint8)


class MeanColour:
    """A stand-in network: the mean of each channel."""

    name = "mean-colour"
    content_hash = "0" * 64

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.num_calls += 1
        return images.mean((2, 3)).astype(np.float32)


def test_cache_computes_a_batch_once_and_a_changed_pixel_again(tmp_path: Path) -> None:
    network, images = MeanColour(), pictures(3)
    first = CachedExtractor(network, tmp_path)(images)
    np.testing.assert_array_equal(CachedExtractor(network, tmp_path)(images), first)
    assert network.num_calls == 1
    images[0, 0, 0, 0] ^= 255
    assert not np.array_equal(CachedExtractor(network, tmp_path)(images), first)
    assert network.num_calls == 2


def test_cache_keeps_two_networks_apart(tmp_path: Path) -> None:
    one, other, images = MeanColour(), MeanColour(), pictures(2)
    other.content_hash = "1" * 64
    CachedExtractor(one, tmp_path)(images)
    CachedExtractor(other, tmp_path)(images)
    assert (one.num_calls, other.num_calls) == (1, 1)


def test_onnx_network_is_read_from_its_file(shared: Path) -> None:
    path = shared / "weights" / "mobilenet_v1_075.onnx"
    extractor = open_extractor(f"onnx:{path}")
    images = pictures(3)
    features = extractor(images)
    assert features.shape == (3, 768)
    np.testing.assert_allclose(extractor(images[1:2])[0], features[1], rtol=1e-3, atol=1e-4)  # alone or in company
    assert extractor.name == "onnx:mobilenet_v1_075"
    assert len(extractor.content_hash) == 64


def test_wrong_extractors_are_refused_with_a_remedy(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    cases = [
        ("onnx:/nowhere.onnx", None, "no such file; give the path"),
        (f"onnx:{broken}", None, "not a readable ONNX network"),
        ("dino", None, "unknown extractor 'dino'; use inception, bioclip, bioclip-2, bioclip-2.5 or onnx:FILE"),
        ("onnx:", None, "unknown extractor"),
        ("inception", tmp_path / "nowhere.pth", "do not exist"),
        ("bioclip", tmp_path / "nowhere", "do not exist"),
        (f"onnx:{broken}", broken, "leave --weights out"),
    ]
    for name, weights, message in cases:
        with pytest.raises(SettingsError, match=message):
            open_extractor(name, weights)


def test_a_weights_file_that_would_run_code_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (marker,)

    trap = tmp_path / "weights.pth"
    torch.save({"conv": Attack()}, trap)
    raw = tmp_path / "raw.pth"
    raw.write_bytes(pickle.dumps(Attack()))
    for path in (trap, raw):
        with pytest.raises(SettingsError, match="not a file of plain tensors"):
            InceptionExtractor(path)
    assert not marker.exists()


def test_without_weights_and_network_one_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.error import URLError

    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    for build in (InceptionExtractor, PerceptualDistance):
        with pytest.raises(SettingsError, match=r"no --weights were given and .* cannot be downloaded"):
            build()
    assert not list(tmp_path.rglob("*.pth"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SettingsError, match=r"cannot load imageomics/bioclip .*--weights"):
        BioclipExtractor()


def test_inception_is_torch_fidelitys_whatever_file_holds_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file
    from torch_fidelity import feature_extractor_inceptionv3 as module

    class Untrained(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: object) -> None:
            """Keep the random weights."""

    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
    torch.manual_seed(0)
    network = Untrained("inception", ["2048"])
    save_file(network.state_dict(), tmp_path / "inception.safetensors")
    images = pictures(2)
    ours = InceptionExtractor(tmp_path / "inception.safetensors")
    with torch.inference_mode():
        (theirs,) = network(torch.from_numpy(images))
    np.testing.assert_allclose(ours(images), theirs.numpy(), rtol=1e-5, atol=1e-6)
    assert ours.content_hash == state_hash(network)
    state = network.state_dict()
    del state["fc.bias"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(SettingsError, match="do not fit Inception-v3"):
        InceptionExtractor(tmp_path / "short.pth")


def test_lpips_is_the_packages_and_zero_for_equal_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lpips
    import torchvision

    torch.manual_seed(0)
    trunk = torchvision.models.alexnet(weights=None).features
    torch.save({f"features.{name}": tensor for name, tensor in trunk.state_dict().items()}, tmp_path / "alexnet.pth")
    ours = PerceptualDistance(tmp_path / "alexnet.pth")
    images, others = pictures(3, seed=0), pictures(3, seed=1)
    assert ours(images, images).tolist() == [0, 0, 0]
    np.testing.assert_allclose(ours(images, others), ours(others, images), rtol=1e-5)

    whole = torch.nn.Module()
    whole.features = trunk
    monkeypatch.setattr("lpips.pretrained_networks.tv.alexnet", lambda **_: whole)
    theirs = lpips.LPIPS(net="alex", verbose=False)
    pair = [torch.from_numpy(side).float() / 127.5 - 1 for side in (images, others)]
    with torch.inference_mode():
        np.testing.assert_allclose(ours(images, others), theirs(*pair).flatten().numpy(), rtol=1e-5)
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(SettingsError, match=r"hold nothing at features\.0\.weight"):
        PerceptualDistance(tmp_path / "empty.pth")


def test_bioclip_is_open_clips_and_names_a_lineage_as_it_was_trained_to(tmp_path: Path) -> None:
    import open_clip

    network = write_tiny_clip(tmp_path)
    ours, images = BioclipExtractor(tmp_path), pictures(2, 32)
    pixels = torch.stack([torch.from_numpy(image).float() / 127.5 - 1 for image in images])
    lineage = Lineage.of({"kingdom": "Animalia", "genus": "Amphiprion", "species": "clarkii"})
    assert taxonomic_name(lineage) == "Animalia Amphiprion clarkii"
    with torch.inference_mode():
        np.testing.assert_allclose(ours(images), network.encode_image(pixels, normalize=True).numpy(), atol=1e-5)
        tokens = open_clip.tokenize(["a photo of Animalia Amphiprion clarkii."])
        np.testing.assert_allclose(
            ours.texts([lineage]), network.encode_text(tokens, normalize=True).numpy(), atol=1e-5
        )


@pytest.mark.parametrize(
    ("name", "hub_id", "width", "shape"),
    [
        ("bioclip", "imageomics/bioclip", 512, (768, 16)),
        ("bioclip-2", "imageomics/bioclip-2", 768, (1024, 14)),
        ("bioclip-2.5", "imageomics/bioclip-2.5-vith14", 1024, (1280, 14)),
    ],
)
def test_each_bioclip_is_its_own_weights_and_shape(
    name: str, hub_id: str, width: int, shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SettingsError, match=rf"extractor {re.escape(name)}: cannot load {re.escape(hub_id)} \("):
        open_extractor(name)
    with torch.device("meta"):  # at full size: no memory
        network = open_clip.create_model(PUBLISHED[name].architecture, device="meta")
    assert network.visual.conv1.weight.shape == (shape[0], 3, shape[1], shape[1])
    assert network.text_projection.shape[1] == width


@pytest.mark.parametrize("name", ["bioclip", "bioclip-2", "bioclip-2.5"])
def test_a_file_is_read_in_the_shape_of_the_bioclip_that_was_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Depth and widths shrunk, patches as published; a file of another shape is refused."""
    from open_clip.factory import _MODEL_CONFIGS
    from safetensors.torch import save_file

    architecture = PUBLISHED[name].architecture
    settings = copy.deepcopy(_MODEL_CONFIGS[architecture])
    settings["embed_dim"] = width = {"bioclip": 8, "bioclip-2": 12, "bioclip-2.5": 16}[name]
    settings["vision_cfg"] |= {"layers": 1, "width": 64, "head_width": 32, "image_size": 56}
    settings["text_cfg"] |= {"layers": 1, "width": 16, "heads": 2}
    monkeypatch.setitem(_MODEL_CONFIGS, architecture, settings)
    import open_clip

    torch.manual_seed(0)
    network = open_clip.create_model(architecture).eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    ours = open_extractor(name, tmp_path / "weights.safetensors")
    assert (ours.name, ours.content_hash) == (name, state_hash(network))
    assert ours(pictures(2, 56)).shape == (2, width)
    lineage = Lineage.of({"kingdom": "Animalia", "genus": "Amphiprion", "species": "clarkii"})
    names = encoder_of_names(f"{name}:{tmp_path / 'weights.safetensors'}", "cpu")
    np.testing.assert_array_equal(names.texts([lineage]), ours.texts([lineage]))
    state = network.state_dict()
    state["text_projection"] = torch.zeros(16, width + 1)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(SettingsError, match=rf"extractor {re.escape(name)}: cannot load"):
        open_extractor(name, tmp_path / "other.safetensors")


def test_an_encoder_of_names_is_named_or_lies_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for source, hub_id in (("hub", "bioclip"), ("bioclip", "bioclip"), ("bioclip-2", "bioclip-2")):
        with pytest.raises(SettingsError, match=rf"cannot load imageomics/{hub_id} \("):
            encoder_of_names(source, "cpu")
    write_tiny_clip(tmp_path / "clip")
    lineage = Lineage.of({"genus": "Amphiprion"})
    assert encoder_of_names(str(tmp_path / "clip"), "cpu").texts([lineage]).shape == (1, 16)
    with pytest.raises(SettingsError, match="do not exist"):
        encoder_of_names(f"bioclip-2.5:{tmp_path / 'nowhere'}", "cpu")

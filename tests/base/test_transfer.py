"""Laws of arithmetic and transfer: a CPU's is as it was, a GPU's what it does well, a trained weight is float32."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import taxadiffusion
from taxadiffusion.adapter import Adapter, load_adapter, save_adapter
from taxadiffusion.base.attention import Conditions
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import lora_parameters
from taxadiffusion.base.transfer import Reading, good_precision, moved, multiplies_in_bfloat16, use_fast_arithmetic
from taxadiffusion.names import Lineage
from taxadiffusion.pictures import generate as generation
from taxadiffusion.pictures.generate import Sampling, generate
from taxadiffusion.sampler import Request
from tests.taxa import taxonomy_of
from tests.tiny_adapter import make
from tests.tiny_backbone import inputs, with_lora

CLOWNFISH = Lineage.of({"family": "Pomacentridae", "genus": "Amphiprion"})
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def _flags() -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("module", ["condition", "trainer", "denoiser.py", "sampler.py"])
def test_what_runs_in_every_step_never_makes_a_tensor_on_a_device_by_a_copy_that_waits(module: str) -> None:
    """`torch.tensor(..., device=...)` copies from pageable memory: the processor waits for all that is queued."""
    place = Path(taxadiffusion.__file__).parent / module
    waiting = [
        f"{path.name}:{call.lineno}"
        for path in (sorted(place.rglob("*.py")) if place.is_dir() else [place])
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in ("torch.tensor", "torch.as_tensor")
        and any(keyword.arg == "device" for keyword in call.keywords)
    ]
    assert not waiting


@pytest.mark.usefixtures("_flags")
def test_on_a_cpu_nothing_is_copied_set_or_rounded() -> None:
    tensor = torch.arange(3.0)
    assert moved(tensor, CPU) is tensor
    assert Reading(tensor).values() == [0.0, 1.0, 2.0]
    assert good_precision(CPU) == torch.float32
    use_fast_arithmetic(CPU)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", False)


@pytest.mark.usefixtures("_flags")
def test_a_run_that_starts_on_a_gpu_lets_float32_products_use_tf32() -> None:
    use_fast_arithmetic(CUDA)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", True)


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_predicts_in_bfloat16_where_it_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native and not including_emulation)
    assert good_precision(CUDA) == expected


@pytest.mark.parametrize(
    ("amx", "avx512", "expected"), [(False, False, False), (True, False, True), (False, True, True)]
)
def test_a_cpu_multiplies_in_bfloat16_where_it_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert multiplies_in_bfloat16(CPU) is expected


def test_where_all_is_trained_weights_and_gradients_are_float32_and_arithmetic_is_not(base: Path) -> None:
    exact = Backbone.load(str(base), trained=True)
    rounded = Backbone.load(str(base), dtype=torch.bfloat16, trained=True)
    assert (exact.precision, rounded.precision) == ("float32", "bfloat16")
    found = []
    for backbone in (exact, rounded):
        backbone.unet.requires_grad_(True)
        prediction = backbone(*inputs())
        prediction.square().sum().backward()
        found.append(prediction)
        assert {p.dtype for p in backbone.unet.parameters()} == {torch.float32}
        assert {p.grad.dtype for p in backbone.unet.parameters() if p.grad is not None} == {torch.float32}
    assert not torch.equal(*found)
    torch.testing.assert_close(*found, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("shared", [False, True])
def test_checkpointed_gradients_are_the_same(base: Path, shared: bool) -> None:
    """To the bit, also where keys and values are shared: the backward pass knows the forward pass's conditions."""
    found = []
    for checkpointed in (False, True):
        backbone = with_lora(base)
        kept: list[int] = []
        if checkpointed:
            backbone.checkpoint_gradients()
        noisy, timesteps, states = inputs()
        states.requires_grad_(True)
        lora = list(lora_parameters(backbone.unet).values())
        for parameter in lora:
            parameter.requires_grad_(True)
        condition = Conditions(states[:1], torch.tensor([0, 0])) if shared else states
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.nbytes) or x, lambda x: x):  # type: ignore[func-returns-value]
            prediction = backbone(noisy, timesteps, condition)
        gradients = torch.autograd.grad(prediction.square().sum(), [states, *lora])
        found.append((sum(kept), prediction, *gradients))
    (plain_bytes, *plain), (few_bytes, *few) = found
    assert few_bytes < 0.7 * plain_bytes
    for mine, theirs in zip(few, plain, strict=True):
        assert torch.equal(mine, theirs)


def test_compiled_predictions_are_the_plain_ones_and_compiled_only_within(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def compiled(forward: object) -> object:
        return lambda *args, **kwargs: calls.append(len(args[0])) or forward(*args, **kwargs)  # type: ignore[operator, func-returns-value]

    monkeypatch.setattr(torch, "compile", compiled)
    backbone = with_lora(base)
    noisy, timesteps, states = inputs()
    conditions = Conditions(states[:1], torch.tensor([0, 0]))
    with torch.no_grad():
        plain = backbone(noisy, timesteps, conditions)
        with backbone.on_compiled_code():
            torch.testing.assert_close(backbone(noisy, timesteps, conditions), plain, rtol=1e-4, atol=1e-4)
        backbone(noisy, timesteps, conditions)
    assert calls == [2]


def test_compiled_code_is_kept_in_the_users_folder_or_where_the_environment_says(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    Backbone.load(str(base)).compile()
    assert cache_dir() == str(tmp_path / "taxadiffusion" / "compiled")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    Backbone.load(str(base)).compile()
    assert cache_dir() == str(tmp_path / "mine")


@pytest.fixture(scope="module")
def saved(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ranks = ("family", "genus")
    path = tmp_path_factory.mktemp("adapters") / "fish"
    taxonomy = taxonomy_of([CLOWNFISH], ranks)
    save_adapter(path, make(base, ranks=ranks, taxonomy=taxonomy), taxonomy, recipe={}, read_me="# Fish\n")
    return path


def test_a_picture_of_another_precision_is_another_file(base: Path, saved: Path, tmp_path: Path) -> None:
    """In float32 its recipe, and so its name, is what it was before there was a choice."""
    found = {}
    for dtype in (None, torch.float32, torch.bfloat16):
        adapter = load_adapter(saved, base=str(base), dtype=dtype)
        request = [Request(CLOWNFISH, 1)]
        (picture,) = generate(adapter, request, tmp_path / str(dtype), Sampling(num_steps=1))
        recipe = generation._recipe(adapter, "", request[0], Sampling())
        found[dtype] = recipe["engine"], picture.path.name
    assert found[None] == found[torch.float32]
    assert found[None][0] == "torch"
    assert found[torch.bfloat16][0] == "torch in bfloat16"
    assert found[torch.bfloat16][1] != found[None][1]


def test_a_model_that_was_trained_as_a_whole_is_opened_in_any_precision(base: Path, tmp_path: Path) -> None:
    taxonomy = taxonomy_of([CLOWNFISH], ("family", "genus"))
    denoiser = make(base, ranks=("family", "genus"), taxonomy=taxonomy)
    full = type(denoiser)(Backbone.load(str(base)), denoiser.conditioner, full_unet=True)
    save_adapter(tmp_path / "full", full, taxonomy, recipe={}, read_me="# Fish\n")
    opened: Adapter = load_adapter(tmp_path / "full", base=str(base), dtype=torch.bfloat16)
    assert opened.denoiser.backbone.precision == "bfloat16"
    assert opened.denoiser.backbone.dtype == torch.float32

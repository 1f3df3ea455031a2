"""Every kind of prior that diffusers can hold, and every kind that cannot serve."""

import json
import shutil

import diffusers
import numpy as np
import pytest
import safetensors.torch
import torch

import ddfm
from ddfm._checks import DDFMError
from ddfm.diffusion import alpha_bar
from ddfm.pipeline import DDFMPipeline
from ddfm.priors import load_prior, prior_info


def unet(channels=3, out=None, **options):
    torch.manual_seed(0)
    settings = {
        "block_out_channels": (16, 16),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "add_attention": False,
    }
    return diffusers.UNet2DModel(in_channels=channels, out_channels=out or channels, **(settings | options)).eval()


def sources(count=2, size=(24, 28)):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand((1, 1, *size), generator=generator) for _ in range(count)]


def fused(pipe, **options):
    pipe.set_progress_bar_config(disable=True)
    return pipe(*sources(), num_inference_steps=3, **options).images


SCHEDULERS = {
    "linear": diffusers.DDPMScheduler(),
    "cosine": diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    "stored as DDIM": diffusers.DDIMScheduler(),
    "v prediction": diffusers.DDPMScheduler(prediction_type="v_prediction"),
    "sample prediction": diffusers.DDPMScheduler(prediction_type="sample"),
    "few steps": diffusers.DDPMScheduler(num_train_timesteps=50),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_stored_ddpm_pipeline_is_a_prior(name, channels, tmp_path):
    """Saved by diffusers itself, without our settings: colour is told by the channels."""
    diffusers.DDPMPipeline(unet(channels), SCHEDULERS[name]).save_pretrained(tmp_path / "stock")
    prior = load_prior(tmp_path / "stock")
    assert (prior.color, prior.unshuffle) == ({1: "luma", 3: "rgb"}[channels], 1)
    assert prior_info(tmp_path / "stock")["color"] == prior.color
    pipe = DDFMPipeline.from_pretrained(tmp_path / "stock")
    assert torch.allclose(pipe._alpha_bar().float(), alpha_bar(SCHEDULERS[name].betas).float())
    picture = fused(pipe)
    assert picture.shape == (1, 1, 24, 28)
    assert picture.isfinite().all()


def test_a_pipeline_in_memory_is_the_same_prior_as_its_folder(tmp_path):
    stock = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler())
    stock.save_pretrained(tmp_path / "stock")
    from_memory = fused(DDFMPipeline.from_pretrained(stock))
    assert torch.equal(from_memory, fused(DDFMPipeline.from_pretrained(tmp_path / "stock")))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_predictions_of_one_network_agree_on_x0(kind):
    """A network that knows x0 = 0.3: each kind of prediction must lead to the same picture as the others."""

    class Knows(torch.nn.Module):
        config = type("C", (), {"in_channels": 1, "out_channels": 1, "block_out_channels": (1, 1)})()
        dtype = torch.float32

        def forward(self, x, t):
            a = abar[t].sqrt().float()
            s = (1 - abar[t]).sqrt().float()
            eps = (x - a * 0.3) / s
            return type(
                "O", (), {"sample": {"epsilon": eps, "v_prediction": a * eps - s * 0.3, "sample": 0 * x + 0.3}[kind]}
            )

    scheduler = diffusers.DDPMScheduler(prediction_type=kind)
    abar = alpha_bar(scheduler.betas)
    pipe = DDFMPipeline(unet(1), scheduler, "luma")
    pipe.unet.forward = Knows().forward
    seen = []
    pipe.set_progress_bar_config(disable=True)
    pipe(*sources(), num_inference_steps=4, callback_on_step_end=lambda p, i, t, d: seen.append(d["x0"]))
    assert all(torch.allclose(x0, torch.full_like(x0, 0.3), atol=2e-3) for x0 in seen)


def test_learned_variance_is_left_aside():
    """Six channels whose first three are a three-channel network's: the same picture."""
    three, six = unet(3), unet(3, out=6)
    state = three.state_dict()
    for key in ("conv_out.weight", "conv_out.bias"):
        state[key] = torch.cat([state[key], torch.randn_like(state[key])])
    six.load_state_dict(state)
    pictures = [fused(DDFMPipeline(network, diffusers.DDPMScheduler(), "rgb")) for network in (three, six)]
    assert torch.allclose(*pictures, atol=1e-6)  # another width of the last convolution rounds otherwise


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes_agree_within_their_precision(dtype, tmp_path):
    diffusers.DDPMPipeline(unet(1), diffusers.DDPMScheduler()).save_pretrained(tmp_path / "stock")
    a, b = (s[0, 0].numpy() for s in sources())
    options = {"prior": str(tmp_path / "stock"), "preset": "fast"}
    exact = ddfm.fuse(a, b, **options).data
    assert abs(ddfm.fuse(a, b, dtype=dtype, **options).data - exact).max() < 0.02


def test_an_rgb_prior_with_colour_sources_keeps_their_colour(tmp_path):
    diffusers.DDPMPipeline(unet(3), diffusers.DDPMScheduler()).save_pretrained(tmp_path / "rgb")
    infrared = sources()[0][0, 0].numpy()
    visible = torch.rand((3, 24, 28), generator=torch.Generator().manual_seed(3))
    result = ddfm.fuse(infrared, visible, prior=str(tmp_path / "rgb"), preset="fast").data
    assert result.shape == (24, 28, 3)
    spread = result.max(2) - result.min(2)
    assert spread.mean() > 0.1


@pytest.mark.filterwarnings("ignore:.*the same picture")
@pytest.mark.parametrize("options", [{}, {"tile": 8}, {"dtype": "bfloat16"}], ids=["whole", "tiles", "bfloat16"])
@pytest.mark.parametrize("shape", [(23, 17), (23, 17, 3)], ids=["grey", "colour"])
def test_with_an_rgb_prior_a_picture_and_itself_are_that_picture(shape, options, tmp_path):
    """Whatever the prior says: 17x23 pixels, fewer than a stride more than a tile, grey and colour."""
    diffusers.DDPMPipeline(unet(3), diffusers.DDPMScheduler()).save_pretrained(tmp_path / "rgb")
    picture = np.random.default_rng(0).random(shape, dtype=np.float32)
    options = options | {"prior": str(tmp_path / "rgb"), "tone": "none"}
    for preset, steps, apart in (("balanced", None, 1e-5), ("fast", None, 1e-5), ("paper", 5, 1e-3)):
        result = ddfm.fuse(picture, picture, preset=preset, steps=steps, **options).data
        assert np.abs(result - picture).max() < apart, preset
    if picture.ndim == 2:  # its luma is in studio range and its sources are not: alike but for a line
        result = ddfm.fuse(picture, picture, preset="released", steps=5, **options | {"tone": "minmax"}).data
        stretched = (picture - picture.min()) / (picture.max() - picture.min())
        assert np.abs(result - stretched).max() < 0.01


# ---- what cannot serve ----------------------------------------------------------------------------


@pytest.fixture
def stock(tmp_path):
    diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler()).save_pretrained(tmp_path / "stock")
    return tmp_path / "stock"


def config_of(folder, name, **changes):
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def index_of(folder, **changes):
    config_of(folder, "model_index.json", **changes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "model_index.json").unlink(), "with scheduler, unet, expected .* model_index.json"),
        (
            lambda f: index_of(f, text_encoder=["a", "b"], _class_name="StableDiffusionPipeline"),
            "StableDiffusionPipeline with",
        ),
        (lambda f: index_of(f, unet=["diffusers", "UNet2DConditionModel"]), "UNet2DConditionModel"),
        (lambda f: index_of(f, vqvae=["diffusers", "VQModel"]), "vqvae"),
        (
            lambda f: (f / "unet/diffusion_pytorch_model.safetensors").rename(f / "unet/diffusion_pytorch_model.bin"),
            "pickle can run code",
        ),
        (lambda f: shutil.rmtree(f / "scheduler"), "scheduler_config.json"),
        (lambda f: index_of(f, color="luma"), "3 channels, unshuffle 1"),
        (lambda f: index_of(f, scheduler=["diffusers", "EulerDiscreteScheduler"]), "variance-preserving"),
        (lambda f: (f / "model_index.json").write_text("[1]"), "holds a list, expected a valid model_index.json"),
        (lambda f: (f / "unet/config.json").write_text("{"), "a valid config.json"),
        (lambda f: (f / "unet/config.json").unlink(), "a valid config.json"),
        (lambda f: index_of(f, color="green"), "color 'green'"),
        (lambda f: index_of(f, unshuffle="two"), "unshuffle 'two', expected a whole number"),
        (lambda f: config_of(f, "scheduler/scheduler_config.json", prediction_type="flow"), "prediction_type 'flow'"),
        (lambda f: config_of(f, "unet/config.json", out_channels=5), "5 output channels, expected 3, or 6"),
    ],
)
def test_folders_that_are_no_prior(stock, change, says):
    """Told from the small files, so that describing a folder and loading it agree."""
    change(stock)
    for use in (DDFMPipeline.from_pretrained, prior_info):
        with pytest.raises(DDFMError, match=says):
            use(stock)


def weights_of(folder, change):
    file = str(folder / "unet/diffusion_pytorch_model.safetensors")
    safetensors.torch.save_file(change(safetensors.torch.load_file(file)), file, metadata={"format": "pt"})


def without(key):
    return lambda state: {name: tensor for name, tensor in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: weights_of(f, without("mid_block.resnets.0.conv1.bias")), "without mid_block.resnets.0.conv1.bias,"),
        (lambda f: weights_of(f, lambda s: s | {"extra": torch.zeros(2)}), "with the unknown extra,"),
        (lambda f: config_of(f, "unet/config.json", layers_per_block=2), r"without down_blocks.0.* and \d+ more"),
        (lambda f: config_of(f, "unet/config.json", block_out_channels=[16, 32]), "size mismatch for down_blocks.1"),
        (
            lambda f: weights_of(f, lambda s: s | {"conv_out.bias": torch.full((3,), float("nan"))}),
            "conv_out.bias has NaN",
        ),
        (lambda f: index_of(f, scheduler=["diffusers", "NoSuchScheduler"]), "scheduler NoSuchScheduler"),
    ],
)
def test_weights_and_settings_that_do_not_belong_together(stock, change, says):
    """diffusers itself warns of the first three and goes on with random weights."""
    change(stock)
    with pytest.raises(DDFMError, match=says):
        load_prior(stock)


def test_parts_beside_the_index_as_in_early_models_of_the_hub(stock):
    expected = fused(DDFMPipeline.from_pretrained(stock))
    for part in ("unet", "scheduler"):
        for file in (stock / part).iterdir():
            file.rename(stock / file.name)
        (stock / part).rmdir()
    assert torch.equal(fused(DDFMPipeline.from_pretrained(stock)), expected)
    assert prior_info(stock)["color"] == "rgb"
    (stock / "diffusion_pytorch_model.safetensors").rename(stock / "diffusion_pytorch_model.bin")
    with pytest.raises(DDFMError, match="pickle can run code"):
        load_prior(stock)


def test_names_of_attention_layers_as_in_early_models_of_the_hub(tmp_path):
    blocks = {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "add_attention": True,
        "attention_head_dim": None,
    }
    network = unet(3, **blocks)
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "old")
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def old(key):
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        return key

    weights_of(tmp_path / "old", lambda state: {old(key): value for key, value in state.items()})
    loaded = load_prior(tmp_path / "old").unet.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())


def test_names_that_are_none(tmp_path):
    with pytest.raises(DDFMError, match="an empty name"):
        load_prior("")
    (tmp_path / "adm.pt").write_bytes(b"x")
    with pytest.raises(DDFMError, match=r"ddfm prior convert .*adm.pt OUT"):
        load_prior(str(tmp_path / "adm.pt"))


def test_a_network_that_overflows_is_named_as_the_cause(tmp_path):
    """In float16 its activations pass 65504; the picture must not be blamed."""
    network = unet(1)
    network.conv_in.weight.data.mul_(3e4)
    network.conv_in.bias.data.add_(6e4)
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "large")
    a, b = (s[0, 0].numpy() for s in sources())
    with pytest.raises(DDFMError, match=r"prior: got NaN or infinite values .*float16.*--dtype float32"):
        ddfm.fuse(a, b, prior=str(tmp_path / "large"), dtype="float16", preset="fast", steps=1)


def test_four_channels_need_an_unshuffle_factor(tmp_path):
    diffusers.DDPMPipeline(unet(4), diffusers.DDPMScheduler()).save_pretrained(tmp_path / "four")
    with pytest.raises(DDFMError, match=r'add "unshuffle": 2 to model_index.json'):
        load_prior(tmp_path / "four")
    index_of(tmp_path / "four", unshuffle=2)
    assert (load_prior(tmp_path / "four").color, load_prior(tmp_path / "four").unshuffle) == ("luma", 2)


def test_a_class_conditional_network(tmp_path):
    diffusers.DDPMPipeline(unet(num_class_embeds=10), diffusers.DDPMScheduler()).save_pretrained(tmp_path / "classes")
    with pytest.raises(DDFMError, match="class-conditional"):
        load_prior(tmp_path / "classes")


def test_hub_ids(stock, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(stock)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_prior("google/ddpm-celebahq-256").color == "rgb"
    assert asked[0][0] == "google/ddpm-celebahq-256"
    import fnmatch

    def fetched(file):
        return any(fnmatch.fnmatch(file, pattern) for pattern in asked[0][1])

    assert not fetched("unet/diffusion_pytorch_model.bin")  # no pickle is even fetched
    assert fetched("unet/diffusion_pytorch_model.safetensors")
    assert fetched("diffusion_pytorch_model.safetensors")

    def offline(name, allow_patterns):
        raise ConnectionError("Name or service not known\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(DDFMError, match=r"google/ddpm .Name or service not known., expected a hub model"):
        load_prior("google/ddpm")
    with pytest.raises(DDFMError, match="ddfm prior list"):
        load_prior("no-such-prior")

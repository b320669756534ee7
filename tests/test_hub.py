"""The whole way to the Hub and back, through the real upload and download code."""

import pytest

SAVE = """
import diffusers, torch
from diffct import CT3DPipeline, UNet3DModel

torch.manual_seed(0)
unet = UNet3DModel(
    down_block_types=("DownBlock2D", "DownBlock3D"), up_block_types=("UpBlock3D", "UpBlock2D"),
    block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
)
facts = {"data": "synthetic phantoms", "synthetic": True, "license": "apache-2.0",
         "cohort": {"size": [4, 8, 8]}, "losses": {"loss": 0.5}}
pipeline = CT3DPipeline(unet, diffusers.DDPMScheduler(), window_hu=[-1000, 600],
                        spacing_mm=[3, 2, 2], size=[4, 8, 8], training=facts)
pipeline.set_progress_bar_config(disable=True)
volumes = pipeline(num_inference_steps=2, generator=torch.Generator().manual_seed(1)).volumes
torch.save(torch.from_numpy(volumes), "volumes.pt")
"""

LOAD = """
import os, torch
{imports}
pipeline = {load}
assert type(pipeline).__name__ == "CT3DPipeline", type(pipeline)
assert pipeline.config.window_hu == [-1000.0, 600.0] and pipeline.config.size == [4, 8, 8]
assert pipeline.config.training["cohort"] == {{"size": [4, 8, 8]}}
volumes = pipeline(num_inference_steps=2, generator=torch.Generator().manual_seed(1)).volumes
assert abs(torch.load({volumes!r}).numpy() - volumes).max() < 0.05  # HU
"""

WAYS = {
    "own class": (
        "from diffct import CT3DPipeline",
        'CT3DPipeline.from_pretrained("group/pelvis")',
    ),
    "load_pipeline": (
        "import diffct",
        'diffct.load_pipeline("group/pelvis", device="cpu")',
    ),
    "DiffusionPipeline": (
        "import diffct\nfrom diffusers import DiffusionPipeline",
        'DiffusionPipeline.from_pretrained("group/pelvis")',
    ),
}


WITHOUT_DIFFCT = """
import sys
sys.modules["diffct"] = None  # as if it were not installed
from diffusers import DiffusionPipeline
for name in ("group/pelvis", "FOLDER"):
    try:
        DiffusionPipeline.from_pretrained(name, trust_remote_code=True)
    except AttributeError as error:
        assert "pip install diffct; import diffct" in str(error), error
    else:
        raise AssertionError(name)
"""


@pytest.mark.slow
def test_a_pipeline_pushed_to_the_hub_loads_in_every_way(hub, tmp_path):
    volumes = str(tmp_path / "volumes.pt")
    save = SAVE.replace('"volumes.pt"', repr(volumes))
    folder = tmp_path / "saved"
    hub.run(
        save + f'pipeline.push_to_hub("group/pelvis"); pipeline.save_pretrained({str(folder)!r})'
    )

    files = hub.repo_files("group/pelvis")
    assert "unet/diffusion_pytorch_model.safetensors" in files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    card = files["README.md"].decode()
    assert "license: apache-2.0" in card
    assert 'load_pipeline("group/pelvis")' in card
    assert "-1000 to 600 HU" in card

    for imports, load in WAYS.values():
        hub.run(LOAD.format(imports=imports, load=load, volumes=volumes))
    hub.run(WITHOUT_DIFFCT.replace('"FOLDER"', repr(str(folder))))


@pytest.mark.slow
def test_saving_with_push_to_hub_uploads_the_same_card(hub, tmp_path):
    save = SAVE.replace('"volumes.pt"', repr(str(tmp_path / "volumes.pt")))
    folder = tmp_path / "saved"
    hub.run(save + f'pipeline.save_pretrained("{folder}", push_to_hub=True, repo_id="group/other")')
    card = hub.repo_files("group/other")["README.md"].decode()
    assert 'load_pipeline("group/other")' in card
    assert (folder / "README.md").read_text() == card


REFUSED = """
from huggingface_hub import create_repo, upload_file
import diffct

pipeline.push_to_hub("group/pelvis", subfolder="models/ct", variant="fp16")
loaded = diffct.load_pipeline("group/pelvis", subfolder="models/ct", variant="fp16", device="cpu")
assert type(loaded) is CT3DPipeline
for name in ("group/empty", "group/gated"):
    create_repo(name)
upload_file(path_or_fileobj=b"{}", path_in_repo="model_index.json", repo_id="group/gated")
for name, options, kind, words in (
    ("group/none", {}, FileNotFoundError, "no such repository on the Hub"),
    ("group/empty", {}, FileNotFoundError, "holds no pipeline"),
    ("group/gated", {}, PermissionError, "access on request"),
    ("group/pelvis", {"revision": "v9"}, FileNotFoundError, "no such revision"),
    ("group/pelvis", {}, FileNotFoundError, "holds no pipeline"),
    ("group/pelvis", {"subfolder": "ct"}, FileNotFoundError, "holds no pipeline"),
    ("group/a--b..c", {}, FileNotFoundError, "not a Hub id"),
):
    try:
        diffct.load_pipeline(name, device="cpu", **options)
    except OSError as error:
        assert type(error) is kind and words in str(error) and name in str(error), repr(error)
    else:
        raise AssertionError(name)
"""

OFFLINE = """
import os, time
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody answers
import diffct
from diffct.models.latent_diffusion import load_autoencoder, load_parts
from diffct.models.text_encoding import load_text_encoder

begun = time.monotonic()
options = {"subfolder": "models/ct", "variant": "fp16", "device": "cpu"}
assert type(diffct.load_pipeline("group/pelvis", **options)) is diffct.CT3DPipeline
for load in (diffct.load_pipeline, load_parts, load_autoencoder, load_text_encoder):
    try:
        load("group/other")
    except OSError as error:
        assert "no such folder" in str(error) and "no network" in str(error), error
    else:
        raise AssertionError("it loads")
assert time.monotonic() - begun < 8  # a download's own tries take 23 s
"""


@pytest.mark.slow
def test_errors_of_the_hub_are_explained_and_cached_models_do_not_need_it(hub, tmp_path):
    hub.gated.add("group/gated")
    hub.run(SAVE.replace('"volumes.pt"', repr(str(tmp_path / "volumes.pt"))) + REFUSED)
    files = set(hub.repo_files("group/pelvis"))
    assert "models/ct/unet/diffusion_pytorch_model.fp16.safetensors" in files
    assert not any(name.endswith("README.md") for name in files)
    hub.run(OFFLINE)


SAVE_FILMS = """
import diffusers, torch
from diffct import CXRTextToImagePipeline
from diffct.models.small_text_encoder import make_small_text_encoder

torch.manual_seed(0)
tokenizer, text_encoder = make_small_text_encoder(["Left effusion."], width=8, heads=1)
unet = diffusers.UNet2DConditionModel(
    sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 8), layers_per_block=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), norm_num_groups=4,
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=8,
)
vae = diffusers.AutoencoderKL(
    in_channels=1, out_channels=1, latent_channels=3, block_out_channels=(8,), norm_num_groups=4
)
pipeline = CXRTextToImagePipeline(vae, text_encoder, tokenizer, unet, diffusers.DDIMScheduler())
films = pipeline("Left effusion.", num_inference_steps=2, output_type="pt",
                 generator=torch.Generator().manual_seed(1)).images
torch.save(films, "films.pt")
pipeline.push_to_hub("group/films")
"""

LOAD_FILMS = """
import diffct, diffusers, torch
for pipeline in (
    diffct.load_pipeline("group/films", device="cpu"),
    diffct.CXRTextToImagePipeline.from_pretrained("group/films"),
    diffusers.DiffusionPipeline.from_pretrained("group/films"),
    diffusers.StableDiffusionPipeline.from_pretrained(
        "group/films", safety_checker=None, requires_safety_checker=False
    ),
):
    films = pipeline("Left effusion.", num_inference_steps=2, output_type="pt", guidance_scale=7.0,
                     generator=torch.Generator().manual_seed(1)).images
    assert (torch.load("films.pt") - films).abs().max() < 1e-4
"""


@pytest.mark.slow
def test_a_pipeline_of_films_loads_from_the_hub_also_as_stable_diffusion(hub, tmp_path):
    films = repr(str(tmp_path / "films.pt"))
    hub.run(SAVE_FILMS.replace('"films.pt"', films))
    files = hub.repo_files("group/films")
    assert {"vae/config.json", "text_encoder/model.safetensors", "tokenizer/tokenizer.json"} <= {
        *files
    }
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    assert "pipeline_tag: text-to-image" in files["README.md"].decode()
    hub.run(LOAD_FILMS.replace('"films.pt"', films))


SAVE_TRANSLATION = """
import torch
from tests.pipelines.tiny_flair import make_flair_pipeline, make_slices

for nets, name in ((1, "group/one"), (2, "group/two")):
    pipeline = make_flair_pipeline(nets=nets)
    image = [make_slices(seed=seed) for seed in range(nets)]
    images = pipeline(image, num_inference_steps=2, output_type="pt",
                      generator=torch.Generator().manual_seed(1)).images
    torch.save(images, f"FOLDER/{nets}.pt")
    pipeline.push_to_hub(name)
"""

LOAD_TRANSLATION = """
import diffct, diffusers, torch
from tests.pipelines.tiny_flair import make_slices

for nets, name in ((1, "group/one"), (2, "group/two")):
    image = [make_slices(seed=seed) for seed in range(nets)]
    for pipeline in (
        diffct.load_pipeline(name, device="cpu"),
        diffusers.DiffusionPipeline.from_pretrained(name),
    ):
        assert type(pipeline) is diffct.FlairToT1Pipeline
        images = pipeline(image, num_inference_steps=2, output_type="pt",
                          generator=torch.Generator().manual_seed(1)).images
        assert (torch.load(f"FOLDER/{nets}.pt") - images).abs().max() < 1e-4, name
"""


@pytest.mark.slow
def test_a_translation_loads_from_the_hub_also_with_several_controlnets(hub, tmp_path):
    hub.run(SAVE_TRANSLATION.replace("FOLDER", str(tmp_path)))
    files = hub.repo_files("group/two")
    for name in ("controlnet", "controlnet_1"):
        assert f"{name}/diffusion_pytorch_model.safetensors" in files
    assert "pipeline_tag: image-to-image" in files["README.md"].decode()
    hub.run(LOAD_TRANSLATION.replace("FOLDER", str(tmp_path)))

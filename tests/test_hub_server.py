"""The stand-in for the Hub satisfies the real huggingface_hub and diffusers."""

import hashlib
import json
import urllib.error
import urllib.request

import pytest


def _send(url: str, *, method: str, content: bytes, token: str = "") -> bytes:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, data=content, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read()


def test_uploaded_folder_is_downloaded_with_identical_bytes(hub, tmp_path):
    hub.run(f"""
import os
from pathlib import Path
import numpy as np
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors.numpy import save_file

source = Path({str(tmp_path / "source")!r})
(source / "unet").mkdir(parents=True)
(source / "README.md").write_text("---\\nlicense: mit\\n---\\nDosis: 3 µSv\\n")
(source / "empty.txt").touch()
weights = np.random.default_rng(0).normal(size=(512, 1024))
save_file({{"weight": weights}}, source / "unet" / "model.safetensors")

api = HfApi()
repo_id = api.create_repo("model", exist_ok=True).repo_id
assert repo_id == "tester/model", repo_id
assert api.create_repo(repo_id, exist_ok=True).repo_id == repo_id
api.upload_folder(repo_id=repo_id, folder_path=source)
commit = api.model_info(repo_id).sha
api.upload_folder(repo_id=repo_id, folder_path=source)
assert api.model_info(repo_id).sha == commit, "unchanged files make no commit"

copy = Path(snapshot_download(repo_id))
paths = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file())
assert paths == sorted(p.relative_to(copy) for p in copy.rglob("*") if p.is_file())
for path in paths:
    assert (copy / path).read_bytes() == (source / path).read_bytes(), path
    alone = hf_hub_download(repo_id, path.as_posix(), cache_dir={str(tmp_path / "alone")!r})
    assert Path(alone).read_bytes() == (source / path).read_bytes(), path

siblings = {{s.rfilename: s for s in api.model_info(repo_id, files_metadata=True).siblings}}
assert siblings["README.md"].lfs is None
assert siblings["unet/model.safetensors"].lfs.size == weights.nbytes + 80
assert [e.path for e in api.list_repo_tree(repo_id)] == ["README.md", "empty.txt", "unet"]
try:
    hf_hub_download(repo_id, "absent.json")
except EntryNotFoundError:
    pass
else:
    raise AssertionError("a missing file was found")
api.delete_file("empty.txt", repo_id)
assert not api.file_exists(repo_id, "empty.txt") and api.file_exists(repo_id, "README.md")
assert "empty.txt" in api.list_repo_files(repo_id, revision=commit)
""")
    source = tmp_path / "source"
    assert hub.repo_files("tester/model") == {
        path: (source / path).read_bytes() for path in ("README.md", "unet/model.safetensors")
    }
    assert ("POST", "/tester/model.git/info/lfs/objects/verify") in hub.requests


def test_stock_pipeline_survives_the_round_trip(hub):
    hub.run("""
import torch
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DModel

torch.manual_seed(0)
unet = UNet2DModel(
    sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8,),
    down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4,
)
pipeline = DDPMPipeline(unet=unet, scheduler=DDPMScheduler(num_train_timesteps=7))
pipeline.push_to_hub("tester/ddpm")
loaded = DiffusionPipeline.from_pretrained("tester/ddpm")
assert type(loaded) is DDPMPipeline and loaded.scheduler.config.num_train_timesteps == 7
expected = unet.state_dict()
assert expected.keys() == loaded.unet.state_dict().keys()
assert all(torch.equal(value, expected[key]) for key, value in loaded.unet.state_dict().items())
""")
    assert "unet/diffusion_pytorch_model.safetensors" in hub.repo_files("tester/ddpm")


def test_missing_repository_write_without_token_and_bad_card_are_refused(hub):
    hub.run("""
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

def error_of(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except (HfHubHTTPError, ValueError) as error:
        return error
    raise AssertionError(f"{call} was not refused")

api = HfApi()
assert isinstance(error_of(snapshot_download, "tester/absent"), RepositoryNotFoundError)
assert isinstance(error_of(api.model_info, "absent"), RepositoryNotFoundError)
assert error_of(HfApi(token=False).create_repo, "tester/model").response.status_code == 401
assert not api.repo_exists("tester/model")
api.create_repo("tester/model")
assert error_of(api.create_repo, "tester/model").response.status_code == 409
assert isinstance(error_of(api.model_info, "tester/model", revision="v9"), RevisionNotFoundError)
upload = {"path_in_repo": "README.md", "repo_id": "tester/model"}
assert error_of(HfApi(token=False).upload_file, path_or_fileobj=b"# Hi", **upload)
card = b"---\\ntags: [open\\n---\\n# Hi"
assert "Invalid metadata" in str(error_of(api.upload_file, path_or_fileobj=card, **upload))
""")
    assert hub.repo_files("tester/model") == {}


def test_lfs_content_must_have_the_announced_sha256(hub):
    def post(path: str, content: str) -> dict:
        url = f"{hub.url}{path}"
        return json.loads(_send(url, method="POST", content=content.encode(), token="hf_test"))

    post("/api/repos/create", json.dumps({"name": "model", "organization": None}))
    oid = hashlib.sha256(b"weights").hexdigest()
    batch = json.dumps({"objects": [{"oid": oid, "size": 7}]})
    answer = post("/tester/model.git/info/lfs/objects/batch", batch)
    upload = answer["objects"][0]["actions"]["upload"]["href"]
    lines = [
        {"key": "header", "value": {"summary": "add weights"}},
        {"key": "lfsFile", "value": {"path": "model.bin", "oid": oid, "size": 7}},
    ]
    commit = "\n".join(json.dumps(line) for line in lines)

    with pytest.raises(urllib.error.HTTPError, match="400"):
        _send(upload, method="PUT", content=b"weightz")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        _send(upload.split("?")[0], method="PUT", content=b"weights")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        post("/api/models/tester/model/commit/main", commit)
    assert hub.repo_files("tester/model") == {}

    _send(upload, method="PUT", content=b"weights")
    post("/api/models/tester/model/commit/main", commit)
    assert hub.repo_files("tester/model") == {"model.bin": b"weights"}

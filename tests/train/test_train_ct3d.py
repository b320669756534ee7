"""The training script of 3D CT models: its files, and its messages about bad input."""

import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import diffct
from diffct.data.splits import read_split
from diffct.phantoms.pelvis.cohort import write_pelvis_cohort
from diffct.train import CONFIGS
from diffct.train.train_ct3d import CT3DConfig, main

TINY = [
    "tracker=none",
    "data.size=[4,16,16]",
    "data.spacing_mm=[20,20,20]",
    "data.validation_fraction=0.34",
    "unet.down_block_types=[DownBlock2D,AttnDownBlock3D]",
    "unet.up_block_types=[AttnUpBlock3D,UpBlock2D]",
    "unet.block_out_channels=[8,16]",
    "unet.attention_head_dim=8",
    "unet.norm_num_groups=4",
    "train.updates=4",
    "train.batch_size=1",
    "train.validate_every=2",
    "train.validation_draws=2",
    "train.checkpoint_every=1",
    "train.preview_every=4",
    "preview.volumes=1",
    "preview.steps=2",
]


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Make a folder of six small scans."""
    folder = tmp_path_factory.mktemp("cohort")
    write_pelvis_cohort(
        folder / "made", number=6, seed=5, size=(4, 16, 16), spacing_mm=(20.0, 20.0, 20.0)
    )
    return folder / "made" / "images"


def train(output: Path, *words: str) -> None:
    main(["--config", str(CONFIGS / "ct3d/diffusion.yaml"), f"output_dir={output}", *TINY, *words])


def refuse(output: Path, *words: str) -> str:
    """Return what the script says when it gives up."""
    with pytest.raises(SystemExit) as stop:
        train(output, *words)
    return str(stop.value)


def test_a_run_leaves_a_pipeline_pictures_and_pruned_checkpoints(tmp_path, scans):
    output = tmp_path / "run"
    train(output, f"data.folder={scans}", "tracker=tensorboard")

    names = sorted(path.name for path in (output / "checkpoints").iterdir())
    assert names == ["checkpoint-00000003", "checkpoint-00000004"]
    assert list(read_split(output / "scans.jsonl").values()).count("validation") == 2
    assert (output / "loss.png").stat().st_size > 5000
    assert [path.name for path in (output / "previews").iterdir()] == ["update-00000004.png"]
    assert list(output.rglob("events.out.tfevents*"))
    assert (output / "pipeline-best" / "model_index.json").exists()

    pipeline = diffct.load_pipeline(output / "pipeline", device="cpu")
    assert pipeline.config.size == [4, 16, 16]
    assert pipeline.config.spacing_mm == [20.0, 20.0, 20.0]
    facts = pipeline.config.training
    assert (facts["updates"], facts["synthetic"]) == (4, False)
    assert facts["cohort"]["train_scans"] == 4
    card = (output / "pipeline" / "README.md").read_text()
    assert str(scans) not in card
    assert "# pipeline\n" in card
    assert pipeline(num_inference_steps=2).volumes.shape == (1, 4, 16, 16)

    # The saved network is the moving average, not the last weights.
    last = load_file(output / "checkpoints/checkpoint-00000004/model.safetensors")
    published = load_file(output / "pipeline/unet/diffusion_pytorch_model.safetensors")
    assert last.keys() == published.keys()
    assert any(not torch.equal(last[name], published[name]) for name in last)


def test_the_finished_run_can_be_resumed_and_another_one_is_refused(tmp_path, scans):
    output = tmp_path / "run"
    train(output, f"data.folder={scans}")
    before = load_file(output / "pipeline/unet/diffusion_pytorch_model.safetensors")
    train(output, f"data.folder={scans}", "--resume", "train.log_every=2")
    after = load_file(output / "pipeline/unet/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)

    assert "--resume" in refuse(output, f"data.folder={scans}")
    message = refuse(output, f"data.folder={scans}", "--resume", "optim.lr=0.5")
    assert "another configuration" in message and "optim.lr" in message


def test_a_damaged_checkpoint_is_named_and_data_that_moved_are_found(tmp_path, scans):
    data, output = tmp_path / "data", tmp_path / "run"
    shutil.copytree(scans, data)
    train(output, f"data.folder={data}")
    data.rename(tmp_path / "moved")
    assert "there is no such folder" in refuse(output, f"data.folder={data}", "--resume")
    words = (f"data.folder={tmp_path / 'moved'}", "--resume")
    train(output, *words)

    checkpoint = output / "checkpoints/checkpoint-00000004"
    for name in ("custom_checkpoint_1.pkl", "optimizer.bin", "model.safetensors"):
        (checkpoint / name).write_bytes((checkpoint / name).read_bytes()[:1000])
        message = refuse(output, *words)
        assert f"{checkpoint} is damaged" in message
        assert "delete this folder to continue from checkpoint-00000003" in message
    shutil.rmtree(checkpoint)
    train(output, *words)
    assert checkpoint.is_dir()
    (output / "run.json").write_text("{")
    assert "run.json cannot be read" in refuse(output, *words)


def test_only_a_run_is_resumed_and_only_into_a_folder_that_can_be_written(tmp_path, scans, capsys):
    with pytest.raises(SystemExit):
        main([f"output_dir={tmp_path / 'mistyped'}", "--resume"])
    assert "holds no run to resume (no config.yaml)" in capsys.readouterr().err
    assert not (tmp_path / "mistyped").exists()
    (tmp_path / "file").touch()
    assert "a file is in its way" in refuse(tmp_path / "file", f"data.folder={scans}")
    words = (f"data.folder={scans}", f"data.cache_dir={tmp_path / 'file'}")
    assert "a file is in its way" in refuse(tmp_path / "run", *words)
    capsys.readouterr()
    train(tmp_path / "run", f"data.folder={scans}", "data.cache_dir=", "--resume")
    assert "holds no checkpoint yet: the run starts" in capsys.readouterr().out
    (tmp_path / "run/config.yaml").unlink()
    for words in ((), ("--resume",)):
        message = refuse(tmp_path / "run", f"data.folder={scans}", *words)
        assert "holds checkpoints, but not the config.yaml of their run" in message


@pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="this CPU has no bf16 arithmetic"
)
def test_mixed_precision_trains_and_publishes_full_precision_weights(tmp_path, scans):
    output = tmp_path / "run"
    train(output, f"data.folder={scans}", "mixed_precision=bf16")
    for name in ("pipeline", "pipeline-best"):
        weights = load_file(output / name / "unet/diffusion_pytorch_model.safetensors")
        assert {weight.dtype for weight in weights.values()} == {torch.float32}
        assert all(weight.isfinite().all() for weight in weights.values())
    assert list((output / "previews").iterdir())


def test_gradient_checkpointing_learns_the_same(tmp_path, scans):
    plain, checkpointed = tmp_path / "plain", tmp_path / "checkpointed"
    train(plain, f"data.folder={scans}")
    train(checkpointed, f"data.folder={scans}", "train.gradient_checkpointing=true")
    name = "pipeline/unet/diffusion_pytorch_model.safetensors"
    first, second = load_file(plain / name), load_file(checkpointed / name)
    assert all(torch.allclose(first[key], second[key], atol=1e-5) for key in first)


def test_weights_can_be_taken_from_another_run(tmp_path, scans):
    first, second = tmp_path / "first", tmp_path / "second"
    train(first, f"data.folder={scans}")
    train(
        second,
        f"data.folder={scans}",
        f"initial_weights={first / 'pipeline'}",
        "optim.lr=0",
        "ema.decay=0",
    )
    name = "pipeline/unet/diffusion_pytorch_model.safetensors"
    old, new = load_file(first / name), load_file(second / name)
    assert all(torch.allclose(old[key], new[key], atol=1e-6) for key in old)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("unet.block_out_chanels=[8,16]", r"unet.block_out_channels"),
        ("unet.norm_num_groups=5", r"multiple of\s+norm_num_groups=5"),
        ("unet.down_block_types=[DownBlock4D,DownBlock3D]", "DownBlock4D"),
        ("scheduler.beta_strat=0.1", "scheduler.beta_start"),
        ("scheduler._class_name=NoScheduler", "NoScheduler"),
        ("scheduler.prediction_type=score", "score"),
        ("preview.scheduler=NoPreviewer", "NoPreviewer"),
        ("tracker=paper", "tensorboard"),
        ("mixed_precision=fp64", "fp64"),
        ("train.keep_checkpoints=0", "keep_checkpoints"),
        ("data.fit=stretch", "data.fit"),
        ("unet.num_class_embeds=2", "without classes"),
    ],
)
def test_wrong_settings_end_the_script_before_it_trains(tmp_path, scans, word, message, capsys):
    said = refuse(tmp_path / "run", f"data.folder={scans}", word) + capsys.readouterr().err
    assert re.search(message, said), said
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_unknown_keys_are_named_on_the_command_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([f"output_dir={tmp_path}", "optim.learning_rate=1"])
    assert "optim.learning_rate" in capsys.readouterr().err


def test_bad_scans_are_all_named_before_training(tmp_path, scans):
    folder = tmp_path / "scans"
    shutil.copytree(scans, folder)
    (folder / "truncated.nii.gz").write_bytes((scans / "pelvis_0000.nii.gz").read_bytes()[:200])
    grey = np.random.default_rng(0).integers(0, 255, (16, 16, 4)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(grey, np.eye(4)), folder / "photo.nii.gz")
    said = refuse(tmp_path / "run", f"data.folder={folder}")
    assert "truncated.nii.gz" in said and "photo.nii.gz" in said
    assert "pelvis_0001" not in said
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_folders_without_enough_scans_are_refused(tmp_path, scans):
    (tmp_path / "empty").mkdir()
    assert "empty" in refuse(tmp_path / "a", f"data.folder={tmp_path / 'empty'}")
    (tmp_path / "one").mkdir()
    shutil.copy(scans / "pelvis_0000.nii.gz", tmp_path / "one")
    assert "patient" in refuse(tmp_path / "b", f"data.folder={tmp_path / 'one'}")


def test_a_diverging_loss_stops_and_the_last_checkpoint_is_finite(tmp_path, scans):
    said = refuse(
        tmp_path / "run",
        f"data.folder={scans}",
        *("optim.lr=1e18", "optim.warmup_updates=0", "train.updates=50", "train.validate_every=0"),
    )
    assert "training stopped" in said
    kept = sorted((tmp_path / "run" / "checkpoints").glob("checkpoint-*"))
    assert kept and str(kept[-1]) in said
    for weight in load_file(kept[-1] / "model.safetensors").values():
        assert weight.isfinite().all()


def test_the_shipped_configurations_fit_the_schema_and_the_network():
    from diffct.config import load_config
    from diffct.sections import check_arguments

    for path in CONFIGS.glob("ct3d/*.yaml"):
        config = load_config(CT3DConfig, path)
        check_arguments("unet", config.unet, diffct.UNet3DModel)
        with torch.device("meta"):
            unet = diffct.UNet3DModel(**config.unet)
        if "published" in path.name:
            assert sum(weight.numel() for weight in unet.parameters()) == 275_148_225
            assert (config.optim.lr, config.train.updates) == (1e-4, 46_000)


def test_a_model_that_could_not_be_saved_is_refused_before_training(tmp_path, scans, capsys):
    # Four slices of 20 mm resized to two are 40 mm apart, which a pipeline refuses.
    run = tmp_path / "run"
    words = [f"data.folder={scans}", "data.fit=resize", "data.spacing_mm=null"]
    assert "spacing_mm is [40.0, " in refuse(run, *words, "data.size=[2,16,16]")
    assert "Networks:" not in capsys.readouterr().out  # what a run says when it begins to train

"""The training loop: what it calls at which interval, and its messages when a step fails."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from diffct.training.checkpoints import Checkpoints, Progress
from diffct.training.loop import Events, LoopConfig, fit


class Numbers(Dataset):
    """Ten numbers that remember the epoch."""

    epoch = -1

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"number": torch.tensor(index), "epoch": torch.tensor(self.epoch)}

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class Diary:
    """Records what the loop calls."""

    def __init__(self, losses: list[float], **options: str) -> None:
        self.losses = iter(losses) if losses else None
        self.options = options
        self.validated = 0
        self.saved: list[str] = []
        self.previews: list[str] = []

    def events(self) -> Events:
        return Events(
            validate=self.validate if self.losses else None,
            preview=self.preview,
            save=self.save,
            **self.options,
        )

    def validate(self) -> float:
        self.validated += 1
        return next(self.losses)

    def preview(self, path: Path) -> None:
        self.previews.append(path.name)

    def save(self, path: Path) -> None:
        self.saved.append(path.name)


def run(tmp_path, step, *, config: LoopConfig, diary: Diary, accumulation: int = 1) -> Progress:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    loader = accelerator.prepare(DataLoader(Numbers(), batch_size=2, shuffle=True))
    progress = Progress()
    accelerator.register_for_checkpointing(progress)

    def accumulating(batch, generator):
        with accelerator.accumulate():
            return step(batch, generator)

    fit(
        accelerator,
        accumulating,
        config=config,
        loader=loader,
        progress=progress,
        checkpoints=Checkpoints(tmp_path / "checkpoints", accelerator=accelerator, keep=1),
        events=diary.events(),
        folder=tmp_path,
        seed=0,
    )
    return progress


def test_events_come_at_their_intervals_and_at_the_end(tmp_path):
    diary = Diary([0.5, 0.7, 0.4])
    config = LoopConfig(
        updates=7, log_every=2, validate_every=3, preview_every=4, checkpoint_every=5
    )
    progress = run(tmp_path, lambda *_: {"loss": 1.0}, config=config, diary=diary)
    assert (progress.update, progress.epoch, progress.batch) == (7, 1, 2)
    assert diary.validated == 3  # at 3, 6 and 7
    assert diary.saved == ["pipeline-best", "pipeline", "pipeline-best", "pipeline"]
    assert progress.best == 0.4
    assert diary.previews == ["update-00000004.png", "update-00000007.png"]
    assert [row["update"] for row in progress.history if "loss" in row] == [2, 4, 6, 7]


def test_another_product_has_its_own_folders_and_no_best_one_without_validation(tmp_path):
    config = LoopConfig(updates=4, validate_every=2, preview_every=0, checkpoint_every=2)
    diary = Diary([0.5, 0.7], product="autoencoder")
    run(tmp_path, lambda *_: {"loss": 1.0}, config=config, diary=diary)
    assert diary.saved == ["autoencoder-best", "autoencoder", "autoencoder"]
    diary = Diary([])
    progress = run(tmp_path, lambda *_: {"loss": 1.0}, config=config, diary=diary)
    assert diary.saved == ["pipeline", "pipeline"]
    assert not any("validation_loss" in row for row in progress.history)


def test_a_loss_that_starts_late_is_averaged_over_the_micro_batches_that_have_it(tmp_path):
    rows = iter([{"loss": 1.0}, {"loss": 2.0}, {"loss": 3.0, "late": 5.0}, {"loss": 4.0}])
    config = LoopConfig(updates=4, log_every=2, validate_every=0, preview_every=0)
    progress = run(tmp_path, lambda *_: next(rows), config=config, diary=Diary([]))
    assert progress.history == [
        {"update": 2, "loss": 1.5},
        {"update": 4, "loss": 3.5, "late": 5.0},
    ]


def test_every_epoch_visits_every_item_in_another_order(tmp_path):
    seen = []

    def step(batch, _):
        seen.append((batch["epoch"].tolist(), batch["number"].tolist()))
        return {"loss": 0.0}

    run(
        tmp_path,
        step,
        config=LoopConfig(updates=10, validate_every=0, checkpoint_every=0, preview_every=0),
        diary=Diary([]),
    )
    first = [n for epochs, numbers in seen[:5] for n in numbers]
    second = [n for epochs, numbers in seen[5:] for n in numbers]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert {epoch for epochs, _ in seen[:5] for epoch in epochs} == {0}
    assert {epoch for epochs, _ in seen[5:] for epoch in epochs} == {1}


def test_accumulation_counts_updates_not_micro_batches(tmp_path):
    calls = []
    config = LoopConfig(updates=4, validate_every=0, checkpoint_every=0, preview_every=0)
    run(
        tmp_path,
        lambda *_: calls.append(1) or {"loss": 0.0},
        config=config,
        diary=Diary([]),
        accumulation=2,
    )
    # Five micro-batches an epoch make three updates; the fourth ends in the second epoch.
    assert len(calls) == 7


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")]
)
def test_running_out_of_memory_names_the_settings_to_lower(tmp_path, error):
    def step(*_):
        raise error

    with pytest.raises(MemoryError, match=r"data\.size.*train\.gradient_checkpointing"):
        run(tmp_path, step, config=LoopConfig(updates=1), diary=Diary([]))


def test_other_errors_keep_their_message(tmp_path):
    def step(*_):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(tmp_path, step, config=LoopConfig(updates=1), diary=Diary([]))

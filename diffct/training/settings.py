"""The configuration sections that all training scripts share."""

from dataclasses import dataclass, field

from diffct.config import FREE, PATH, POSITIVE, within
from diffct.training.loop import LoopConfig


@dataclass
class TrainConfig(LoopConfig):
    """The intervals of the training loop, and the loading of its data.

    Args:
        batch_size: Samples per micro-batch and process.
        gradient_accumulation: Micro-batches per update.
        workers: Processes that load data, per training process.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
        channels_last: Keep images and weights in `channels_last` memory, or `channels_last_3d`.
            Faster on a CPU for shallow networks (1.8 times for a 3D one of 16 to 128 channels);
            in-slice blocks then copy nothing.
    """

    batch_size: int = field(default=1, metadata=within(1))
    gradient_accumulation: int = field(default=1, metadata=within(1))
    workers: int = field(default=0, metadata=within(0) | FREE)
    gradient_checkpointing: bool = field(default=False, metadata=FREE)
    channels_last: bool = False


@dataclass
class OptimConfig:
    """AdamW and its learning rate.

    Args:
        lr: Peak learning rate.
        lr_factors: Factors of the learning rate for parts of the network, e.g. {text_encoder: 0.1}.
        betas: Decay rates of the moments.
        weight_decay: Decoupled weight decay.
        schedule: A diffusers schedule, e.g. cosine, constant_with_warmup.
        warmup_updates: Updates until the peak is reached.
        max_grad_norm: Largest gradient norm; larger ones are scaled down.
    """

    lr: float = field(default=1e-4, metadata=within(0))
    lr_factors: dict[str, float] = field(default_factory=dict, metadata=within(0))
    betas: tuple[float, float] = field(default=(0.9, 0.999), metadata=within(0, 1))
    weight_decay: float = field(default=0.01, metadata=within(0))
    schedule: str = "cosine"
    warmup_updates: int = field(default=1000, metadata=within(0))
    max_grad_norm: float = field(default=1.0, metadata=POSITIVE)


@dataclass
class EMAConfig:
    """Moving average of the weights, with a decay of min(decay, 1 − (1 + update)^−power).

    Args:
        decay: Largest decay.
        power: How fast the decay grows at the beginning.
    """

    decay: float = field(default=0.9999, metadata=within(0, 1))
    power: float = field(default=0.75, metadata=within(0))


@dataclass
class RunConfig:
    """The settings of every training script.

    Args:
        output_dir: Folder of the run.
        seed: Seed of all random numbers.
        mixed_precision: auto, no, fp16 or bf16; see `diffct.training.precision`.
        tracker: tensorboard, mlflow, wandb or none.
    """

    output_dir: str = field(default="outputs/run", metadata=PATH | FREE)
    seed: int = field(default=0, metadata=within(0, 2**32 - 1))
    mixed_precision: str = "auto"
    tracker: str = field(default="tensorboard", metadata=FREE)
    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)

"""The requirements of diffusers' own tests on every pipeline, for CT3DPipeline."""

import inspect
import math

import diffusers
import numpy as np
import pytest
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback

from diffct import CT3DPipeline, UNet3DModel
from diffct.cli import main
from diffct.pipelines.outputs import CT3DPipelineOutput, TextToImagePipelineOutput
from tests.pipelines.test_ct3d import TinyDecoder


def make_pipeline(
    vae: TinyDecoder | None = None,
    scheduler: diffusers.SchedulerMixin | None = None,
    size: list[int] | None = None,
) -> CT3DPipeline:
    torch.manual_seed(0)
    unet = UNet3DModel(
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type=None,
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=4,
    ).eval()
    scheduler = scheduler or diffusers.DDIMScheduler(timestep_spacing="trailing")
    pipeline = CT3DPipeline(unet, scheduler, vae=vae, size=size or [4, 8, 8])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def seeds(number: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(number)]


def sample(pipeline: CT3DPipeline, **options: object):
    generator = torch.Generator().manual_seed(0)
    return pipeline(**{"num_inference_steps": 2, "generator": generator} | options)[0]


def test_all_arguments_are_optional_and_named_as_in_diffusers():
    arguments = inspect.signature(CT3DPipeline.__call__).parameters
    asked = """batch_size generator num_inference_steps timesteps sigmas latents output_type
        return_dict callback_on_step_end callback_on_step_end_tensor_inputs eta"""
    assert set(asked.split()) <= set(arguments)
    defaults = [a.default for name, a in arguments.items() if name != "self"]
    assert inspect.Parameter.empty not in defaults


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 3, "generator": seeds(2)}, "2 generators for 3 samples"),
        ({"batch_size": 2, "generator": seeds(3)}, "3 generators for 2 samples"),
        ({"batch_size": 2, "generator": tuple(seeds(2))}, "a list of them"),
        ({"eta": 2.0}, "eta=2.0 must be between 0 and 1"),
        ({"eta": float("nan")}, "eta=nan must be between 0 and 1"),
        ({"latents": torch.randn(2, 1, 4, 8, 8)}, r"\(2, 1, 4, 8, 8\), not \(1, 1, 4, 8, 8\)"),
        ({"sample": torch.randn(2, 1, 4, 8, 8)}, r"\(2, 1, 4, 8, 8\), not \(1, 1, 4, 8, 8\)"),
        ({"latents": torch.randn(1, 3, 4, 8, 8)}, r"not \(1, 1, 4, 8, 8\)"),
        ({"latents": torch.randn(1, 4, 8, 8)}, r"\(1, 4, 8, 8\), not"),
        ({"latents": torch.full((1, 1, 4, 8, 8), math.nan)}, "latents .* not finite"),
        ({"latents": torch.randn(1, 1, 4, 8, 8), "size": (4, 8, 16)}, r"not \(1, 1, 4, 8, 16\)"),
        ({"latents": torch.randn(1), "sample": torch.randn(1)}, "not both"),
        ({"output_type": "nifti"}, "'nifti' is none of np, pt, latent"),
        ({"size": np.zeros(0)}, "size must be three positive integers"),
        ({"size": (4, 8, 8.5)}, "size must be three positive integers"),
        ({"num_inference_steps": 0}, "num_inference_steps=0"),
        ({"num_inference_steps": 2.5}, "num_inference_steps=2.5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": True}, "batch_size=True"),
        ({"callback_on_step_end_tensor_inputs": ["unet"]}, r"\['unet'\] are none of"),
        ({"timesteps": [3, 2], "sigmas": [1.0]}, "timesteps or sigmas"),
        ({"timesteps": [900, 10]}, r"DDIMScheduler .*timesteps \[900, 10\] it fails"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        sample(make_pipeline(), **options)


def test_latents_of_a_latent_model_are_checked_and_set_the_size():
    pipeline = make_pipeline(TinyDecoder(), size=[5, 8, 8])
    assert sample(pipeline, latents=torch.randn(1, 1, 3, 4, 4)).shape == (1, 5, 8, 8)
    assert sample(pipeline, latents=torch.randn(1, 1, 4, 6, 4)).shape == (1, 8, 12, 8)
    # Without the check, the decoded volume was cut to a size that nobody asked for.
    with pytest.raises(ValueError, match=r"\(1, 1, 2, 4, 4\), not \(1, 1, 3, 4, 4\)"):
        sample(pipeline, latents=torch.randn(1, 1, 2, 4, 4), size=(5, 8, 8))
    assert pipeline.scheduler.config.clip_sample is False


def test_sizes_may_be_any_sequence_of_whole_numbers():
    pipeline = make_pipeline()
    for size in (np.array([4, 8, 8]), torch.tensor([4, 8, 8]), [4.0, 8, 8]):
        assert sample(pipeline, size=size).shape == (1, 4, 8, 8)


def test_class_labels_are_whole_numbers():
    unet = make_pipeline().unet.config
    options = {name: value for name, value in unet.items() if not name.startswith("_")}
    unet = UNet3DModel(**options | {"num_class_embeds": 3})
    pipeline = CT3DPipeline(unet, diffusers.DDIMScheduler(), size=[4, 8, 8])
    for wrong in (0.5, True, float("nan")):
        with pytest.raises(ValueError, match="class_labels must be 1 integers"):
            sample(pipeline, class_labels=wrong)


@pytest.mark.parametrize("name", ["latents", "sample"])
def test_both_names_of_the_noise_give_the_same_volume(name):
    noise = torch.randn(1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    pipeline = make_pipeline()
    assert np.array_equal(sample(pipeline, **{name: noise}), sample(pipeline))


def test_a_tuple_holds_the_same_volumes_and_equal_seeds_give_equal_ones():
    pipeline = make_pipeline()
    as_tuple = sample(pipeline, return_dict=False, batch_size=2)
    generator = torch.Generator().manual_seed(0)
    as_output = pipeline(2, num_inference_steps=2, generator=generator)
    assert np.array_equal(as_tuple, as_output.volumes)
    assert np.array_equal(as_output.volumes, sample(pipeline, batch_size=2))


def test_tensors_arrays_and_latents_hold_the_same_numbers():
    pipeline = make_pipeline()
    array, tensor, latents = (sample(pipeline, output_type=t) for t in ("np", "pt", "latent"))
    assert np.array_equal(array, tensor.numpy())
    assert latents.shape == (1, 1, 4, 8, 8)
    assert torch.allclose(latents[:, 0].clamp(-1, 1) * 1000, tensor, atol=1e-3)
    with pytest.raises(ValueError, match="latents"):
        pipeline(num_inference_steps=1, output_type="latent").save("nowhere")


@pytest.mark.parametrize("name", ["latents", "sample"])
def test_a_callback_sees_and_changes_what_it_asks_for(name):
    pipeline = make_pipeline()
    seen = []

    def silence(pipeline, step, timestep, tensors):
        seen.append(sorted(tensors))
        # As diffusers' tests do it: change one tensor, and give all of them back.
        tensors[name] = torch.zeros_like(tensors[name])
        return tensors

    options = {"callback_on_step_end": silence, "output_type": "latent"}
    asked = pipeline._callback_tensor_inputs
    assert not sample(pipeline, callback_on_step_end_tensor_inputs=asked, **options).any()
    assert not sample(pipeline, callback_on_step_end_tensor_inputs=[name], **options).any()
    assert seen == [["latents", "sample"]] * 2 + [[name]] * 2


def test_callbacks_are_objects_too_and_can_interrupt():
    class Stop(PipelineCallback):
        tensor_inputs = ["latents"]  # noqa: RUF012 - as diffusers declares it

        def callback_fn(self, pipeline, step, timestep, tensors):
            steps.append(step)
            pipeline._interrupt = step == 1
            return tensors

    pipeline, steps = make_pipeline(), []
    for callback in (Stop(), MultiPipelineCallbacks([Stop()])):
        steps.clear()
        sample(pipeline, num_inference_steps=5, callback_on_step_end=callback)
        assert steps == [0, 1]
        assert pipeline.num_timesteps == 5 and pipeline.interrupt
    sample(pipeline)
    assert not pipeline.interrupt


def test_timesteps_sigmas_and_eta_reach_the_scheduler():
    pipeline = make_pipeline()
    assert not np.array_equal(sample(pipeline), sample(pipeline, eta=1.0))
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    assert np.array_equal(sample(pipeline, timesteps=[999, 499]), sample(pipeline))
    sigmas = np.array([100.0, 1.0, 0.05, 0.0])
    assert np.isfinite(sample(pipeline, sigmas=sigmas)).all() and pipeline.num_timesteps == 3


def test_the_callers_scheduler_is_not_changed():
    scheduler = diffusers.DDPMScheduler()
    config = dict(scheduler.config)
    for vae in (None, TinyDecoder()):
        pipeline = make_pipeline(vae, scheduler)
        sample(pipeline, num_inference_steps=3)
        assert dict(scheduler.config) == config and scheduler.num_inference_steps is None
    assert np.array_equal(
        sample(CT3DPipeline(**make_pipeline().components, size=[4, 8, 8])), sample(make_pipeline())
    )


@pytest.mark.parametrize("vae", [None, TinyDecoder()])
def test_a_pipeline_made_of_another_decodes_as_it_does(vae):
    pipeline = make_pipeline(vae)
    other = CT3DPipeline.from_pipe(pipeline)
    assert other.vae is vae and other.unet is pipeline.unet
    assert np.array_equal(sample(other), sample(pipeline))
    assert CT3DPipeline.from_pipe(pipeline, vae=None).vae is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_of_any_type_are_saved_wherever_they_are(tmp_path, dtype):
    class OnGPU(torch.Tensor):
        """A tensor that refuses NumPy as those of CUDA do."""

        def __array__(self, *arguments: object, **options: object) -> np.ndarray:
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")

        numpy = __array__

        def cpu(self) -> torch.Tensor:
            return self.as_subclass(torch.Tensor)

    volumes = torch.full((1, 4, 8, 8), -512.0, dtype=dtype, requires_grad=True)
    output = CT3DPipelineOutput(volumes.as_subclass(OnGPU), np.eye(4), (1.0, 1.0, 1.0))
    (path,) = output.save(tmp_path)
    assert path.is_file()
    films = torch.full((1, 1, 8, 8), 0.5, dtype=dtype, requires_grad=True).as_subclass(OnGPU)
    output = TextToImagePipelineOutput(films)
    assert np.all(output.films()[0] == 0.5) and output.films()[0].dtype == np.float32
    assert output.save(tmp_path)[0].is_file()


@pytest.mark.parametrize("name", ["PNDMScheduler", "EDMEulerScheduler", "LCMSchedule"])
def test_the_command_line_refuses_a_scheduler_in_one_line(tmp_path, name, capsys):
    make_pipeline(scheduler=diffusers.DDPMScheduler(prediction_type="sample")).save_pretrained(
        tmp_path / "a pipeline [x0]"
    )
    command = ["sample", str(tmp_path / "a pipeline [x0]"), "--scheduler", name, "--device", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--steps", "3", "--out", str(tmp_path / "out")])
    said = f"{stopped.value}{capsys.readouterr().err}".strip()
    assert name in said and "ddim" in said and "Traceback" not in said
    assert not (tmp_path / "out" / "sample-0000.nii.gz").exists()

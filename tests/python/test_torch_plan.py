# SPDX-License-Identifier: Apache-2.0
"""Tuned plans in PyTorch, as far as no GPU is needed: what is chosen, which weights stay raw, and refinement."""

from __future__ import annotations

import functools
import warnings

import pytest

torch = pytest.importorskip("torch")

import unweight
import unweight.torch as uw
from unweight import _library
from unweight.errors import DeviceProblem, InvalidArgument, InvalidData
from unweight.plan import PlanFile
from unweight.torch import _device
from unweight.torch import plan as plan_module
from unweight.torch._device import Resolved, WeightClass

import plans

BF16 = torch.bfloat16
needs_cuda_part = pytest.mark.skipif(not unweight.has_cuda_part(), reason="the library has no CUDA part")


class Weight:
    """What a plan sees of a packed weight."""

    device_index = 0

    def __init__(self, rows: int = 64, cols: int = 64, layout: int = 1, exceptions: int = 0) -> None:
        self.rows, self.cols = rows, cols
        self.weight_class = WeightClass(rows, cols, layout, exceptions)
        self.choices = {}

    def choose_config(self, tokens: int):
        config = _library.sized(_library.MatmulConfig)
        config.strips = config.stages = 7  # no configuration of a kernel: to be told from others
        return config


@pytest.fixture
def simulated(monkeypatch):
    """The library's own choice for a GPU that is not there."""
    gpu = (plans.GPU, 132)
    monkeypatch.setattr(plan_module, "resolve", functools.partial(_device.resolve, gpu=gpu))
    return gpu


# ---- what is made of the library's choice ---------------------------------------------------------------------------


@pytest.fixture
def scripted(monkeypatch):
    """Choices of the library that the test decides: by tokens, (pipeline, source, notes)."""
    answers, asked = {}, []

    def resolve(weight, tokens, file, dependent_launch):
        asked.append((weight, tokens, dependent_launch))
        last = 1 << (tokens - 1).bit_length()
        pipeline, source, notes = answers.get(last, (0, 3, []))
        config = _library.sized(_library.MatmulConfig)
        config.strips, config.stages = 2, 5
        return Resolved(pipeline, source, 1 if last == 1 else last // 2 + 1, last, config, notes)

    monkeypatch.setattr(plan_module, "resolve", resolve)
    return answers, asked


def test_choices_of_plan_and_table_are_followed(scripted):
    answers, asked = scripted
    answers.update({1: (0, 1, []), 8: (0, 2, []), 64: (1, 1, []), 2048: (1, 3, []), 32768: (0, 4, [])})
    plan, weight = uw.TunedPlan(), Weight()
    assert isinstance(plan, uw.Plan)
    choice = plan.choose(weight, 1)
    assert (choice.pipeline, choice.source, choice.config.stages) == ("fused", "plan", 5)
    choice = plan.choose(weight, 7)
    assert (choice.pipeline, choice.source, choice.config.stages) == ("fused", "built-in table", 5)
    assert plan.choose(weight, 40) == uw.Choice("decoded", None, "plan")
    # Where neither has a say the rules decide, with their limit.
    choice = plan.choose(weight, 2)
    assert (choice.pipeline, choice.source, choice.config.stages) == ("fused", "rules", 7)
    assert plan.choose(weight, 1025).pipeline == "decoded" and plan.choose(weight, 20000).pipeline == "decoded"
    assert uw.TunedPlan(fused_tokens=30000).choose(weight, 20000).pipeline == "fused"
    assert uw.TunedPlan(fused_tokens=1).choose(weight, 2).pipeline == "decoded"
    assert uw.TunedPlan(fused_tokens=1).choose(weight, 7).pipeline == "fused"
    # More than the library knows of is not asked for.
    asked.clear()
    assert plan.choose(weight, 65537) == uw.Choice("decoded") and not asked


def test_the_library_is_asked_once_for_a_bucket_and_class(scripted):
    answers, asked = scripted
    answers[8] = (0, 2, [])
    plan = uw.TunedPlan()
    for weight in (Weight(), Weight()):
        for tokens in (5, 6, 7, 8):
            plan.choose(weight, tokens)
    assert len(asked) == 1
    plan.choose(Weight(exceptions=2), 8)
    plan.choose(Weight(), 4)
    assert [(weight.exceptions, tokens) for weight, tokens, _ in asked] == [(0, 5), (2, 8), (0, 4)]
    plan.forget()
    plan.choose(Weight(), 8)
    assert len(asked) == 4


def test_notes_on_the_plan_are_warned_of_once(scripted):
    answers, _ = scripted
    for last in (1, 2, 4):
        answers[last] = (0, 3, ["plan not used: it was made for X"])
    with pytest.warns(UserWarning, match="unweight: plan not used: it was made for X") as seen:
        plan = uw.TunedPlan.parse(plans.two_weights())
        for tokens in (1, 2, 4):
            plan.choose(Weight(), tokens)
            plan.choose(Weight(128), tokens)
    assert len(seen) == 1 and plan.notes == ["plan not used: it was made for X"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        uw.TunedPlan().choose(Weight(), 1)  # of a user who has no plan, no word


def test_dependent_launch_is_the_plans_own(scripted):
    _, asked = scripted
    for text_has, wanted, expected in ((True, None, 1), (False, None, 0), (True, False, 0), (False, True, 1)):
        plan = uw.TunedPlan.parse(plans.two_weights(dependent_launch=text_has), dependent_launch=wanted)
        choice = plan.choose(Weight(), 3)  # the rules'
        assert choice.config.dependent_launch == expected and asked[-1][2] == bool(expected)
    assert uw.TunedPlan().dependent_launch


def test_files(tmp_path):
    PlanFile.parse(plans.two_weights()).write(tmp_path / "plan.json")
    plan = uw.TunedPlan.read(tmp_path / "plan.json", fused_tokens=5)
    assert plan.fused_tokens == 5 and plan.file is not None and plans.GPU in repr(plan)
    assert "built-in table" in repr(uw.TunedPlan())
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(InvalidData):
        uw.TunedPlan.read(tmp_path / "plan.json")


def test_the_default_is_the_built_in_table():
    assert isinstance(plan_module._default, uw.TunedPlan) and plan_module._default.file is None


# ---- the library's own choice ---------------------------------------------------------------------------------------


@needs_cuda_part
def test_a_plan_decides_and_others_where_it_has_no_say(simulated):
    text = plans.real_text(
        [
            plans.weight(
                4096,
                4096,
                plans.cell(1, plans.fused(strips=1, stages=3), isolated=[plans.fused(strips=1, stages=2)]),
                plans.cell(16, plans.decoded(), plans.fused()),
            )
        ]
    )
    plan, weight = uw.TunedPlan.parse(text), Weight(4096, 4096)
    choice = plan.choose(weight, 1)
    assert (choice.pipeline, choice.source) == ("fused", "plan")
    assert (choice.config.strips, choice.config.stages, choice.config.dependent_launch) == (1, 3, 1)
    isolated = uw.TunedPlan.parse(text, dependent_launch=False).choose(weight, 1)
    assert (isolated.config.strips, isolated.config.stages, isolated.config.dependent_launch) == (1, 2, 0)
    # 2 tokens lie nearer to 1, 3 and 4 as near to 16; from 65 on no cell is near enough.
    assert plan.choose(weight, 2).config.stages == 3
    for tokens in (3, 4, 5, 16, 64):
        assert plan.choose(weight, tokens) == uw.Choice("decoded", None, "plan"), tokens
    assert plan.choose(weight, 65).source == "rules" and plan.choose(weight, 5000).pipeline == "decoded"
    assert not plan.notes
    with pytest.warns(UserWarning, match="plan has no entry for 64 x 64"):
        assert plan.choose(Weight(64, 64), 1).source == "rules"
    # A raw blob is not decoded for nothing: its entry, too, is another one.
    with pytest.warns(UserWarning, match="plan has no entry for 4096 x 4096, raw"):
        assert plan.choose(Weight(4096, 4096, layout=0), 16).pipeline == "fused"


@needs_cuda_part
def test_built_in_table(monkeypatch):
    monkeypatch.setattr(plan_module, "resolve", functools.partial(_device.resolve, gpu=("NVIDIA H200", 132)))
    plan = uw.TunedPlan()
    found = {tokens: plan.choose(Weight(4096, 4096), tokens) for tokens in (1, 16, 64, 128, 4096)}
    assert {choice.source for choice in found.values()} == {"built-in table"}
    assert found[1].pipeline == "fused" and found[1].config.dependent_launch and found[4096].pipeline == "decoded"
    assert plan.choose(Weight(4000, 4096), 1).source == "rules" and not plan.notes


@needs_cuda_part
def test_foreign_plans_are_warned_of_and_not_used(simulated):
    weights = [plans.weight(64, 64, plans.cell(1, plans.decoded()))]
    for text, message in (
        (plans.plan_text(weights), "made for the kernels 0123456789abcdef; this library has"),
        (
            plans.real_text(weights).replace(plans.GPU, "NVIDIA X1"),
            "made for NVIDIA X1 with 132 multiprocessors; this is Sim",
        ),
        (plans.real_text(weights).replace(unweight.__version__, "0.0.1"), "made by unweight 0.0.1; this is"),
    ):
        plan = uw.TunedPlan.parse(text)
        with pytest.warns(UserWarning, match=message) as seen:
            choices = [plan.choose(Weight(), tokens) for tokens in (1, 2, 3)]
        assert len(seen) == 1 and {choice.source for choice in choices} == {"rules"}


@needs_cuda_part
def test_illegal_entries_are_errors(simulated):
    plan = uw.TunedPlan.parse(plans.real_text([plans.weight(64, 64, plans.cell(8, plans.fused(strips=16)))]))
    with pytest.raises(InvalidArgument, match=r"64 x 64, tiled, 8 tokens, isolated\[0\]: .*strips=16 needs warpgroup"):
        plan.choose(Weight(), 1)
    assert plan.choose(Weight(128, 64), 65537).pipeline == "decoded"


# ---- weights that stay raw ------------------------------------------------------------------------------------------


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(96, 64, dtype=BF16)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, torch.nn.Linear(64, 64, dtype=BF16))
        self.head = torch.nn.Linear(64, 96, bias=False, dtype=BF16)
        self.head.weight = self.embed.weight


def raw_plan(*names: str) -> uw.TunedPlan:
    return uw.TunedPlan.parse(plans.plan_text([], [plans.matrices("some", list(names), len(names))]))


def test_models_keep_what_the_plan_keeps_raw():
    with uw.use_plan(uw.Decoded()):
        report = uw.compress_model(Model(), plan=raw_plan("qkv_proj.weight", "absent.weight"))
    assert report.raw == {}  # names are whole: it is '.q_proj.' that is merged
    layers = torch.nn.ModuleDict({"0": Model()})
    report = uw.compress_model(layers, plan=raw_plan("0.qkv_proj.weight"), skip=["*.q_proj"])
    kept = "the plan keeps it raw"
    assert report.raw == {"0.q_proj": "skipped", "0.k_proj": kept, "0.v_proj": kept}
    assert type(layers["0"].k_proj) is torch.nn.Linear and type(layers["0"].o_proj) is uw.Linear
    assert layers["0"].head.weight is layers["0"].embed.weight


def test_shared_weights_stay_raw_together():
    model = Model()
    report = uw.compress_model(model, plan=raw_plan("head.weight"))
    assert set(report.raw) == {"embed", "head"} and model.head.weight is model.embed.weight
    assert model.embed.weight.dtype == BF16


def test_the_current_plan_counts_where_none_is_given():
    with uw.use_plan(raw_plan("o_proj.weight")):
        assert set(uw.compress_model(Model()).raw) == {"o_proj"}
        assert uw.compress_model(Model(), plan=uw.Rules()).raw == {}


def test_loaders_keep_what_the_plan_keeps_raw(tmp_path):
    hf = pytest.importorskip("transformers", minversion="5.17")
    import unweight.transformers

    import models

    original = models.save("llama", tmp_path / "source")
    unweight.compress(tmp_path / "source", tmp_path / "bundle")
    prefix = "model.layers.0."
    plan = raw_plan(prefix + "self_attn.qkv_proj.weight", prefix + "mlp.down_proj.weight")
    kept = {prefix + name for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj")}
    ids = models.tokens()
    options = {"quantization_config": unweight.transformers.UnweightConfig()}
    for folder, how in ((tmp_path / "bundle", {}), (tmp_path / "source", options)):
        with uw.use_plan(plan):
            model = hf.AutoModelForCausalLM.from_pretrained(folder, **how)
        assert model.hf_quantizer.report.raw == dict.fromkeys(kept, "the plan keeps it raw")
        for name in kept:
            assert type(model.get_submodule(name)) is torch.nn.Linear
            assert torch.equal(model.get_submodule(name).weight, original.get_submodule(name).weight)
        assert type(model.get_submodule(prefix + "mlp.up_proj")) is uw.Linear
        with uw.use_plan(uw.Decoded()):
            assert torch.equal(models.logits(model, ids), models.logits(original, ids))


# ---- refinement -----------------------------------------------------------------------------------------------------


def test_refinement_hands_out_plans_to_follow(monkeypatch):
    plan, step = uw.TunedPlan.parse(plans.two_weights(), fused_tokens=77), plans.SimulatedStep()
    known = Weight()
    monkeypatch.setattr(_device, "_known", {0: type("Known", (), {"blob": known})})
    seen = []

    def timed(tried: uw.TunedPlan) -> float:
        seen.append(tried)
        assert isinstance(tried, uw.TunedPlan) and tried is not plan and tried.fused_tokens == 77
        known.choices[(tried, 8)] = known.choices[(plan, 8)] = uw.Choice("decoded")
        assert len({tried for tried, _ in known.choices}) <= 3
        return step(tried.file)

    plan._found["before"] = []
    report = uw.refine(plan, timed, tokens=[8], seconds=0, rounds=2)
    assert plans.chosen_stages(plan.file) == [4, 4] and report.accepted >= 2
    assert not known.choices and not plan._found  # what was chosen by the plan as it was
    assert len(set(seen)) < len(seen)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exceptions_of_the_step_come_through(error):
    def fail(tried: uw.TunedPlan) -> float:
        raise error("no")

    with pytest.raises(error, match="no"):
        uw.refine(uw.TunedPlan.parse(plans.two_weights()), fail)


def test_plans_that_cannot_be_refined():
    with pytest.raises(InvalidArgument, match="no file"):
        uw.refine(uw.TunedPlan(), lambda plan: 1.0)
    other = uw.TunedPlan.parse(plans.two_weights(), dependent_launch=False)
    with pytest.raises(InvalidArgument, match="dependent_launch=True, and is followed with False"):
        uw.refine(other, lambda plan: 1.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_timer_needs_a_gpu():
    with pytest.raises(DeviceProblem, match="GPU"):
        uw.StepTimer(lambda: None)(uw.Rules())
    with pytest.raises(InvalidArgument, match="samples = 0"):
        uw.StepTimer(lambda: None, samples=0)

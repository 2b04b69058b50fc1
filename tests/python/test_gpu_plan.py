# SPDX-License-Identifier: Apache-2.0
"""Tuned plans on a GPU: followed, refused, and refined in a model."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from conftest import trained_bits

torch = pytest.importorskip("torch")
import torch.nn.functional as F

import unweight
import unweight.torch as uw
from unweight.errors import InvalidArgument
from unweight.torch._device import device_blob

import plans

pytestmark = pytest.mark.gpu
BF16 = torch.bfloat16
SHAPE = (2048, 2048)


def weight_of(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(trained_bits(shape, seed).view(np.int16)).view(BF16).cuda()


def text_for_this_gpu(weights, kinds=None) -> str:
    properties = torch.cuda.get_device_properties(0)
    return plans.real_text(weights, kinds, gpu=properties.name, multiprocessors=properties.multi_processor_count)


def configs_of(layer: uw.Linear, tokens: int) -> list[dict]:
    """Legal configurations of the fused kernel, as a plan has them."""
    blob = device_blob(layer.weight)
    found = []
    for warpgroup in (False, True):
        for strips in (1, 2, 4, 8, 16):
            for stages in (2, 3, 5):
                for split in (False, True):
                    config = blob.choose_config(tokens)
                    config.strips, config.stages, config.split, config.warpgroup = strips, stages, split, warpgroup
                    if blob.can_implement(tokens, config):
                        found.append(plans.fused(strips, stages, split, warpgroup))
    return found


def follows(measured: dict):
    """A plan of that choice alone."""

    class Only:
        def choose(self, weight, tokens):
            config = weight.choose_config(tokens)
            for name, value in measured["config"].items():
                setattr(config, name, int(value))
            config.dependent_launch = 1
            return uw.Choice("fused", config)

    return Only()


def test_choices_are_followed():
    layer, weight = uw.Linear.from_weight(weight_of(SHAPE)), weight_of(SHAPE)
    x = torch.randn(64, SHAPE[1], device="cuda", dtype=BF16)
    configs = [entry for entry in configs_of(layer, 4) if entry["config"]["stages"] == 3]
    assert len(configs) > 4
    for measured in configs:
        cells = [plans.cell(4, measured), plans.cell(32, plans.decoded())]
        plan = uw.TunedPlan.parse(text_for_this_gpu([plans.weight(*SHAPE, *cells)]))
        with uw.use_plan(follows(measured)):
            expected = layer(x[:4])
        with uw.use_plan(plan), warnings.catch_warnings():
            warnings.filterwarnings("error", "unweight")
            assert torch.equal(layer(x[:4]), expected), measured
            assert torch.equal(layer(x[:32]), F.linear(x[:32], weight))
        assert plan.choose(device_blob(layer.weight), 3).source == "plan"


def test_foreign_plans_are_not_used():
    layer = uw.Linear.from_weight(weight_of(SHAPE))
    x = torch.randn(4, SHAPE[1], device="cuda", dtype=BF16)
    with uw.use_plan(uw.TunedPlan()):
        expected = [layer(x[:tokens]) for tokens in (4, 3, 1)]
    text = plans.plan_text([plans.weight(*SHAPE, plans.cell(4, plans.decoded()))])
    plan = uw.TunedPlan.parse(text)
    with uw.use_plan(plan), pytest.warns(UserWarning, match="made for Simulated GPU with 132") as seen:
        assert all(torch.equal(layer(x[: len(wanted)]), wanted) for wanted in expected)
    assert len(seen) == 1


def test_illegal_entries_are_errors():
    layer = uw.Linear.from_weight(weight_of(SHAPE))
    illegal = plans.fused(strips=16)  # without warpgroup
    plan = uw.TunedPlan.parse(text_for_this_gpu([plans.weight(*SHAPE, plans.cell(4, illegal))]))
    with uw.use_plan(plan), pytest.raises(InvalidArgument, match="2048 x 2048, tiled, 4 tokens"):
        layer(torch.randn(1, SHAPE[1], device="cuda", dtype=BF16))


def test_the_default_asks_the_built_in_table():
    layer, weight = uw.Linear.from_weight(weight_of((4096, 4096))), weight_of((4096, 4096))
    blob = device_blob(layer.weight)
    source = "built-in table" if torch.cuda.get_device_name() == "NVIDIA H200" else "rules"
    for tokens in (1, 3, 8, 33, 64, 200, 4096):
        x = torch.randn(tokens, 4096, device="cuda", dtype=BF16)
        found, again, exact = layer(x), layer(x), F.linear(x.double(), weight.double())
        assert torch.equal(found, again)
        assert float((found.double() - exact).norm() / exact.norm()) < 5e-3
        if tokens <= 1024:
            assert uw.current_plan().choose(blob, tokens).source == source


class Chain(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([uw.Linear.from_weight(weight_of(SHAPE, i)) for i in range(6)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = F.rms_norm(x + layer(x), (SHAPE[1],))
        return x


def plan_of(tokens: int, choices: list[dict]) -> uw.TunedPlan:
    """The first, the middle and the last of the choices, in this order."""
    few = [choices[0], choices[len(choices) // 2], choices[-1]]
    return uw.TunedPlan.parse(text_for_this_gpu([plans.weight(*SHAPE, plans.cell(tokens, *few))]))


def known_plans(chain: Chain) -> set:
    return {key[0] for layer in chain.layers for key in device_blob(layer.weight).choices}


def test_refinement(capfd):
    tokens, chain = 4, Chain()
    x = torch.randn(tokens, SHAPE[1], device="cuda", dtype=BF16)
    timer, choices = uw.StepTimer(lambda: chain(x)), configs_of(chain.layers[0], tokens)
    times = [timer(follows(measured)) for measured in choices]
    slowest_first = [choices[i] for i in sorted(range(len(choices)), key=lambda i: -times[i])]
    plan = plan_of(tokens, slowest_first)
    before, earlier = plan.file.text, known_plans(chain)
    with uw.use_plan(plan):
        chain(x)
    report = uw.refine(plan, timer, tokens=[tokens], seconds=60, progress=True)
    shown = capfd.readouterr().err
    assert report.accepted >= 1 and report.best_us < report.first_us and not report.stopped, report
    assert plan.file.text != before and "us a step" in shown
    # The plan is followed as it is now, in a new graph, and by the module itself.
    assert timer(plan) < (report.first_us + report.best_us) / 2
    with uw.use_plan(plan):
        found = chain(x)
    with uw.use_plan(uw.TunedPlan.parse(plan.file.text)):
        assert torch.equal(chain(x), found)
    # What was tried is forgotten: there are the plan and the last one above.
    assert len(known_plans(chain) - earlier) <= 2


def test_an_interrupted_refinement():
    chain = Chain()
    x = torch.randn(4, SHAPE[1], device="cuda", dtype=BF16)
    plan = plan_of(4, configs_of(chain.layers[0], 4))
    timer, calls = uw.StepTimer(lambda: chain(x), samples=3), []

    def step(tried: uw.TunedPlan) -> float:
        calls.append(tried)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return timer(tried)

    with pytest.raises(KeyboardInterrupt):
        uw.refine(plan, step, tokens=[4], seconds=0)
    with uw.use_plan(plan):
        assert torch.equal(chain(x), chain(x))
    assert timer(plan) > 0


def test_a_step_that_fails_while_it_is_captured():
    chain = Chain()
    x = torch.randn(4, SHAPE[1], device="cuda", dtype=BF16)
    plan = plan_of(4, configs_of(chain.layers[0], 4))

    def step() -> None:
        chain(x)
        if torch.cuda.is_current_stream_capturing():
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        uw.refine(plan, uw.StepTimer(step), tokens=[4])
    assert uw.StepTimer(lambda: chain(x))(plan) > 0


def test_models_keep_what_the_plan_keeps_raw(tmp_path):
    hf = pytest.importorskip("transformers", minversion="5.17")
    import unweight.transformers

    import models

    original = models.save("llama", tmp_path / "source").cuda()
    unweight.compress(tmp_path / "source", tmp_path / "bundle")
    name = "model.layers.0.mlp.down_proj"
    plan = uw.TunedPlan.parse(text_for_this_gpu([], [plans.matrices("down_proj", [name + ".weight"], 1)]))
    with uw.use_plan(plan):
        model = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "bundle", device_map="cuda")
    assert set(model.hf_quantizer.report.raw) == {name}
    assert torch.equal(model.get_submodule(name).weight, original.get_submodule(name).weight)
    ids = models.tokens()
    with uw.use_plan(uw.Decoded()):
        assert torch.equal(models.logits(model, ids), models.logits(original, ids))

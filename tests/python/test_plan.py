# SPDX-License-Identifier: Apache-2.0
"""Plan files and their refinement, whose step is simulated."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from unweight.errors import Cancelled, FileProblem, InvalidArgument, InvalidData
from unweight.plan import PlanFile, RefineProgress

import plans


def test_files_come_back(tmp_path):
    plan = PlanFile.parse(plans.two_weights())
    assert plan.gpu == plans.GPU and plan.dependent_launch and plans.GPU in repr(plan)
    assert json.loads(plan.text)["weights"] == json.loads(plans.two_weights())["weights"]
    plan.write(tmp_path / "plan.json")
    assert (tmp_path / "plan.json").read_text() == plan.text
    for again in (
        PlanFile.read(tmp_path / "plan.json"),
        PlanFile.read(str(tmp_path / "plan.json")),
        PlanFile.parse(plan.text.encode()),
        copy.deepcopy(plan),
        pickle.loads(pickle.dumps(plan)),
    ):
        assert again.text == plan.text
    assert not PlanFile.parse(plans.two_weights(dependent_launch=False)).dependent_launch


def test_keeps_raw():
    qkv = plans.matrices("qkv_proj", ["l.0.qkv_proj.weight", "l.1.qkv_proj.weight"], 1)
    plan = PlanFile.parse(plans.plan_text([], [qkv]))
    assert [plan.keeps_raw(f"l.{i}.{name}.weight") for i in (0, 1) for name in ("q_proj", "qkv_proj", "o_proj")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_what_is_no_plan_is_refused(tmp_path):
    text = plans.two_weights()
    for damaged in ("", "{", text[:-2], text.replace('"cells"', '"sells"'), text + "x"):
        with pytest.raises(InvalidData):
            PlanFile.parse(damaged)
    with pytest.raises(InvalidArgument, match="rows"):
        PlanFile.parse(text.replace('"rows": 64', '"rows": 0', 1))
    (tmp_path / "damaged.json").write_text(text[:100])
    with pytest.raises(InvalidData, match="damaged"):
        PlanFile.read(tmp_path / "damaged.json")
    with pytest.raises(FileProblem):
        PlanFile.read(tmp_path / "missing.json")
    with pytest.raises(FileProblem):
        PlanFile.parse(text).write(tmp_path / "missing" / "plan.json")


def test_refinement_finds_the_best():
    plan, step = PlanFile.parse(plans.two_weights()), plans.SimulatedStep()
    seen: list[RefineProgress] = []
    report = plan.refine(step, tokens=[8], seconds=0, rounds=2, progress=seen.append)
    assert plans.chosen_stages(plan) == [4, 4] and plans.chosen_stages(plan, "isolated") == [2, 2]
    assert report.first_us == 1200 and report.best_us == 1100 and not report.stopped
    assert report.accepted >= 2 and report.tried >= report.accepted and report.seconds > 0
    assert len(seen) == report.tried and seen[0].first_us == 1200 and seen[-1].best_us == 1100
    assert seen[0].total == 8 and "64 x 64" in seen[0].current and step.calls > report.tried


def test_refinement_leaves_other_numbers_of_tokens_alone():
    plan = PlanFile.parse(plans.two_weights())
    before = plan.text
    report = plan.refine(plans.SimulatedStep(), tokens=[16], rounds=1)
    assert (report.tried, report.accepted, plan.text) == (0, 0, before)


def test_plans_of_the_step_may_be_kept():
    """What a step gets is its own, and the same object as long as the plan is the same."""
    plan, step, kept = PlanFile.parse(plans.two_weights()), plans.SimulatedStep(), []

    def keep(tried: PlanFile) -> float:
        kept.append(tried)
        return step(tried)

    plan.refine(keep, rounds=3, seconds=0)
    assert len({id(tried) for tried in kept}) < len(kept) / 2
    assert {tuple(plans.chosen_stages(tried)) for tried in kept} >= {(2, 2), (4, 4)}


class Stopped(Exception):
    pass


@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt, SystemExit])
def test_exceptions_of_the_step_come_through(error):
    plan, step = PlanFile.parse(plans.two_weights()), plans.SimulatedStep()

    def raise_when_improved(tried: PlanFile) -> float:
        if plans.chosen_stages(tried)[0] == 4 and plans.chosen_stages(tried)[1] != 2:
            raise error("enough")
        return step(tried)

    with pytest.raises(error, match="enough"):
        plan.refine(raise_when_improved, rounds=1, seconds=0)
    assert plans.chosen_stages(plan) == [4, 2]  # the best so far
    plan.refine(step, rounds=1, seconds=0)
    assert plans.chosen_stages(plan) == [4, 4]


@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt])
def test_exceptions_of_the_progress_come_through(error):
    def show(progress: RefineProgress) -> None:
        raise error("seen")

    with pytest.raises(error, match="seen"):
        PlanFile.parse(plans.two_weights()).refine(plans.SimulatedStep(), progress=show)


def test_progress_stops():
    plan = PlanFile.parse(plans.two_weights())
    report = plan.refine(plans.SimulatedStep(), seconds=0, rounds=1, progress=lambda now: now.tried < 2)
    assert report.stopped and report.tried == 2


@pytest.mark.parametrize("us", [0.0, -1.0, float("nan")])
def test_a_step_without_a_time_ends_it(us):
    with pytest.raises(Cancelled, match="no time"):
        PlanFile.parse(plans.two_weights()).refine(lambda plan: us)


def test_a_step_that_returns_no_number():
    with pytest.raises(TypeError):
        PlanFile.parse(plans.two_weights()).refine(lambda plan: None)


def test_a_line_of_progress(capfd):
    PlanFile.parse(plans.two_weights()).refine(plans.SimulatedStep(), seconds=0, rounds=1, progress=True)
    shown = capfd.readouterr()
    assert shown.out == "" and "refine: 0 of at most 8 tried" in shown.err and "1100.0 us a step (+9.09%)" in shown.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds = 0"),
        ({"passes": 0}, "passes = 0"),
        ({"tokens": [0]}, "tokens = 0"),
        ({"tokens": [1, 65537]}, "tokens = 65537"),
        ({"tokens": [-1]}, "tokens = -1"),
        ({"seconds": -1}, "seconds=-1"),
        ({"least_gain": -0.5}, "least_gain=-0.5"),
    ],
)
def test_unsound_options_are_refused(options, message):
    with pytest.raises(InvalidArgument, match=message):
        PlanFile.parse(plans.two_weights()).refine(plans.SimulatedStep(), **options)


def test_no_least_gain_is_less_than_the_default():
    """A gain of 1 in 1000, which the default does not take."""

    def step(plan: PlanFile) -> float:
        return 1000 - plans.chosen_stages(plan)[0] / 4

    plan = PlanFile.parse(plans.two_weights())
    assert plan.refine(step, rounds=1).accepted == 0
    assert plan.refine(step, rounds=1, least_gain=0).accepted > 0

"""The loop: schedule, averages, best weights, and runs that are interrupted and resumed."""

from __future__ import annotations

import csv
import itertools
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from domainseg.errors import RecipeError
from domainseg.training import loop
from domainseg.training.determinism import deterministic
from domainseg.training.loop import (
    COLUMNS,
    Fitting,
    LoopOptions,
    Progress,
    fit,
    learning_rate_factor,
)
from domainseg.training.objectives import Batch, MapObjective
from domainseg.training.patches import Numbers
from domainseg.training.timing import SPARE, seconds_per_step, steps_within

OPTIONS = LoopOptions(
    steps=8,
    steps_per_epoch=4,
    learning_rate=0.05,
    weight_decay=0.01,
    warmup_share=0.25,
    ema_decay=0.9,
    clip_norm=1.0,
    patience=None,
    precision="fp32",
    device="cpu",
    seed=3,
)


class Waves(Dataset[Batch]):
    def __getitem__(self, number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        image = torch.rand((1, 6, 6), generator=generator)
        return image, (image > 0.5).float(), torch.ones(1, 6, 6)


def network() -> nn.Module:
    """Return a network with everything that a resumed run must get right: norm and dropout."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 1, 1)
    )


def loss(scores: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(scores, targets, weight)


def falling(net: nn.Module, _index: int) -> float:
    """Return a score that is the lower, the further the average is from the start."""
    return -float((next(net.parameters()) - next(network().parameters())).abs().sum())


def rising(net: nn.Module, index: int) -> float:
    return -falling(net, index)


class Mean:
    """The mean over images of what a function says of each."""

    def __init__(self, of: Callable[[nn.Module, int], float]) -> None:
        self.outcome = of

    def score(self, outcomes: Sequence[float]) -> float:
        return sum(outcomes) / len(outcomes)


class KilledError(Exception):
    pass


def stopping(step: int, error: type[BaseException] = KilledError) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        if progress.step == step:
            raise error

    return tell


def run(
    out: Path,
    options: LoopOptions = OPTIONS,
    *,
    score: Callable[[nn.Module, int], float] = rising,
    validation: int = 2,
    resume: bool = False,
    tell: Callable[[Progress], None] = lambda _: None,
    workers: int = 0,
) -> dict[str, Any]:
    """Return the checkpoint that `fit` returns."""
    patches: DataLoader[Any] = DataLoader(
        Waves(),
        batch_size=2,
        sampler=Numbers(2 * options.steps_per_epoch),
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    fitting = Fitting(network(), MapObjective(loss), Mean(score), options)
    path = fit(
        fitting, patches, validation=validation, options=options, out=out, resume=resume, tell=tell
    )
    return load(path)


def load(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
    return state


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_same_weights(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a["global_step"] == b["global_step"]
    for part in ("state_dict", "current_model_state", "averaging_state"):
        assert a[part].keys() == b[part].keys()
        for key in a[part]:
            assert torch.equal(a[part][key], b[part][key]), (part, key)


def test_the_learning_rate_rises_in_a_line_and_falls_as_a_cosine() -> None:
    factors = [learning_rate_factor(s, steps=100, warmup_share=0.1) for s in range(101)]
    assert factors[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert factors[10] == pytest.approx(1.0)
    assert factors[55] == pytest.approx(0.505)
    assert factors[100] == pytest.approx(0.01)
    assert learning_rate_factor(0, steps=1, warmup_share=0.0) == 1.0


def test_weights_of_pixels_fade_while_a_run_goes_on(tmp_path: Path) -> None:
    seen: list[float] = []

    def watched(scores: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        seen.append(float(weight.mean()))
        return loss(scores, targets, weight)

    class Heavy(Waves):
        def __getitem__(self, number: int) -> Batch:
            image, targets, weight = super().__getitem__(number)
            return image, targets, 4 * weight

    # Those above 1 fade to their square root, in nine tenths of the four steps.
    faded = [4.0 ** (1 - 0.5 * k / 3.6) for k in range(4)]
    for fade, wanted in ((False, [4.0] * 4), (True, faded)):
        seen.clear()
        options = replace(OPTIONS, steps=4, steps_per_epoch=4)
        patches = DataLoader(Heavy(), batch_size=2, sampler=Numbers(8))
        fit(
            Fitting(network(), MapObjective(watched, fade), Mean(rising), options),
            patches,
            validation=0,
            options=options,
            out=tmp_path / str(fade),
            resume=False,
            tell=lambda _: None,
        )
        assert seen == pytest.approx(wanted)


@pytest.mark.parametrize("at", [2, 4, 5, 7])
@pytest.mark.parametrize("score", [rising, falling])
def test_a_resumed_run_ends_bit_equal(
    tmp_path: Path, at: int, score: Callable[[nn.Module, int], float]
) -> None:
    best = run(tmp_path / "whole", score=score)
    with pytest.raises(KilledError):
        run(tmp_path / "cut", score=score, tell=stopping(at))
    resumed = run(tmp_path / "cut", score=score, resume=True)
    assert_same_weights(resumed, best)
    last = [load(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "cut")]
    assert_same_weights(*last)
    assert last[0]["global_step"] == 8


@pytest.mark.parametrize("cuts", [(5, 6), (5, 9, 10, 13), (2, 3)])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_is_cut_again_and_again_ends_bit_equal(
    tmp_path: Path, cuts: tuple[int, ...], workers: int
) -> None:
    options = replace(OPTIONS, steps=14, patience=9)
    whole = run(tmp_path / "whole", options)
    for number, at in enumerate(cuts):
        with pytest.raises(KilledError):
            run(tmp_path / "cut", options, resume=number > 0, tell=stopping(at), workers=workers)
    assert_same_weights(run(tmp_path / "cut", options, resume=True, workers=workers), whole)
    assert [row["step"] for row in rows(tmp_path / "cut")] == ["4", "8", "12", "14"]
    assert [row["epoch"] for row in rows(tmp_path / "cut")] == ["1", "2", "3", "4"]


def test_patience_counts_on_in_a_resumed_run(tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=40, patience=2)
    with pytest.raises(KilledError):
        run(tmp_path, options, score=falling, tell=stopping(10))
    run(tmp_path, options, score=falling, resume=True)
    assert [row["step"] for row in rows(tmp_path)] == ["4", "8", "12"]


def test_a_resumed_run_begins_behind_its_last_whole_epoch(tmp_path: Path) -> None:
    # The first epoch has the better score: the second must not be run again for that.
    options = replace(OPTIONS, steps=12)
    with pytest.raises(KilledError):
        run(tmp_path, options, score=falling, tell=stopping(10))
    told: list[int] = []
    run(tmp_path, options, score=falling, resume=True, tell=lambda p: told.append(p.step))
    assert told == [9, 10, 11, 12]


def test_the_weights_with_the_best_score_are_returned(tmp_path: Path) -> None:
    assert run(tmp_path / "falling", score=falling)["global_step"] == 4
    assert run(tmp_path / "rising", score=rising)["global_step"] == 8
    assert load(tmp_path / "falling" / "checkpoints" / "last.ckpt")["global_step"] == 8


def test_without_validation_the_last_weights_are_returned(tmp_path: Path) -> None:
    state = run(tmp_path, validation=0)
    assert state["global_step"] == 8
    assert [row["score"] for row in rows(tmp_path)] == ["", ""]
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()


@pytest.mark.parametrize(("steps", "ends"), [(6, [4, 6]), (3, [3]), (4, [4]), (1, [1])])
def test_steps_that_end_inside_an_epoch_are_validated_and_kept(
    tmp_path: Path, steps: int, ends: list[int]
) -> None:
    scored: list[int] = []

    def score(net: nn.Module, index: int) -> float:
        scored.append(index)
        return rising(net, index)

    state = run(tmp_path, replace(OPTIONS, steps=steps), score=score)
    assert state["global_step"] == steps
    assert scored == [0, 1] * len(ends)
    assert [int(row["step"]) for row in rows(tmp_path)] == ends


def test_metrics_have_one_whole_row_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOSS_EVERY", 1)
    told: list[Progress] = []
    run(tmp_path, tell=told.append)
    found = rows(tmp_path)
    assert (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()[0] == ",".join(
        COLUMNS
    )
    assert [(row["epoch"], row["step"]) for row in found] == [("1", "4"), ("2", "8")]
    for number, row in enumerate(found):
        mean = sum(p.loss for p in told[4 * number : 4 * number + 4]) / 4
        assert float(row["loss"]) == pytest.approx(mean, rel=1e-4)
    assert float(found[0]["score"]) == pytest.approx(told[4].score or 0, rel=1e-4)
    rates = [learning_rate_factor(s, steps=8, warmup_share=0.25) * 0.05 for s in (4, 8)]
    assert [float(row["learning_rate"]) for row in found] == pytest.approx(rates, rel=1e-4)
    assert 0 <= float(found[0]["minutes"]) <= float(found[1]["minutes"])


def test_the_loss_is_read_from_the_device_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every: list[Progress] = []
    with monkeypatch.context() as patched:
        patched.setattr(loop, "LOSS_EVERY", 1)
        run(tmp_path / "every", tell=every.append)
    monkeypatch.setattr(loop, "LOSS_EVERY", 3)
    told: list[Progress] = []
    run(tmp_path / "third", tell=told.append)
    assert [p.step for p in told] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [p.loss for p in told] == [every[step - 1].loss for step in (1, 1, 3, 3, 3, 6, 6, 6)]


def test_cuda_computes_in_one_order_while_a_training_runs() -> None:
    def flags() -> tuple[bool, bool, bool, bool]:
        return (
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )

    before = flags()
    with deterministic("cpu"):
        assert flags() == before
    seen = []

    def killed() -> None:
        with deterministic("cuda"):
            seen.append(flags())
            raise KilledError

    with pytest.raises(KilledError):
        killed()
    assert seen == [(True, False, True, True)]
    assert flags() == before


def test_metrics_of_a_resumed_run_are_those_of_a_whole_one(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tmp_path / "cut", tell=stopping(7))
    before = rows(tmp_path / "cut")
    run(tmp_path / "cut", resume=True)
    found = rows(tmp_path / "cut")
    for a, b in zip(found, rows(tmp_path / "whole"), strict=True):
        assert {**a, "minutes": ""} == {**b, "minutes": ""}
    assert found[0] == before[0]
    assert float(found[1]["minutes"]) >= float(found[0]["minutes"])


def test_a_resumed_run_still_knows_its_best_score(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, score=falling, tell=stopping(5))
    told: list[Progress] = []
    run(tmp_path, score=falling, resume=True, tell=told.append)
    assert told[0].score is None
    assert told[0].best == pytest.approx(float(rows(tmp_path)[0]["score"]), rel=1e-4)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    told: list[Progress] = []
    assert_same_weights(run(tmp_path, resume=True, tell=told.append), first)
    assert told == []


def test_resuming_without_a_checkpoint_begins(tmp_path: Path) -> None:
    assert_same_weights(run(tmp_path / "a", resume=True), run(tmp_path / "b"))


def test_patience_ends_a_run_and_a_resumed_one_remembers_it(tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=40, patience=2)
    state = run(tmp_path, options, score=falling)
    assert state["global_step"] == 4
    assert [row["step"] for row in rows(tmp_path)] == ["4", "8", "12"]
    told: list[Progress] = []
    run(tmp_path, options, score=falling, resume=True, tell=told.append)
    assert told == []
    assert len(rows(tmp_path)) == 3


def test_control_c_gets_through_and_leaves_a_run_that_resumes(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", tell=stopping(6, KeyboardInterrupt))
    assert signal.getsignal(signal.SIGINT) is before
    assert load(tmp_path / "cut" / "checkpoints" / "last.ckpt")["global_step"] == 4
    assert_same_weights(run(tmp_path / "cut", resume=True), run(tmp_path / "whole"))


def test_averaged_weights_are_the_formula_and_counters_the_last(tmp_path: Path) -> None:
    seen: list[Tensor] = []
    fitting = Fitting(network(), MapObjective(loss), Mean(rising), OPTIONS)

    def tell(_: Progress) -> None:
        seen.append(next(fitting.network.parameters()).detach().clone())

    patches: DataLoader[Any] = DataLoader(Waves(), batch_size=2, sampler=Numbers(8))
    path = fit(
        fitting, patches, validation=1, options=OPTIONS, out=tmp_path, resume=False, tell=tell
    )
    mean = seen[0]
    for count, new in enumerate(seen[1:], start=1):
        keep = min(0.9, (1 + count) / (10 + count))
        mean = keep * mean + (1 - keep) * new
    state = load(path)["state_dict"]
    torch.testing.assert_close(state["network.0.weight"], mean, rtol=1e-5, atol=1e-6)
    assert state["network.1.num_batches_tracked"] == 8
    assert not torch.equal(state["network.0.weight"], seen[-1])


def test_biases_and_norms_do_not_decay() -> None:
    net = network()
    [optimiser], [schedule] = Fitting(
        net, MapObjective(loss), Mean(rising), OPTIONS
    ).configure_optimizers()
    decayed, others = optimiser.param_groups
    assert decayed["weight_decay"] == 0.01
    assert others["weight_decay"] == 0.0
    assert [p.ndim for p in decayed["params"]] == [4, 4]
    assert len(decayed["params"]) + len(others["params"]) == len(list(net.parameters()))
    assert schedule["interval"] == "step"


def test_minutes_become_steps() -> None:
    # 2 minutes less spare and 10 s leave 106.4 s; 20 steps and a validation take 12 s.
    steps = steps_within(2, gone_s=10, step_s=0.5, validation_s=2, steps_per_epoch=20)
    assert SPARE == 0.97
    assert steps == int(106.4 / 0.6) == 177


@pytest.mark.parametrize(
    ("minutes", "gone_s", "needed"), [(1, 80.0, "1.4"), (1, 58.0, "1.1"), (0.05, 2.4, "0.1")]
)
def test_minutes_that_preparing_uses_up_are_refused(
    minutes: float, gone_s: float, needed: str
) -> None:
    times = {"gone_s": gone_s, "step_s": 0.5, "validation_s": 2.0}
    with pytest.raises(RecipeError) as caught:
        steps_within(minutes, **times, steps_per_epoch=20)
    assert str(caught.value) == (
        f"train.max_minutes: found {minutes:g}, wanted more than the {needed} minutes that "
        "preparing takes; raise it."
    )
    assert steps_within(float(needed), **times, steps_per_epoch=20) >= 1


def test_a_step_is_timed_by_the_later_half(monkeypatch: pytest.MonkeyPatch) -> None:
    from domainseg.training import timing

    clock = iter([0.0, 0.0, 9.0, 9.0, 9.5, 9.5, 10.5, 10.5, 13.5, 13.5])
    monkeypatch.setattr(timing, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    batches = DataLoader(Waves(), batch_size=2, sampler=Numbers(8))
    found = seconds_per_step(
        network(), MapObjective(loss), batches, device=torch.device("cpu"), bf16=False, minutes=1
    )
    assert found == pytest.approx((1.0 + 3.0) / 2)


@pytest.mark.parametrize(("minutes", "steps"), [(0.1, 12), (20, 18), (30, 27)])
def test_a_longer_training_is_timed_longer(
    minutes: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from domainseg.training import timing

    # Two calls a step: each takes a second.
    clock = (0.5 * call for call in itertools.count())
    monkeypatch.setattr(timing, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    drawn: list[int] = []
    batches = DataLoader(Waves(), batch_size=1, sampler=Numbers(99))

    def told() -> Iterator[Any]:
        for number, batch in enumerate(batches):
            drawn.append(number)
            yield batch

    seconds_per_step(
        network(),
        MapObjective(loss),
        told(),
        device=torch.device("cpu"),
        bf16=False,
        minutes=minutes,
    )
    assert len(drawn) == pytest.approx(steps, abs=1)

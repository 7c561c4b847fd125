"""The training loop: Lightning's, with our schedule, averaging and validation score."""

from __future__ import annotations

import csv
import io
import logging
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from domainseg.atomic import atomic_text
from domainseg.training.determinism import deterministic
from domainseg.training.objectives import Batch, Objective
from domainseg.training.patches import Numbers


class Scoring(Protocol):
    """What validation asks: the outcome of each image, and the score of all of them."""

    def outcome(self, network: nn.Module, index: int, /) -> Any:
        """Return what the network made of validation image ``index``."""
        ...

    def score(self, outcomes: Sequence[Any], /) -> float:
        """Return one number of the outcomes of all images; more is better."""
        ...


BEST = "best"
LAST = "last"
LOSS_EVERY = 10
"""Steps from one reading of the loss to the next: a reading waits for the device."""
COLUMNS = ("epoch", "step", "loss", "score", "learning_rate", "minutes")
"""Of ``metrics.csv``: epoch from 1, steps done, mean loss of the epoch, validation score,
learning rate of the next step, wall-clock minutes of training so far."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training is.

    Attributes:
        step: optimiser steps done, of ``steps``.
        loss: of a batch at most LOSS_EVERY steps ago.
        score: last validation score, None before the first.
        best: best validation score so far.
    """

    step: int
    steps: int
    loss: float
    score: float | None
    best: float | None


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """How a network is fitted.

    Attributes:
        steps: optimiser steps in all; the length of the cosine.
        steps_per_epoch: steps between validations and checkpoints.
        learning_rate: peak, reached after ``warmup_share`` of the steps.
        weight_decay: of AdamW, on weights of two dimensions or more.
        ema_decay: of the running average of the weights that is validated and kept.
        clip_norm: largest gradient norm.
        patience: epochs without a better score before the training ends, None = never.
        precision: ``fp32`` or ``bf16``.
        device: ``cpu``, ``cuda`` or ``mps``.
        seed: of the run.
        accumulate: batches whose gradients are averaged in one step.
    """

    steps: int
    steps_per_epoch: int
    learning_rate: float
    weight_decay: float
    warmup_share: float
    ema_decay: float
    clip_norm: float
    patience: int | None
    precision: str
    device: str
    seed: int
    accumulate: int = 1


def learning_rate_factor(step: int, *, steps: int, warmup_share: float) -> float:
    """Return the share of the peak learning rate at ``step``: linear rise, cosine fall to 1 %."""
    warm = max(1, round(steps * warmup_share))
    if step < warm:
        return (step + 1) / warm
    done = min(1.0, (step - warm) / max(1, steps - warm))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


class Fitting(L.LightningModule):
    """A network under training; ``scoring`` says how good it is on the validation images."""

    def __init__(
        self, network: nn.Module, objective: Objective, scoring: Scoring, options: LoopOptions
    ) -> None:
        super().__init__()
        self.network = network
        self._objective = objective
        self._scoring = scoring
        self._outcomes: list[Any] = []
        self._options = options

    def on_train_batch_start(self, _batch: Batch, index: int) -> None:
        """Seed what the network draws (dropout, samples) by the step: so does a resumed run."""
        part = index % self._options.accumulate
        number = self.global_step * self._options.accumulate + part
        torch.manual_seed(self._options.seed * 1_000_003 + number)

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        """Return the loss of one batch."""
        loss = self._objective(self.network, batch, self.global_step / self._options.steps)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Tensor, _index: int) -> None:
        """Keep what the network makes of the validation images named by the batch."""
        for index in batch.tolist():
            self._outcomes.append(self._scoring.outcome(self.network, index))

    def on_validation_epoch_end(self) -> None:
        """Log the score of all validation images."""
        self.log("score", self._scoring.score(self._outcomes))
        self._outcomes.clear()

    def configure_optimizers(self) -> Any:
        """Return AdamW with warm-up and cosine; biases and norms do not decay."""
        options = self._options
        decayed = [p for p in self.network.parameters() if p.ndim >= 2]
        others = [p for p in self.network.parameters() if p.ndim < 2]
        optimiser = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": options.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=options.learning_rate,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser,
            lambda step: learning_rate_factor(
                step, steps=options.steps, warmup_share=options.warmup_share
            ),
        )
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]


class _Averaging(WeightAveraging):
    """Running average whose memory grows to ``decay``, so that early weights are forgotten."""

    def __init__(self, decay: float) -> None:
        def average(means: list[Tensor], news: list[Tensor], count: Tensor) -> None:
            if means[0].is_floating_point():
                keep = min(decay, (1 + int(count)) / (10 + int(count)))
                torch._foreach_lerp_(means, news, 1 - keep)
            else:
                torch._foreach_copy_(means, news)

        super().__init__(use_buffers=True, multi_avg_fn=average)


# Lightning ends the epoch that a checkpoint was saved in once more when it resumes, without
# a batch and without metrics: whatever acts at the end of an epoch must let that one pass.
class _Patience(EarlyStopping):
    """Early stopping that a resumed run remembers, where it had stopped already."""

    def on_train_start(self, trainer: Any, _module: Any) -> None:
        self._begun = trainer.global_step
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if trainer.global_step > self._begun:
            super().on_train_epoch_end(trainer, module)


class _Checkpoint(ModelCheckpoint):
    """One checkpoint ``name``.ckpt: of the best score, or without ``monitor`` of the last epoch."""

    def __init__(self, folder: Path, name: str, *, monitor: str | None) -> None:
        super().__init__(
            dirpath=folder,
            filename=name,
            monitor=monitor,
            mode="max",
            enable_version_counter=False,
        )
        self._begun = 0

    def on_train_start(self, trainer: Any, _module: Any) -> None:
        self._begun = trainer.global_step

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if trainer.global_step > self._begun:
            super().on_train_epoch_end(trainer, module)


class _Numbering(Callback):
    """Numbers the patches of an epoch by the steps done; epochs are miscounted on resuming."""

    def __init__(self, numbers: Numbers, per_step: int) -> None:
        self._numbers = numbers
        self._per_step = per_step

    def on_train_epoch_start(self, trainer: Any, _module: Any) -> None:
        self._numbers.begin_at(trainer.global_step * self._per_step)


class _Ending(Callback):
    """Asks for a validation after the last step, also where that does not end an epoch."""

    def on_train_batch_end(
        self, trainer: Any, _module: Any, _outputs: Any, _batch: Any, _index: int
    ) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step >= trainer.max_steps


class _Journal(Callback):
    """Writes ``metrics.csv``, one row an epoch; a resumed run drops rows that it runs again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._losses: list[Tensor] = []
        self._score = ""
        self._begun = 0.0

    def on_train_start(self, trainer: Any, _module: Any) -> None:
        if trainer.global_step and self._path.is_file():
            with self._path.open(encoding="utf-8", newline="") as file:
                rows: list[dict[str, Any]] = list(csv.DictReader(file))
            self._rows = [row for row in rows if int(row["step"]) <= trainer.global_step]
        before = float(self._rows[-1]["minutes"]) if self._rows else 0.0
        self._begun = time.monotonic() - before * 60

    def on_train_batch_end(
        self, _trainer: Any, _module: Any, outputs: Any, _batch: Any, _index: int
    ) -> None:
        self._losses.append(outputs["loss"].detach())

    def on_validation_end(self, trainer: Any, _module: Any) -> None:
        self._score = f"{float(trainer.callback_metrics['score']):.6g}"

    def on_train_epoch_end(self, trainer: Any, _module: Any) -> None:
        if not self._losses:
            return
        minutes = (time.monotonic() - self._begun) / 60
        loss = float(torch.stack(self._losses).mean())
        self._losses.clear()
        values = (
            trainer.current_epoch + 1,
            trainer.global_step,
            f"{loss:.6g}",
            self._score,
            f"{trainer.optimizers[0].param_groups[0]['lr']:.6g}",
            f"{minutes:.3f}",
        )
        self._rows.append(dict(zip(COLUMNS, values, strict=True)))
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        atomic_text(self._path, text.getvalue())


class _Telling(Callback):
    def __init__(
        self, tell: Callable[[Progress], None], steps: int, kept: ModelCheckpoint | None
    ) -> None:
        self._tell = tell
        self._steps = steps
        self._kept = kept
        self._best: float | None = None
        self._score: float | None = None
        self._loss: float | None = None

    def on_train_start(self, _trainer: Any, _module: Any) -> None:
        # A resumed run has had a best score before.
        if self._kept is not None and self._kept.best_model_score is not None:
            self._best = float(self._kept.best_model_score)

    def on_validation_end(self, trainer: Any, _module: Any) -> None:
        self._score = float(trainer.callback_metrics["score"])
        self._best = self._score if self._best is None else max(self._score, self._best)

    def on_train_batch_end(
        self, trainer: Any, _module: Any, outputs: Any, _batch: Any, _index: int
    ) -> None:
        step = trainer.global_step
        if self._loss is None or step % LOSS_EVERY == 0:
            self._loss = float(outputs["loss"].detach())
        self._tell(Progress(step, self._steps, self._loss, self._score, self._best))


def fit(
    fitting: Fitting,
    patches: DataLoader[Batch],
    *,
    validation: int,
    options: LoopOptions,
    out: Path,
    resume: bool,
    tell: Callable[[Progress], None],
) -> Path:
    """Train and return the checkpoint with the best validation score, of averaged weights.

    Args:
        fitting: the network with its loss and score.
        patches: batches, ``options.steps_per_epoch`` of them per epoch, sampled by `Numbers`.
        validation: number of validation images; 0 keeps the last weights.
        options: of the loop.
        out: folder for ``checkpoints/``, ``metrics.csv`` (COLUMNS) and ``tensorboard/``.
        resume: go on from the end of the last epoch that was completed, where there is one.
        tell: called after every step.

    Raises:
        KeyboardInterrupt: on Ctrl-C; the checkpoint of the last whole epoch stays.
    """
    folder = out / "checkpoints"
    last = folder / f"{LAST}.ckpt"
    kept = _Checkpoint(folder, BEST, monitor="score") if validation else None
    assert isinstance(patches.sampler, Numbers)
    assert patches.batch_size is not None
    callbacks: list[Callback] = [
        _Numbering(patches.sampler, patches.batch_size * options.accumulate),
        _Averaging(options.ema_decay),
        _Ending(),
        _Telling(tell, options.steps, kept),
        _Journal(out / "metrics.csv"),
    ]
    if options.patience is not None and validation:
        callbacks.append(_Patience("score", mode="max", patience=options.patience))
    callbacks += [kept] if kept else []
    # Behind the others, so that it holds what they know at the end of the epoch.
    callbacks.append(_Checkpoint(folder, LAST, monitor=None))
    with quiet_lightning(), interrupts_get_through(), deterministic(options.device):
        trainer = L.Trainer(
            accelerator={"cuda": "gpu"}.get(options.device, options.device),
            devices=1,
            precision="bf16-mixed" if options.precision == "bf16" else "32-true",
            max_steps=options.steps,
            callbacks=callbacks,
            logger=TensorBoardLogger(out, name="", version="tensorboard"),
            gradient_clip_val=options.clip_norm,
            accumulate_grad_batches=options.accumulate,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=validation,
            log_every_n_steps=max(1, min(10, options.steps_per_epoch)),
        )
        trainer.fit(
            fitting,
            patches,
            DataLoader(_Indices(validation), batch_size=1) if validation else None,  # type: ignore[arg-type]
            ckpt_path=last if resume and last.exists() else None,
            # Our own checkpoint of the same folder; optimiser state is more than tensors.
            weights_only=False,
        )
    return folder / f"{BEST}.ckpt" if validation else last


@contextmanager
def interrupts_get_through() -> Iterator[None]:
    """Turn Lightning's way with Ctrl-C, to leave the process with code 1, back into the error."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        # It also told the process to be deaf to further interrupts.
        signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from end


class _Indices(Sequence[int]):
    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if index >= self._count:
            raise IndexError(index)
        return index


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's banners and hints off the terminal; errors still come through."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=r".*litlogger.*|.*Checkpoint directory.*")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)

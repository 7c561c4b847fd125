"""The training loop: Lightning's, with our schedule, averaging and validation score."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

Batch = tuple[Tensor, Tensor, Tensor]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Scores, targets, weight to the scalar loss."""
Score = Callable[[nn.Module, int], float]
"""Network and number of a validation image to the score of that image."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training is.

    Attributes:
        step: optimiser steps done, of ``steps``.
        loss: of the last batch.
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


def learning_rate_factor(step: int, *, steps: int, warmup_share: float) -> float:
    """Return the share of the peak learning rate at ``step``: linear rise, cosine fall to 1 %."""
    warm = max(1, round(steps * warmup_share))
    if step < warm:
        return (step + 1) / warm
    done = min(1.0, (step - warm) / max(1, steps - warm))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


class Fitting(L.LightningModule):
    """A network under training; validation asks ``score`` for one number per image."""

    def __init__(self, network: nn.Module, loss: Loss, score: Score, options: LoopOptions) -> None:
        super().__init__()
        self.network = network
        self._loss = loss
        self._score = score
        self._options = options

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        """Return the loss of one batch."""
        image, targets, weight = batch
        scores = self.network(image.to(memory_format=torch.channels_last))
        loss = self._loss(scores.float(), targets, weight)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(image))
        return loss

    def validation_step(self, batch: Tensor, _index: int) -> None:
        """Log the score of the validation images named by the batch."""
        for index in batch.tolist():
            self.log("score", self._score(self.network, index), on_epoch=True, batch_size=1)

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
        def average(mean: Tensor, new: Tensor, count: int) -> Tensor:
            if not mean.is_floating_point():
                return new
            keep = min(decay, (1 + int(count)) / (10 + int(count)))
            return mean * keep + new * (1 - keep)

        super().__init__(use_buffers=True, avg_fn=average)


class _Telling(Callback):
    def __init__(self, tell: Callable[[Progress], None], steps: int) -> None:
        self._tell = tell
        self._steps = steps
        self._best: float | None = None
        self._score: float | None = None

    def on_validation_epoch_end(self, trainer: Any, _module: Any) -> None:
        if trainer.sanity_checking:
            return
        score = trainer.callback_metrics.get("score")
        if score is not None:
            self._score = float(score)
            self._best = max(self._score, self._best or 0.0)

    def on_train_batch_end(
        self, trainer: Any, _module: Any, outputs: Any, _batch: Any, _index: int
    ) -> None:
        loss = float(outputs["loss"].detach())
        self._tell(Progress(trainer.global_step, self._steps, loss, self._score, self._best))


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
    """Train and return the checkpoint with the best validation score.

    Args:
        fitting: the network with its loss and score.
        patches: batches, ``options.steps_per_epoch`` of them per epoch.
        validation: number of validation images; 0 keeps the last weights.
        options: of the loop.
        out: folder for ``checkpoints/``, ``metrics.csv`` and ``tensorboard/``.
        resume: go on from ``checkpoints/last.ckpt`` when it is there.
        tell: called after every step.
    """
    folder = out / "checkpoints"
    kept = ModelCheckpoint(
        dirpath=folder,
        filename="best",
        monitor="score" if validation else None,
        mode="max",
        save_last=True,
        enable_version_counter=False,
    )
    callbacks: list[Callback] = [_Averaging(options.ema_decay), kept, _Telling(tell, options.steps)]
    if options.patience is not None and validation:
        callbacks.append(EarlyStopping("score", mode="max", patience=options.patience))
    last = folder / "last.ckpt"
    with quiet_lightning():
        trainer = L.Trainer(
            accelerator={"cuda": "gpu"}.get(options.device, options.device),
            devices=1,
            precision="bf16-mixed" if options.precision == "bf16" else "32-true",
            max_steps=options.steps,
            callbacks=callbacks,
            logger=[
                CSVLogger(out, name="", version="logs"),
                TensorBoardLogger(out, name="", version="tensorboard"),
            ],
            gradient_clip_val=options.clip_norm,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=validation or 0,
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
    return Path(kept.best_model_path or last)


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

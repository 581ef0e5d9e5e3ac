"""Explains chunks of images in parallel, and keeps what was found, so that a run can be resumed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import default_collate
from tqdm import tqdm

from findings_measures import Values, completeness, discrimination, faithfulness
from findings_rows import all_rows, applicable, completeness_rows, method_rows
from libragrad_lightning.data import CutoutDataModule
from libragrad_lightning.data.scenes.datasets import SceneDataset
from libragrad_lightning.demo import ImageClassifier
from libragrad_lightning.models import TokenModel, explanation_state, read_token_model

Question: TypeAlias = Literal["faithfulness", "completeness", "discrimination"]

QUESTIONS: tuple[Question, ...] = ("faithfulness", "completeness", "discrimination")


@dataclass(frozen=True)
class Subject:
    """A model that is explained, on held-out scenes.

    Attributes:
        name: Short name, used in files.
        title: What the reports call it.
        checkpoint: Holds the fine-tuned classifier and the settings of its data module.
        fill: The perturbation of deletion curves.
    """

    name: str
    title: str
    checkpoint: Path
    fill: str

    def data(self, **changes: Any) -> CutoutDataModule:
        """Return the data module of the fine-tuning, with some arguments changed."""
        return CutoutDataModule.load_from_checkpoint(self.checkpoint, **changes)

    def classifier(self) -> ImageClassifier:
        """Return the fine-tuned classifier in evaluation mode."""
        classifier = ImageClassifier.load_from_checkpoint(
            self.checkpoint, map_location="cpu", pretrained=False
        )
        return classifier.eval().to(device())


@dataclass(frozen=True)
class Plan:
    """How much is explained.

    Attributes:
        images: Scenes with one object.
        pairs: Scenes with two objects.
        steps: Passes of the methods that need many.
        chunk: Scenes in a chunk.
    """

    images: int
    pairs: int
    steps: int
    chunk: int

    def count(self, question: Question) -> int:
        """Return how many scenes are used for a question."""
        return self.pairs if question == "discrimination" else self.images


@dataclass(frozen=True)
class Chunk:
    """Some scenes, a model, and what is asked about them."""

    subject: Subject
    plan: Plan
    question: Question
    start: int

    @property
    def stop(self) -> int:
        """The first scene that is not in the chunk."""
        return min(self.start + self.plan.chunk, self.plan.count(self.question))

    def file(self, folder: Path) -> Path:
        """Return where the answer of these weights is kept; the name tells all it depends on."""
        name = f"{self.question}_{self.plan.steps}_{self.start:04d}_{self.stop:04d}.pt"
        return folder / self.subject.name / name


def device() -> torch.device:
    """Return the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def chunks(subjects: Sequence[Subject], plan: Plan) -> list[Chunk]:
    """Return all chunks, question by question."""
    return [
        Chunk(subject, plan, question, start)
        for subject in subjects
        for question in QUESTIONS
        for start in range(0, plan.count(question), plan.chunk)
    ]


def answer_all(todo: Sequence[Chunk], folder: Path, workers: int) -> None:
    """Answer the chunks that have no file yet, and show progress."""
    missing = [chunk for chunk in todo if not chunk.file(folder).exists()]
    bar = tqdm(total=len(todo), initial=len(todo) - len(missing), desc="Explaining", unit="chunk")
    context = get_context("spawn")
    with bar, ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        for done in as_completed([pool.submit(answer, chunk, folder) for chunk in missing]):
            done.result()
            bar.update()


def answer(chunk: Chunk, folder: Path) -> None:
    """Measure one chunk and keep the values."""
    asked, batch = opened(chunk.subject), _batch(chunk)
    with explanation_state(asked.classifier):
        values = _ASK[chunk.question](chunk, asked, batch)
    file = chunk.file(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}")
    torch.save({row: {q: v.cpu() for q, v in of.items()} for row, of in values.items()}, part)
    part.replace(file)


def answers(todo: Sequence[Chunk], folder: Path) -> Iterator[tuple[Chunk, Values]]:
    """Read what was found."""
    for chunk in todo:
        yield chunk, torch.load(chunk.file(folder), weights_only=True)


def joined(parts: Sequence[Values]) -> Values:
    """Return the values of all scenes of several chunks."""
    return {
        row: {name: torch.cat([part[row][name] for part in parts]) for name in of}
        for row, of in parts[0].items()
    }


@dataclass(frozen=True)
class Opened:
    """A subject that is ready to be explained.

    Attributes:
        classifier: The fine-tuned classifier.
        model: The classifier and its tokens.
        methods: Names of the methods that can explain it.
        data: The data module of the fine-tuning.
    """

    classifier: ImageClassifier
    model: TokenModel
    methods: list[str]
    data: CutoutDataModule


@cache
def opened(subject: Subject) -> Opened:
    """Return a subject that is ready to be explained."""
    classifier, data = subject.classifier(), subject.data()
    size = data.hparams["image_size"]
    image = torch.zeros(1, 3, size, size, device=classifier.device)
    model = read_token_model(classifier, image)
    with explanation_state(classifier):
        return Opened(classifier, model, applicable(model, image), data)


def _faithfulness(chunk: Chunk, asked: Opened, batch: Mapping[str, Tensor]) -> Values:
    rows = all_rows(asked.methods)
    return faithfulness(asked.model, batch, rows, chunk.plan.steps, chunk.subject.fill)


def _completeness(chunk: Chunk, asked: Opened, batch: Mapping[str, Tensor]) -> Values:
    return completeness(asked.model, batch, completeness_rows(), chunk.plan.steps)


def _discrimination(chunk: Chunk, asked: Opened, batch: Mapping[str, Tensor]) -> Values:
    return discrimination(asked.model, batch, method_rows(asked.methods), chunk.plan.steps)


_ASK: Mapping[Question, Callable[[Chunk, Opened, Mapping[str, Tensor]], Values]] = {
    "faithfulness": _faithfulness,
    "completeness": _completeness,
    "discrimination": _discrimination,
}


@cache
def scenes(subject: Subject, count: int, num_objects: int) -> SceneDataset:
    """Return the held-out scenes of a subject."""
    return subject.data(num_val=count, num_objects=num_objects).build("val")


def objects(subject: Subject, count: int) -> Tensor:
    """Return which object each scene with one object shows, `[count]` int64."""
    shown = [scenes(subject, count, 1).scene(i).objects[0] for i in range(count)]
    return torch.tensor([1000 * placed.label + placed.number for placed in shown])


def _batch(chunk: Chunk) -> dict[str, Tensor]:
    num_objects = 2 if chunk.question == "discrimination" else 1
    data = scenes(chunk.subject, chunk.plan.count(chunk.question), num_objects)
    batch: dict[str, Tensor] = default_collate([data[i] for i in range(chunk.start, chunk.stop)])
    return {name: tensor.to(device()) for name, tensor in batch.items()}

"""The page that reports the study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from findings_report import (
    DISCRIMINATION,
    FURTHER,
    MAIN,
    Measured,
    completeness_table,
    methods_table,
    rules_table,
    tally,
)
from findings_work import Plan

_INTRODUCTION = """\
# The paper's findings, repeated on photographs

Written by `python benchmarks/paper_findings.py`; every number with its interval is in
[paper_findings.csv](paper_findings.csv). Two models with trained weights were fine-tuned on five
classes of cut-out objects on photographs of places, and explained on {images} held-out scenes,
whose objects and backgrounds do not occur in training.

- Explained is the predicted class, by its probability, as in the paper. Methods with many passes
  use {steps} of them.
- MIF accuracy drop: 1 - accuracy, mean over 10 ... 90 % of patches deleted, most influential first.
  LIF accuracy: the accuracy if the least influential ones are deleted first. SRG: LIF accuracy less
  the accuracy under MIF. AOPC: drop of the probability. Segmentation AP: of the map, upsampled, on
  the object's mask, also where another class is predicted. All in percent.
- In cells: plain → Libra, and the 95 % bootstrap interval of the change, images paired. Bold:
  better. ▼: worse. Otherwise undecided. Methods without gradients: value and interval.
- {objects} objects recur in these scenes, so that objects are drawn for the intervals, with all of
  their scenes. Each model was trained once: the intervals do not speak of other trainings.
"""

_SECTION = """
## {title}

Accuracy on these scenes: {accuracy:.3f}.

{tallies}

![What methods see in four scenes, one in a line](paper_findings_{name}_methods.jpg)

What methods see of the predicted class. These scenes are not among those of the study: they are
composed in the same way of parts that may be passed on (`benchmarks/assets`), the first two of each
class. The same figure of the first held-out scene of every class is written to
`logs/paper_findings`.

{main}

{further}

### Rule sets and ablations

In brackets: change from the full LibraGrad, images paired.

{rules}

### Completeness

|sum of attributions (and biases) - logit| of the predicted class, float32. Integrated Gradients has
to add up to the difference from the logit of tokens that are all zero. Last column: the largest
relative error at the input of any block.

{completeness}

### Class discrimination

{pairs} scenes with two objects of different classes, each class explained (intervals: scenes are
drawn). Class discrimination:
how much larger the AP of a map is on its own object than on the other one; 0 for maps that do not
depend on the class.

![Scenes with two objects, explained once for each class](paper_findings_{name}_classes.jpg)

{discrimination_tallies}

{discrimination}
"""


@dataclass(frozen=True)
class Found:
    """What was found about a model.

    Attributes:
        name: Short name, used in files.
        title: Heading.
        faithfulness: Of scenes with one object.
        completeness: Of the same scenes.
        discrimination: Of scenes with two objects.
    """

    name: str
    title: str
    faithfulness: Measured
    completeness: Measured
    discrimination: Measured


def page(results: Sequence[Found], plan: Plan) -> str:
    """Return the report as Markdown."""
    groups = results[0].faithfulness.groups
    introduction = _INTRODUCTION.format(
        images=plan.images,
        steps=plan.steps,
        objects=plan.images if groups is None else len(groups.unique()),
    )
    return introduction + "".join(_section(found, plan) for found in results)


def _section(found: Found, plan: Plan) -> str:
    some = next(iter(found.faithfulness.values.values()))
    methods = found.faithfulness.restricted(("plain", "libra"))
    return _SECTION.format(
        title=found.title,
        name=found.name,
        accuracy=some["correct"].mean(),
        tallies=_tallies(methods, (*MAIN, *FURTHER)),
        main=methods_table(methods, MAIN),
        further=methods_table(methods, FURTHER),
        rules=rules_table(found.faithfulness, MAIN),
        completeness=completeness_table(found.completeness.values),
        pairs=plan.pairs,
        discrimination_tallies=_tallies(found.discrimination, DISCRIMINATION),
        discrimination=methods_table(found.discrimination, DISCRIMINATION),
    )


def _tallies(measured: Measured, quantities: Sequence[str]) -> str:
    return "\n".join(f"- {tally(measured, quantity)}" for quantity in quantities)

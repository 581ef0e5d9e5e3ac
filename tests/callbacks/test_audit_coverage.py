"""The audit says at the first images which operations of the model have a gradient rule."""

import warnings

import pytest
from audit_cases import Classifier, audit, loader, trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from unknown_operation import CustomActivation

from libragrad_lightning.backward import (
    LIBRA,
    VOCABULARY,
    Activation,
    RuleSet,
)


def module_with_an_unknown_operation(path="blocks.1.mlp"):
    module = Classifier()
    module.net.get_submodule(path).act = CustomActivation()
    return module


def fit(tmp_path, module, callback, **kwargs):
    run = trainer(tmp_path, [callback], **({"max_epochs": 1} | kwargs))
    run.fit(module, loader(), loader())
    return run


def texts(run):
    events = EventAccumulator(run.logger.log_dir)
    events.Reload()
    tags = [tag for tag in events.Tags()["tensors"] if "/coverage/" in tag]
    return {tag: events.Tensors(tag) for tag in tags}


@pytest.mark.parametrize("sanity_steps", [0, 1])
def test_tensorboard_gets_one_text_per_rule_set_and_fit(tmp_path, sanity_steps):
    kwargs = {"num_sanity_val_steps": sanity_steps, "max_epochs": 2}
    found = texts(fit(tmp_path, Classifier(), audit(), **kwargs))
    assert set(found) == {f"audit/coverage/{rules}/text_summary" for rules in ("plain", "libra")}
    for events in found.values():
        assert len(events) == 1
        assert (events[0].step == 0) == (sanity_steps > 0)
        text = events[0].tensor_proto.string_val[0].decode()
        assert "| GeluBackward0 | activation | 2 | 0 | net.blocks.0.mlp.act" in text
        assert "unknown" not in text


@pytest.mark.parametrize("sanity_steps", [0, 1])
def test_an_unknown_operation_is_refused_with_its_place(tmp_path, sanity_steps):
    module = module_with_an_unknown_operation()
    match = r"SwishBackward in net\.blocks\.1\.mlp\.act.*`unknown='warn'`"
    with pytest.raises(MisconfigurationException, match=match):
        fit(tmp_path, module, audit(), num_sanity_val_steps=sanity_steps)
    assert module.trainer.current_epoch == 0
    assert module.trainer.global_step == (0 if sanity_steps else 6)


def test_an_unknown_operation_is_warned_of_and_marked(tmp_path):
    with pytest.warns(UserWarning, match=r"LibraGradAudit meets.*SwishBackward in net\.blocks\.1"):
        run = fit(tmp_path, module_with_an_unknown_operation(), audit(unknown="warn"))
    text = texts(run)["audit/coverage/libra/text_summary"][0].tensor_proto.string_val[0].decode()
    assert "| SwishBackward | **unknown** | 1 | 0 | net.blocks.1.mlp.act |" in text


def test_an_unknown_operation_is_marked_without_a_word(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*role is unknown|.*without a gradient rule")
        run = fit(tmp_path, module_with_an_unknown_operation(), audit(unknown="ignore"))
    text = texts(run)["audit/coverage/plain/text_summary"][0].tensor_proto.string_val[0].decode()
    assert "**unknown**" in text


def test_a_vocabulary_that_knows_the_operation_satisfies_the_audit(tmp_path):
    swish = Activation(lambda node: node.saved_tensors[0].sigmoid())
    rules = RuleSet("mine", LIBRA.rules, VOCABULARY.extended({"SwishBackward": swish}))
    callback = audit(rules=[rules])
    fit(tmp_path, module_with_an_unknown_operation(), callback)
    assert callback.history[0].values["relative_completeness_error/mine"] < 1e-4


def test_what_lies_before_the_tokens_does_not_matter(tmp_path):
    module = Classifier()
    module.net.patch_embed.norm = CustomActivation()
    callback = audit()
    fit(tmp_path, module, callback)
    assert callback.history[0].values["relative_completeness_error/libra"] < 1e-4

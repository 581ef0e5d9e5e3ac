"""Models that are fine-tuned through low-rank adapters of peft: explained as any other."""

import lightning as L
import peft
import pytest
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader

from libragrad_lightning import explain
from libragrad_lightning.callbacks import LibraGradAudit

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
ADAPTERS = {
    "lora": {"target_modules": ["qkv", "fc1"]},
    "lora with bias": {"target_modules": ["fc1", "fc2"], "lora_bias": True},
    "lora and a trained head": {"target_modules": ["qkv"], "modules_to_save": ["head"]},
    "dora": {"target_modules": ["qkv", "proj"], "use_dora": True},
    "rslora": {"target_modules": ["proj"], "use_rslora": True},
}


def adapted(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **SMALL)
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_dropout=0.2, **ADAPTERS[name]))
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    return model


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_model_with_adapters_is_explained_completely_and_left_as_it_was(name):
    model = adapted(name).double().train()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    libra, plain = (explain(model, images, rules=r, reward="logit") for r in ("libra", "plain"))
    assert libra.attribution.shape == (2, 4, 4)
    assert (libra.residuals / libra.target_logit).abs().max() < 1e-11
    assert (plain.residuals / plain.target_logit).abs().max() > 1e-3
    assert {n for n, p in model.named_parameters() if p.requires_grad} == trained
    assert len(trained) < len(list(model.parameters()))
    assert model.training
    assert all(p.grad is None for p in model.parameters())


class Adapted(L.LightningModule):
    """Trains the adapters of a model."""

    def __init__(self):
        super().__init__()
        self.model = adapted("lora")

    def forward(self, images):
        return self.model(images)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=0.01)


def fitted(callbacks, folder):
    L.seed_everything(1)
    pairs = [(torch.randn(3, 32, 32), i % 3) for i in range(12)]
    module = Adapted()
    trainer = L.Trainer(
        default_root_dir=folder, max_epochs=2, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=callbacks,
    )  # fmt: skip
    loader = DataLoader(pairs, batch_size=4)
    trainer.fit(module, loader, loader)
    return module, trainer


def test_an_audit_does_not_change_the_training_of_adapters(tmp_path):
    alone, _ = fitted([], tmp_path)
    audited, trainer = fitted([LibraGradAudit(max_samples=8)], tmp_path)
    assert trainer.callback_metrics["audit/relative_completeness_error/libra"] < 1e-4
    expected = alone.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in audited.state_dict().items())
    before = Adapted().state_dict()
    assert any(not torch.equal(v, before[k]) for k, v in expected.items())

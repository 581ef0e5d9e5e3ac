"""Shared fixtures: one thread per process, and a seed for every test."""

import pytest
import torch

import libragrad_lightning  # noqa: F401  (repairs torchvision before anything imports it)


@pytest.fixture(autouse=True)
def _one_thread_and_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)

"""Leaves pretrained models at random weights in programs that find this folder on Python's path.

Pages show models with the weights that a reader wants, and a test has no hub to fetch them from.
Nothing is imported before the program does: what it imports first is a part of what is tested.
"""

import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec


def _without_weights_of_timm(module):
    module.load_pretrained = lambda *_, **__: None


def _without_weights_of_open_clip(module):
    create = module.create_model_and_transforms

    def created(name, pretrained=None, **others):
        return create(name, **others)

    module.create_model_and_transforms = created


CHANGES = {
    "timm.models._builder": _without_weights_of_timm,
    "open_clip.factory": _without_weights_of_open_clip,
}


class ChangedLoader(Loader):
    """Loads a module as another loader does, and changes it before anybody sees it."""

    def __init__(self, loader, change):
        self._loader, self._change = loader, change

    def create_module(self, spec):
        """Return what the other one returns."""
        return self._loader.create_module(spec)

    def exec_module(self, module):
        """Run the module, then change it."""
        self._loader.exec_module(module)
        self._change(module)


class Changes(MetaPathFinder):
    """Finds the modules that are to be changed."""

    def __init__(self):
        self._searching = False

    def find_spec(self, name, path=None, target=None):
        """Return the spec of the other finders, with a loader that changes the module."""
        if self._searching or name not in CHANGES:
            return None
        self._searching = True
        try:
            spec = find_spec(name)
        finally:
            self._searching = False
        spec.loader = ChangedLoader(spec.loader, CHANGES[name])
        return spec


if "WITHOUT_HUB" in os.environ:  # others may import this file, too
    sys.meta_path.insert(0, Changes())

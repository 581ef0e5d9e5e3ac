"""What the data modules of annotated images share: their folder and the model's transform."""

from pathlib import Path

from libragrad_lightning.data.batches import Split
from libragrad_lightning.data.module import SplitDataModule
from libragrad_lightning.data.transforms import EvalTransform


class AnnotatedDataModule(SplitDataModule):
    """Images of a folder, prepared as a model expects them.

    Args:
        root: The folder of the data set.
        model_name: The timm model whose evaluation transform is used.
        image_size: Height and width of the images, pixels, or None for the model's own.
        batch_size: Images in a batch.
        flip: Whether each training image is mirrored, with its masks, in half of its uses.
        num_workers: Worker processes of each data loader.

    Raises:
        ValueError: If timm knows no such model.
    """

    def __init__(
        self,
        root: str,
        model_name: str,
        image_size: int | None,
        batch_size: int,
        flip: bool,
        num_workers: int,
    ) -> None:
        super().__init__(batch_size, flip, num_workers)
        self._root = Path(root)
        self._transform = EvalTransform(model_name, image_size)
        self.image_mean, self.image_std = self._transform.mean, self._transform.std

    def _refuse_training(self, split: Split) -> None:
        """Refuse the training split, where a data set is for evaluation alone."""
        if split == "train":
            raise ValueError(
                f"{type(self).__name__} has no training images; run `libragrad validate`, or train "
                "with another data module."
            )

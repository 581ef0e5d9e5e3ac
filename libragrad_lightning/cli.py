"""The command ``libragrad``: a LightningCLI with fit, validate and test."""

from lightning.pytorch.cli import ArgsType, LightningCLI


class LibraGradCLI(LightningCLI):
    """LightningCLI without `predict`, which an audit has no part in."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the Trainer methods that are offered as subcommands."""
        return {
            name: skipped
            for name, skipped in LightningCLI.subcommands().items()
            if name in {"fit", "validate", "test"}
        }


def main(args: ArgsType = None) -> None:
    """Run the command line."""
    LibraGradCLI(save_config_kwargs={"overwrite": True}, args=args)

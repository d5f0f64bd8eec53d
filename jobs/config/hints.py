"""What an option is called that was written under another name, or in another table. Loads no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from nst.errors import OptionError

__all__ = ["PUBLIC_NAMES", "hints"]

_RESUME = "`nst resume OUT` goes on with a training"
PUBLIC_NAMES: Mapping[str, str] = {
    "batchSize": "it is batch_size here",
    "checkpoints_dir": "it is output here, the folder of one training",
    "continue_train": f"{_RESUME} here",
    "dataroot": "the two collections are a and b here",
    "direction": "a training trains both; it is an option of the method that uses the generators",
    "display_freq": "it is log.samples_every here, in steps",
    "epoch": _RESUME,
    "epoch_count": _RESUME,
    "gpu_ids": "it is resources.max_workers here, with resources.num_gpus = 1",
    "init_type": "it is model.init here",
    "input_nc": "it is model.input_channels here",
    "lambda_A": "it is model.lambda_a here",
    "lambda_B": "it is model.lambda_b here",
    "lr": "it is model.learning_rate here",
    "n_layers_D": "it is model.discriminator_layers here",
    "name": "it is output here, the folder of one training",
    "ndf": "it is model.discriminator_channels here",
    "netD": "it is model.discriminator here",
    "netG": "it is model.generator here",
    "ngf": "it is model.generator_channels here",
    "niter": "it is schedule.n_epochs here",
    "niter_decay": "it is schedule.n_epochs_decay here",
    "no_dropout": "it is model.dropout here, by default false",
    "no_flip": "it is data.flip = false here",
    "num_threads": "it is resources.loader_workers here",
    "output_nc": "it is model.output_channels here",
    "print_freq": "it is log.metrics_every here, in steps",
    "save_epoch_freq": "it is log.checkpoint_every here, in steps",
    "save_latest_freq": "it is log.checkpoint_every here, in steps",
}
"""Options of the public implementation of CycleGAN whose names are others here."""


@contextmanager
def hints(tables: Mapping[str, Collection[str]], others: Mapping[str, str] | None = None) -> Iterator[None]:
    """Within it, the error of an unknown option says what is meant, if that is known.

    Args:
        tables: names of the options of each table; of those above all tables under the empty name.
        others: what is to be said of other names.
    """
    try:
        yield
    except OptionError as error:
        table, _, name = error.option.rpartition(".")
        if error.reason != "unknown option":
            raise
        places = [f"{place}.{name}" if place else name for place, known in tables.items() if name in known]
        hint = (others or {}).get(name) if not places else f"it is {' or '.join(places)}"
        if hint is None or error.option in places:
            raise
        where = f" in [{table}]" if table else " outside of all tables"
        raise OptionError(error.option, error.value, reason=f"there is none{where}; {hint}") from error

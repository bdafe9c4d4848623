"""``python -m trainer.cli``, the same as ``mts4mm``."""

from trainer.cli.app import main

main()

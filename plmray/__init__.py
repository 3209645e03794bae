"""plmray: hyperparameter and seed sweeps for fine-tuning protein language models."""

__version__ = "0.1.0"

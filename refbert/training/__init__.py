"""Training: learning-rate schedules and the optimizer step."""

from refbert.training.optimizer import Optimizer, decays
from refbert.training.schedule import learning_rate

__all__ = ["Optimizer", "decays", "learning_rate"]

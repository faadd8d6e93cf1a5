"""Training: from batches to weights.

accumulation  a batch's gradients, in pieces
optimizer     one update          schedule   its learning rate
loop          update after update: what it asks of its data, and what stops it
distributed   several processes, one run
checkpoints   what a run is resumed from
metrics       what each update was        page   the same as curves
run           a run's directory           ownership     whose it is
settings      what every run has, and how a setting is declared
session       what both kinds of training do around the loop; long work that a signal can end
pretraining   from text to a model, and text to score it on: pretraining_settings
finetuning    from labelled files to the best of several models: finetuning_settings, task_model
"""

from refbert.training.optimizer import Optimizer, decays
from refbert.training.schedule import learning_rate

__all__ = ["Optimizer", "decays", "learning_rate"]

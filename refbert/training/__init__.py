"""Training: from batches to weights.

source        what a loop asks of its data
accumulation  a batch's gradients, in pieces
optimizer     one update          schedule   its learning rate
loop          update after update, and what stops them
distributed   several processes, one run
checkpoints   what a run is resumed from
metrics       what each update was        page   the same as curves
run           a run's directory           ownership     whose it is
settings      what every run has, and how a setting is declared
session       what both kinds of training do around the loop
pretraining   from text to a model: pretraining_settings; held_out: text to score it on
finetuning    from labelled files to the best of several models: finetuning_settings, task_model, best
interruptible long work that a signal can end
"""

from refbert.training.optimizer import Optimizer, decays
from refbert.training.schedule import learning_rate

__all__ = ["Optimizer", "decays", "learning_rate"]

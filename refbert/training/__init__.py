"""Training: from batches to weights.

source        what a loop asks of its data
accumulation  a batch's gradients, in pieces
optimizer     one update          schedule   its learning rate
loop          update after update, and what stops them
distributed   several processes, one run
checkpoints   what a run is resumed from
metrics       what each update was        page   the same as curves        padding   how much of it is none
run           a run's directory           ownership     whose it is        typed     settings of the right types
pretraining   from text to a model        held_out      text to score it on         interruptible   long work meanwhile
finetuning    from labelled files to the best of several models; its settings, first model and choice:
              finetuning_settings, task_model, best
"""

from refbert.training.optimizer import Optimizer, decays
from refbert.training.schedule import learning_rate

__all__ = ["Optimizer", "decays", "learning_rate"]

"""Training: from batches to weights.

source        what a loop asks of its data
accumulation  a batch's gradients, in pieces
optimizer     one update          schedule   its learning rate
loop          update after update, and what stops them
distributed   several processes, one run
checkpoints   what a run is resumed from
metrics       what each update was        page   the same as curves
run           a run's directory           pretraining   from text to a model
finetuning    from labelled files to the best of several models; its settings and first model: finetuning_settings,
              task_model
"""

from refbert.training.optimizer import Optimizer, decays
from refbert.training.schedule import learning_rate

__all__ = ["Optimizer", "decays", "learning_rate"]

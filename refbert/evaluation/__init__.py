"""Scores: how well predictions fit labels. Plain functions of lists and arrays; no model, no backend.

scores     of classes: accuracy, F1, Matthews; of numbers: Pearson, Spearman
entities   F1 of BIO tags' entities      squad     exact match and F1 of answers, the no-answer threshold
tasks      a model's scores on a labelled file
"""

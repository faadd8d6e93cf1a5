"""The claims, a file for each document or part of one. Every module here is read; a new file needs no registration."""

# The order of the report within a document; what is not named here comes after, by name.
ORDER = ("bert_model", "bert_input", "bert_pretraining", "bert_optimization", "bert_finetuning", "bert_tables")

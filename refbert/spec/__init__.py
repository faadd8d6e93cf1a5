"""The spec: BERT composed of ops, in the paper's order, with each block's backward written under its forward.

It knows no array library, only the ops of the backend that it is handed (`refbert.backend.Backend`). Read in this
order: embeddings, attention, feed_forward, encoder, pooler, heads, losses, bert.
"""

"""One embedding and nothing else, as a program of its own would: first_embedding.py SIDE CHECKPOINT GRAPH TEXT.

Says "embedded" when it has the vector; then its peak memory and the vector. Run by speed.fresh, never imported.
"""

import sys

side, checkpoint, graph, text = sys.argv[1:]

if side == "refbert":
    import refbert

    vector = refbert.load(checkpoint).encode(text)[0]
elif side == "sentences":
    from sentence_transformers import SentenceTransformer

    vector = SentenceTransformer(checkpoint, device="cpu").encode(text, normalize_embeddings=True)
else:
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    tokens = Tokenizer.from_file(f"{checkpoint}/tokenizer.json")
    tokens.no_padding()
    encoding = tokens.encode(text)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    inputs = {
        "input_ids": np.array([encoding.ids], np.int32),
        "token_type_ids": np.array([encoding.type_ids], np.int32),
        "attention_mask": np.array([encoding.attention_mask], np.int32),
    }
    vector = session.run(None, inputs)[0][0].mean(axis=0)
    vector /= np.linalg.norm(vector)

print("embedded", flush=True)
with open("/proc/self/status", encoding="ascii", errors="replace") as status:
    print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")))
print(*(float(x).hex() for x in vector))

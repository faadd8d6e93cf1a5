#!/bin/sh
# The small English model, from nothing to refbert/models/small-english. Run in the repository's root, with
# pip install -e ".[raw,torch]", npm and a Debian or Ubuntu (for apt-get download and dpkg-deb); about 2.5 hours on two
# CPU cores, of which all but two minutes are the training. Stopped, it goes on where it was when run again.
#
#     sh recipes/small-english/recipe.sh build/small-english
set -eu
work=${1:?"where the text and the run go, such as build/small-english"}
recipe=recipes/small-english
processes=${PROCESSES:-2}

[ -f "$work/text/train.txt" ] || python $recipe/corpus.py "$work/text"

# One thread for each process: matrices this small do not fill two cores. Dropout 0: the text is read nine times, with
# other masks each time, which a model of this size does not learn by heart.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
torchrun --nproc-per-node "$processes" -m refbert pretrain "$work/text/train.txt" --output "$work/run" --resume \
    --size $recipe/config.json --vocab-size 8192 --backend "${BACKEND:-numpy}" --examples dynamic \
    --steps "${STEPS:-14000}" --batch-size 64 --micro-batch 32 --short-length 64 --long-length 128 \
    --learning-rate 1e-3 --warmup 700 --dropout 0 --seed 0 --save-every 500

python $recipe/export.py "$work/run" refbert/models/small-english
python $recipe/evaluate.py --model refbert/models/small-english --train "$work/text/train.txt" \
    --output "$work/scores.json" "$work"/text/heldout-*.txt
refbert run --model refbert/models/small-english "A cat is a kind of [MASK]."

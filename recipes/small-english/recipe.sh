#!/bin/sh
# The small English model, from nothing to refbert/models/small-english. Run in the repository's root, with
# pip install -e ".[raw,torch]", pip, npm and a Debian or Ubuntu (for apt-get download and dpkg-deb). Stopped, it goes on where
# it was when run again. README.md says how long it took.
#
#     sh recipes/small-english/recipe.sh build/small-english
set -eu
export LC_ALL=C.UTF-8 # the files' order, which is that of their weights
work=${1:?"where the text and the run go, such as build/small-english"}
recipe=recipes/small-english
processes=${PROCESSES:-2}

if [ ! -f "$work/text/done" ]; then
    python $recipe/corpus.py "$work/text"
    : >"$work/text/done"
fi

# Two stages, as in A.2 of the paper, but with most of the steps at 32 tokens. Sequences of 64 tokens and initial weights of
# 0.02 (the paper's, for a model three times as wide) stay at the words' frequencies (a loss of 6) for thousands of steps,
# until a head finds the neighbours; with 32 tokens and 0.06 two heads look at the neighbours after 250 steps, and the loss
# is below 5 after 800. The second stage has a learning rate of its own, since positions from 32 on begin from nothing:
# the last, slow tenth of a schedule does not teach them. A rate of 1e-3 or 2e-3 is worse than 5e-4 from the start.
# One thread for each process: matrices this small do not fill two cores. Dropout 0: the text is read a few times, with
# other masks each time, which a model of this size does not learn by heart.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
stage() {
    name=$1
    shift
    torchrun --nproc-per-node "$processes" -m refbert pretrain "$work"/text/train/*.txt \
        --weights "$(cat "$work/text/weights")" --output "$work/$name" --resume --backend torch \
        --mixed-precision bfloat16 --examples dynamic --random-within 20 --dropout 0 --seed 0 --save-every 500 "$@"
}
stage short --size $recipe/config.json --vocab-size 8192 --steps 10000 --batch-size 128 --micro-batch 64 \
    --short-length 32 --long-length 32 --learning-rate 5e-4 --warmup 300
stage long --from "$work/short" --steps 2800 --batch-size 32 --micro-batch 16 \
    --short-length 128 --long-length 128 --learning-rate 5e-4 --warmup 200

python $recipe/export.py "$work/long" refbert/models/small-english
python $recipe/evaluate.py "$work"/text/heldout-*.txt --model refbert/models/small-english \
    --output $recipe/scores.json --train "$work"/text/train/*.txt
python $recipe/everyday.py --model refbert/models/small-english --output $recipe/everyday-scores.json
refbert run "A cat is a kind of [MASK]."

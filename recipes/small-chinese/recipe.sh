#!/bin/sh
# The small Chinese and English model, from nothing to build/small-chinese/small-chinese; to ship it, copy that to
# refbert/models. Run this in the repository's root, on Debian 12 (apt-get download, dpkg-deb) with npm, after
# pip install -e ".[raw,torch]" nupunkt==0.8.0 opencc==1.4.2 tables. If it stops, run it again: it goes on from where
# it was.
#
#     sh recipes/small-chinese/recipe.sh build/small-chinese
set -eu
export LC_ALL=C.UTF-8 # the files' order, which is that of their weights
work=${1:?"where the text and the run go, such as build/small-chinese"}
recipe=recipes/small-chinese
english=recipes/small-english

if [ ! -f "$work/text/done" ]; then
    python $recipe/chinese_corpus.py "$work/text"
    : >"$work/text/done"
fi

# From random weights, in three stages. With 32 tokens and an initializer range of 0.06, some heads learn to look at
# neighbouring tokens within a few hundred updates. With 64 tokens and the paper's 0.02, a model this narrow predicts
# little more than the characters' frequencies for thousands. Each later stage has its own learning rate, because its
# positions from 32 and from 64 on are untrained. The last two show facts 12 times a round (before: 4), and what is
# everyday more often than before: capitals and opposites have to be memorised.
stage() {
    name=$1
    shift
    python -m refbert pretrain "$work"/text/train/*.txt --output "$work/$name" --resume --backend torch \
        --mixed-precision bfloat16 --examples dynamic --random-within 20 --dropout 0 --batch-size 32 "$@"
}
later=0.5,1,0.5,1,0.5,1,12,0.5,6,0.5,4
stage short --size $recipe/config.json --vocab-size 12000 --weights "$(cat "$work/text/weights")" --seed 0 \
    --steps 8000 --short-length 32 --long-length 32 --learning-rate 5e-4 --warmup 500
stage middle --from "$work/short" --weights $later --seed 1 \
    --steps 10000 --short-length 64 --long-length 64 --learning-rate 4e-4 --warmup 200
stage long --from "$work/middle" --weights $later --seed 2 \
    --steps 1500 --short-length 128 --long-length 128 --learning-rate 4e-4 --warmup 30

rm -rf "$work/small-chinese"
python $english/export.py "$work/long" "$work/small-chinese" --limit 8000000
held= # of english-facts, handbook and hsk there is not enough for a batch
for source in bible cataclysm classics dictionary encyclopedia facts kingdoms tatoeba; do
    held="$held $work/text/heldout-$source.txt"
done
lists="$work/text/heldout-dictionary.txt $work/text/heldout-facts.txt"
for model in long small-chinese; do # what int8 costs is the difference
    python $english/evaluate.py $held --lists $lists --model "$work/$model" --backend torch \
        --output "$work/scores-$model.json" --train "$work"/text/train/*.txt
done
cp "$work/scores-small-chinese.json" $recipe/scores.json
for list in everyday second; do
    python $english/everyday.py --model "$work/small-chinese" --list $recipe/$list.tsv --no-pairs \
        --output $recipe/$list-scores.json
done

# CST on COCO-20i: four folds trained and judged, from pictures and weights to its tables (Kang et al., CVPR 2023)
#
# A list of commands and no recipe in TOML, which is one chain and has no folds: `sh` runs it. Every command skips what
# is done, so a run that was stopped is started again. Paths and sizes below can be given in the environment.
#
# Needed: COCO 2014 with the class masks of the few-shot literature (COCO2014/annotations/{train,val}2014/*.png, from
# github.com/juhongm999/hsnet), the lists of COCO-20i (data/splits/coco of github.com/dahyun-kang/cst), and DINO's
# ViT-S/8 of 300 epochs, which is not the one of torch.hub:
# https://dl.fbaipublicfiles.com/dino/dino_deitsmall8_300ep_pretrain/dino_deitsmall8_300ep_pretrain.pth
# What is stored of 123,287 pictures would be 3.2 TB, so the backbone runs along; keys alone are 1.9 MB a picture.
#
# Otherwise than in the original, students learn from every picture of train2014 that shows a base class, where its
# lists leave some out for a reason that is not known, and each picture and class is the query in turn, where it draws a
# class and then a picture.
set -eu

COCO="${COCO:-COCO2014}"      # holds train2014, val2014 and annotations
FOLDS="${FOLDS:-splits/coco}"  # holds trn and val
BACKBONE="${BACKBONE:-vit_small_patch8_224}"
WEIGHTS="${WEIGHTS:-dino_deitsmall8_300ep_pretrain.pth}"
SIZE="${SIZE:-400}"
# 80 epochs, as EMAT (github.com/visinf/emat) trains it anew: how long the published checkpoints were trained is not
# known. They were chosen on the test episodes; here the last step is taken.
STEPS="${STEPS:-472000}"
EPISODES="${EPISODES:-1000}"
DEVICE="${DEVICE:-cuda}"
WORK="${WORK:-reproduce-cst-coco}"

step() { maskmill "$@" || [ $? -eq 6 ]; }  # 6 is done, with a warning

step index coco20i "$COCO" --split train2014 --out "$WORK/images-trn"
step index coco20i "$COCO" --split val2014 --out "$WORK/images-val"

# The dataset that students learn from. Its masks are not used here: pairs make their own, or ground truth is taken.
step extract "$WORK/images-trn" --backbone "$BACKBONE" --weights "$WEIGHTS" --image-size "$SIZE" --fit squash \
    --fields keys,cls_query --device "$DEVICE" --out "$WORK/keys-trn"
step mask "$WORK/keys-trn" --method cst --supports 8 --threshold 0.4 --out "$WORK/maps"
step refine "$WORK/maps" --out "$WORK/labels"
step manifest "$WORK/labels" --title "COCO 2014 train" --out "$WORK/dataset"

online() {
    step "$@" --features online --backbone "$BACKBONE" --weights "$WEIGHTS" --image-size "$SIZE" --device "$DEVICE"
}

# The classes that are learned, by number: fold 0 judges 1, 5, 9 … 77, fold 1 judges 2, 6, 10 … 78, and so on.
for supervision in pseudo mask; do
    for fold in 0 1 2 3; do
        base=
        number=1
        while [ $number -le 80 ]; do
            [ $(((number - 1) % 4)) -eq $fold ] || base=$base,$number
            number=$((number + 1))
        done
        online train "$WORK/dataset" --student cst --supervision "$supervision" --classes "${base#,}" \
            --steps "$STEPS" --out "$WORK/$supervision-$fold"
    done
done

# Each ends in what was published, what was measured, and the difference.
for way in 1 2; do
    for supervision in pseudo mask; do
        support=pseudo
        [ "$supervision" = pseudo ] || support=gt
        online evaluate fscs "$WORK/$supervision-0" "$WORK/$supervision-1" "$WORK/$supervision-2" \
            "$WORK/$supervision-3" --images "$WORK/images-val" --protocol coco-20i --folds "$FOLDS" --way "$way" \
            --support-mask "$support" --episodes "$EPISODES" --save-predictions \
            --out "$WORK/metrics-$supervision-$way-way"
    done
done

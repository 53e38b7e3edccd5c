# CST on COCO-20i: trains and evaluates four folds, from pictures and weights to its tables (Kang et al., CVPR 2023)
#
# A shell script, because a TOML recipe is one chain without folds. Run it with `sh`. Every command skips what is done,
# so rerun the script to resume. Environment variables override the paths and sizes below.
#
# Needed: COCO 2014 with the class masks of the few-shot literature (COCO2014/annotations/{train,val}2014/*.png, from
# github.com/juhongm999/hsnet), the lists of COCO-20i (data/splits/coco of github.com/dahyun-kang/cst), and DINO's
# ViT-S/8 of 300 epochs, which differs from torch.hub's:
# https://dl.fbaipublicfiles.com/dino/dino_deitsmall8_300ep_pretrain/dino_deitsmall8_300ep_pretrain.pth
# Stored tokens of 123,287 pictures would take 3.2 TB, so the backbone runs during training; keys take 1.9 MB a picture.
#
# Unlike the original, students learn from every picture of train2014 that shows a base class (its lists leave some out
# for an unknown reason), and each picture and class is the query in turn (it draws a class and then a picture).
set -eu

COCO="${COCO:-COCO2014}"      # holds train2014, val2014 and annotations
FOLDS="${FOLDS:-splits/coco}"  # holds trn and val
BACKBONE="${BACKBONE:-vit_small_patch8_224}"
WEIGHTS="${WEIGHTS:-dino_deitsmall8_300ep_pretrain.pth}"
SIZE="${SIZE:-400}"
# 80 epochs, as EMAT (github.com/visinf/emat) retrains it; the training time of the published checkpoints is unknown.
# They were chosen on the test episodes; this uses the last step.
STEPS="${STEPS:-472000}"
EPISODES="${EPISODES:-1000}"
DEVICE="${DEVICE:-cuda}"
WORK="${WORK:-reproduce-cst-coco}"

step() { maskmill "$@" || [ $? -eq 6 ]; }  # 6 is done, with a warning

step index coco20i "$COCO" --split train2014 --out "$WORK/images-trn"
step index coco20i "$COCO" --split val2014 --out "$WORK/images-val"

# The training dataset. Its masks are not used here: pairs compute their own, or use ground truth.
step extract "$WORK/images-trn" --backbone "$BACKBONE" --weights "$WEIGHTS" --image-size "$SIZE" --fit squash \
    --fields keys,cls_query --device "$DEVICE" --out "$WORK/keys-trn"
step mask "$WORK/keys-trn" --method cst --supports 8 --threshold 0.4 --out "$WORK/maps"
step refine "$WORK/maps" --out "$WORK/labels"
step manifest "$WORK/labels" --title "COCO 2014 train" --out "$WORK/dataset"

online() {
    step "$@" --backbone "$BACKBONE" --weights "$WEIGHTS" --image-size "$SIZE" --device "$DEVICE"
}

# Training classes, by number: fold 0 tests 1, 5, 9 … 77, fold 1 tests 2, 6, 10 … 78, and so on.
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

# Each command ends with the published score, the measured score, and the difference.
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

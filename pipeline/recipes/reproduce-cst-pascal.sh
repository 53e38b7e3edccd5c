# CST on Pascal-5i: four folds trained and judged, from pictures and weights to its tables (Kang et al., CVPR 2023)
#
# A list of commands and no recipe in TOML, which is one chain and has no folds: `sh` runs it. Every command skips what
# is done, so a run that was stopped is started again. Paths and sizes below can be given in the environment.
#
# Needed: VOC 2012 with the masks of SBD (SegmentationClassAug), the lists of Pascal-5i (data/splits/pascal of
# github.com/dahyun-kang/cst), and DINO's ViT-S/8 of 300 epochs, which is not the one of torch.hub:
# https://dl.fbaipublicfiles.com/dino/dino_deitsmall8_300ep_pretrain/dino_deitsmall8_300ep_pretrain.pth
# What is stored of a picture is 26 MB as float16: 265 GB for the 10,092 pictures to learn from, 36 GB for the 1,381
# to judge on.
#
# Otherwise than in the original, whose every answer to "is the class there" is read off a mask, students that learn
# from image-level labels are told what the lists say. Students that learn from masks are told by these.
set -eu

VOC="${VOC:-VOCdevkit/VOC2012}"  # holds JPEGImages and SegmentationClassAug
FOLDS="${FOLDS:-splits/pascal}"  # holds trn and val
BACKBONE="${BACKBONE:-vit_small_patch8_224}"
WEIGHTS="${WEIGHTS:-dino_deitsmall8_300ep_pretrain.pth}"
SIZE="${SIZE:-400}"
# 80 epochs of folds 0 and 3, 89 of fold 1 and 117 of fold 2, where EMAT (github.com/visinf/emat) trains each anew for
# 80: how long the published checkpoints were trained is not known. They were chosen on the test episodes; here the last
# step is taken.
STEPS="${STEPS:-76000}"
EPISODES="${EPISODES:-1000}"
DEVICE="${DEVICE:-cuda}"
WORK="${WORK:-reproduce-cst-pascal}"

step() { maskmill "$@" || [ $? -eq 6 ]; }  # 6 is done, with a warning

mkdir -p "$WORK"
for part in trn val; do
    cat "$FOLDS/$part"/fold0.txt "$FOLDS/$part"/fold1.txt "$FOLDS/$part"/fold2.txt "$FOLDS/$part"/fold3.txt \
        > "$WORK/$part.txt"
    step index voc "$VOC" --list "$WORK/$part.txt" --masks SegmentationClassAug --out "$WORK/images-$part"
    step extract "$WORK/images-$part" --backbone "$BACKBONE" --weights "$WEIGHTS" --image-size "$SIZE" --fit squash \
        --fields tokens:all,support_tokens:all,keys,cls_query --device "$DEVICE" --out "$WORK/tokens-$part"
done

# The dataset that students learn from. Its masks are not used here: pairs make their own, or ground truth is taken.
step mask "$WORK/tokens-trn" --method cst --supports 8 --threshold 0.4 --out "$WORK/maps"
step refine "$WORK/maps" --out "$WORK/labels"
step manifest "$WORK/labels" --title "VOC 2012, pictures of Pascal-5i's lists" --out "$WORK/dataset"

# The classes that are learned: those of the other three folds.
FOLD0=aeroplane,bicycle,bird,boat,bottle
FOLD1=bus,car,cat,chair,cow
FOLD2=diningtable,dog,horse,motorbike,person
FOLD3=pottedplant,sheep,sofa,train,tvmonitor
for supervision in pseudo mask; do
    for fold in 0 1 2 3; do
        case $fold in
            0) base=$FOLD1,$FOLD2,$FOLD3 ;;
            1) base=$FOLD0,$FOLD2,$FOLD3 ;;
            2) base=$FOLD0,$FOLD1,$FOLD3 ;;
            3) base=$FOLD0,$FOLD1,$FOLD2 ;;
        esac
        step train "$WORK/dataset" --student cst --supervision "$supervision" --classes "$base" \
            --tokens "$WORK/tokens-trn" --steps "$STEPS" --device "$DEVICE" --out "$WORK/$supervision-$fold"
    done
done

# Each ends in what was published, what was measured, and the difference.
for way in 1 2; do
    for supervision in pseudo mask; do
        support=pseudo
        [ "$supervision" = pseudo ] || support=gt
        step evaluate fscs "$WORK/$supervision-0" "$WORK/$supervision-1" "$WORK/$supervision-2" "$WORK/$supervision-3" \
            --tokens "$WORK/tokens-val" --protocol pascal-5i --folds "$FOLDS" --way "$way" --support-mask "$support" \
            --episodes "$EPISODES" --save-predictions --device "$DEVICE" --out "$WORK/metrics-$supervision-$way-way"
    done
done

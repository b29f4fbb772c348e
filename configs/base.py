"""Every field of a run, with its unit and its reason: the paper's recipe (section 4.1).

ap10k_jax/settings.py has the limits of every field, in the same order.

The other configs change a handful of these lines. On the command line any field can be overridden:
`python -m ap10k_jax.main --config=configs/sl.py --config.model.name=hrnet_w48 --config.epochs=420`.
"""

import dataclasses

from ml_collections import ConfigDict

from ap10k_jax.augmentation import Augmentation


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # initial weights, data order and augmentation all follow from it
    config.epochs = 210  # 0: no training, the initial weights are scored as they are
    # True: an epoch, here and in the intervals counted in epochs, is as many images as the whole
    # training split has (7,023 on split 1) and not a pass over the training set. Few species, or
    # few labels, are then shown for as many images as supervised learning on all of AP-10K sees.
    config.epochs_of_whole_split = False
    config.batch_size = 64  # animals a step, over all devices
    # The protocol keeps an epoch's last, smaller batch (143 steps on split 1). That shape compiles
    # a second time: short runs drop it instead.
    config.drop_remainder = False

    # > 1: a step takes its batch in so many equal parts, one after the other, and needs memory for
    # one of them. Each part is normalised with statistics of its own.
    config.batch_parts = 1

    config.model = ConfigDict()
    config.model.name = "hrnet_w32"  # a key of ap10k_jax.models; `python -m ap10k_jax.models` lists
    config.model.num_keypoints = 17  # those of the data set; a run on another number is refused
    # Of the computation, or "bfloat16", or "float16" (the loss is scaled then); parameters,
    # statistics and heatmaps stay float32.
    config.model.dtype = "float32"
    # True: of a training step's forward pass only the blocks' outputs are kept, and the rest is
    # computed again for the gradient: less memory, about a third more time.
    config.model.remat = False
    # "" starts from random weights; else the directory of a finished run (its best checkpoint), a
    # step of any run, an exported checkpoint of ours, a weight file (.pth, .safetensors), or
    # imagenet, coco or ap10k: the public file for the model.
    config.init_from = ""

    config.data = ConfigDict()
    # split1, split2, split3: the paper's three random splits; animal_pose/split1 to 3 are ours, and
    # its joints become AP-10K's (see `neck`); coco_keypoints/2017, people with COCO's joints;
    # own/NAME, see tfds_ap10k/own/README.md. Mirroring, AP and pictures follow the data's joints.
    config.data.name = "ap10k/split1"
    config.data.dir = "~/tensorflow_datasets"  # where the built data set is or will be
    config.data.manual_dir = ""  # the downloaded AP-10K, or your folder, if it is still to be built
    # Of Animal-Pose alone: which of its joints stands for AP-10K's neck, "throat" (most likely the
    # paper's) or "midpoint", of throat and withers (where AP-10K's annotators put the neck). APs
    # with different necks are not comparable: see ap10k_jax.keypoints.ANIMAL_POSE_NECKS.
    config.data.neck = "throat"
    config.data.synthetic_images = 0  # > 0: draw that many synthetic photographs in place of AP-10K
    config.data.species = ""  # comma-separated species and families to train on; "": all
    # > 0: of every species only so many images of train keep their labels, drawn from config.seed;
    # labels.json in the run's directory names them. The others can be learnt from by config.semi.
    config.data.labels_per_species = 0
    config.data.image_size = 256  # side of the square crop in pixels; heatmaps have a quarter
    config.data.max_animals = 0  # > 0: only the first so many of every split (overfitting checks)
    config.data.loader_threads = 4
    # Where training crops come from. "stream" decodes every photograph every time; "decoded" keeps
    # the pixels in data.dir/photographs (13 GB for each of AP-10K's splits) and cuts the same crops
    # to the bit. "auto" is "decoded" where half of the memory and half of the free disk are enough,
    # else "stream". "device" cuts crops in the accelerator's memory, from small pictures of every
    # animal that are kept in data.dir/patches (4 GB): the least work for the host, but softer
    # crops, which cost a small network on small crops about .01 of AP (benchmarks/RESULTS.md):
    # this one must be asked for.
    config.data.input = "auto"

    # Transfer and few-shot (Table 10): the images of data.species are divided anew.
    config.draw = ConfigDict()
    config.draw.images = 0  # > 0: so many images of all splits to train on; `test` is all others
    config.draw.shots = 0  # > 0: of those only the first so many to train on
    config.draw.seed = 0  # which images they are follows from it and from the images' ids

    # Learning from animals without labels, too, by a mean teacher (ap10k_jax/semi.py): those whose
    # labels are left out, and the split `unlabeled` where the data set has one.
    config.semi = ConfigDict()
    config.semi.batch_size = (
        0  # animals a step beside the labelled ones; 0: none, all of this is off
    )
    config.semi.weight = 1.0  # of their loss; 0: they only pass BatchNorm, the teacher averages
    config.semi.ramp_up_steps = 500  # in which the weight grows: the first teacher knows little
    config.semi.ema_decay = 0.999  # of the teacher a step, an average over about 1000 steps
    # Least peak of a pseudo-label's heatmap. Its target is as high as that peak (a label's is 1):
    # what the teacher doubts is taught as doubtful.
    config.semi.confidence = 0.3
    # Largest distance between what a crop and its mirror image say, as a share of the crop's side.
    config.semi.agreement = 0.04  # 10 pixels of 256, 2.5 cells of its heatmap
    # Boxes of the split `unlabeled`: COCO, MegaDetector or CSV, see ap10k_jax/box_files.py. "":
    # each photograph as a whole is one animal, which is all that is known.
    config.semi.boxes = ""
    # The teacher's view is almost upright, as what it was taught is on average; the student's is
    # that of config.augment (half bodies apart: they would need labels), disturbed.
    config.semi.weak = ConfigDict(
        dataclasses.asdict(
            Augmentation(
                half_body_probability=0.0,
                scale_sigma=0.1,
                rotation_probability=0.5,
                rotation_sigma=10.0,
                shift_probability=0.0,
            )
        )
    )
    config.semi.disturbance = ConfigDict()
    config.semi.disturbance.contrast = 0.2  # factor uniform within 1 -+ this, about the mean
    config.semi.disturbance.brightness = 0.1  # added, uniform within -+ this share of 255
    config.semi.disturbance.patches = 1  # at most so many rectangles are painted over
    config.semi.disturbance.patch = 0.2  # longest side of one, as a share of the crop's

    # Zeros turn augmentation off. The two slips of the reference that shaped the published numbers
    # are kept, see ap10k_jax.Augmentation. shift_once=True draws the shift of the
    # crop's middle once for every animal, as the paper's code did; the default is today's MMPose's.
    config.augment = ConfigDict(dataclasses.asdict(Augmentation()))

    config.optimizer = ConfigDict()  # Adam without weight decay or clipping
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 500  # linear, from a thousandth of the rate
    # Shares of the run after which the rate falls to a tenth: epochs 170 and 200 of 210. As shares
    # they scale with the 2x and 3x schedules of Table 4.
    config.optimizer.decay_at = (170 / 210, 200 / 210)
    config.optimizer.linear_decay = False  # True: it falls linearly, to 0 at the end of the run

    config.eval = ConfigDict()
    # On `validation`; the best checkpoint by AP is kept. 0: only after the last epoch.
    config.eval.every_epochs = 10
    config.eval.splits = "validation,test"  # scored with the best checkpoint at the end
    # Comma-separated, of the final scores; `validation` follows data.species while training.
    config.eval.species = ""
    config.eval.batch_size = 64
    config.eval.flip_test = True  # average with the mirrored crop's heatmaps
    config.eval.decode = "default"  # or "dark"
    # Or "paper": the vector of the paper's own tables. Other joints than AP-10K's have their own.
    config.eval.sigmas = "corrected"

    config.log_every_steps = 50  # means over these steps go to metrics.jsonl and TensorBoard
    config.checkpoint_every_epochs = 1  # a killed run loses at most these epochs
    return config

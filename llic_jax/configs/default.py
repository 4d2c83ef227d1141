"""Every option with its meaning. Other configs start from this one and state differences only.

    python train.py --config configs/default.py --config.data.source FOLDER --workdir runs/default

Any field can be set on the command line: `--config.train.batch_size 8`.
The values are those of the paper (LLIC-ELIC at lambda 0.0130, MSE).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The config, every field at its default."""
    config = ConfigDict()
    config.seed = 0  # of the initialization, the noise and the order of the data

    model = config.model = ConfigDict()
    model.entropy_model = "elic"  # "stf", "elic" or "tcm", each with its hyper-transforms
    # Transforms, from the image to the latent, one entry a stage; g_s mirrors g_a.
    model.channels = (192, 192, 192, 320)  # N, N, N, M
    model.kernel_sizes = (11, 11, 9, 9)  # of the self-conditioned depth-wise convolutions
    model.depths = (1, 1, 3, 1)  # basic blocks
    # Down to 1/16 in all. (8, 2), with two entries in the three fields above, works at 1/8 and 1/16
    # alone (our choice: configs/llic_elic_eighth.py); (2, 2, 2, 2) is the paper's.
    model.strides = (2, 2, 2, 2)
    model.generator_width = 0  # inner width of the weight generators; 0: a quarter of the channels
    style = model.style = ConfigDict()  # the paper's ablations
    style.self_conditioned = True  # depth-wise weights generated from the image, or learned
    style.channel_transform = True  # SCCT
    style.gate = True  # gated projection, or plain feed-forward
    style.depth_rb = True  # DepthRB embedding, or 1x1 convolutions
    # The output of a block is clipped to [-activation_limit, activation_limit]; 0: not (paper).
    model.activation_limit = 0.0
    # Entropy model.
    model.hyper_channels = 192  # of z
    model.groups = (16, 16, 32, 64, 192)  # ELIC: channel groups; they add up to M
    model.slices = 10  # STF, TCM: equal channel slices of y, coded in order
    model.max_support = 5  # STF, TCM: a slice is conditioned on so many of the first ones at most
    model.context_widths = (224, 128)  # hidden widths of the networks over decoded channels
    model.attention_channels = 128  # TCM: inner width of the attention over the decoded slices
    model.window_sizes = (4, 8)  # TCM: Swin windows of the hyper-transforms and of that attention
    model.head_dims = (32, 16)  # TCM: channels of a head, likewise
    # The distribution of a symbol, given its scale, that the coding tables are built for: zero-mean
    # Gaussians, as pairs (weight, relative scale) (benchmarks/tables.py); () for one (paper).
    model.mixture = ()
    # One model for many rates: quality levels, each with its gain vectors and its lambda.
    model.levels = 1
    model.branch_gains = False  # several levels: the quality scales the transforms' branches too
    model.dtype = "float32"  # of the computation ("bfloat16" on accelerators); see models/llic.py
    model.remat = False  # recompute blocks in the backward pass: less memory, a third more time

    coding = config.coding = ConfigDict()
    # Row shifts per table row (llic_jax/coding/row_shifts.py); 0: files for this machine alone.
    coding.shift_resolution = 400
    # How symbols are chosen (llic_jax/entropy/gaussian.py: quantize_rdo): bits that a squared
    # error of one quantization step is worth; 0 for the nearest integer (paper).
    coding.rdoq_weight = 0.0
    # One factor per quality level: how far the encoder corrects the latent by what its synthesis
    # lacks (llic_jax/models/encoder_options.py: back_project); () for not at all (paper).
    coding.back_projection = ()

    data = config.data = ConfigDict()
    # A folder of images (searched recursively), "records:PATTERN" (array record files), or
    # "tfds:NAME[:SPLIT]" (clic, div2k, coco/2017, ..., or a prepared data set's folder), or
    # "package:FOLDER" (llic_jax/data/package.py); several with commas in between.
    data.source = ""
    # Photographs for validation, named likewise; "": data.held_back of the source's.
    data.validation = ""
    # Sides of the crops, pixels, multiples of 64, one after the other; and the steps where the
    # second begins, the third, ... (paper: 256 for 1.2 M steps, then 512).
    data.crops = (256, 512)
    data.crop_boundaries = (1_200_000,)
    data.crop_fractions = (0.6,)  # with train.schedule "time", in their place: of the run's time
    data.flip = True  # mirror half of the crops
    data.downsample = False  # Lanczos reduction by a random factor before cropping (JPEG sources)
    data.symmetries = False  # the eight symmetries of the square, in place of mirroring
    # Channels times random factors from 1 / (1 + gain) to 1 + gain; 0: as they are.
    data.channel_gain = 0.0
    data.channel_exchange = 0.0  # share of the crops whose channels are exchanged at random
    data.pasted = 0.0  # share of the crops that have a window of another photograph in them
    # Share of the crops that are random drawings (llic_jax/data/drawings.py): a codec of
    # photographs meets them, too, and fails on them if it was never trained on any.
    data.drawings = 0.0
    data.held_back = 16  # images that are never trained on: every n-th of the sorted list
    # Images of training, evenly spread, that validation measures, too: the gap between both.
    data.gap_images = 4
    data.cache_gb = 2.0  # decoded images kept in memory, at most
    data.threads = 4  # decoding threads
    # Photographs lie in the device's memory, and the same crops are gathered there. Without
    # data.downsample and data.drawings, which are made on the host.
    data.on_device = False
    data.device_gb = 8.0  # of the device's memory for them, at most

    train = config.train = ConfigDict()
    train.distortion = "mse"  # or "ms_ssim"
    # Weight of the distortion: one per level. The paper's for MSE: 0.0018 0.0035 0.0067 0.0130
    # 0.0250 0.0483; for MS-SSIM: 2.4 4.58 8.73 16.64 31.73 60.5.
    train.lmbdas = (0.0130,)
    # Several levels: a sample's loss has the weight lambda^-rate_weighting. 0: all have the same,
    # so high rates, whose loss is larger, are learned first; 0.5: every rate about alike.
    train.rate_weighting = 0.0
    # Qualities are sampled with density lambda^rate_sampling; weights correct for it, so the
    # expected gradient is unchanged. 0: uniform; 0.5: high rates, whose gradients are larger, are
    # sampled more often, and the gradient varies less.
    train.rate_sampling = 0.0
    train.batch_size = 16  # of all devices together
    train.accumulate = 1  # parts in which a device works through its share: less memory
    train.steps = 2_000_000
    # "adam" (paper), or "soap" (llic_jax/training/soap.py): Adam in the coordinates in which a
    # kernel's gradients are uncorrelated. A step takes somewhat longer and gains more.
    train.optimizer = "adam"
    train.learning_rate = 1e-4
    # "steps": learning_rate times schedule_factors[i] from step schedule_boundaries[i] on (paper).
    # "cosine": warm-up, then cosine down to final_factor at the last step.
    # "constant": warm-up, then constant.
    # "time": warm-up, constant, then linearly down to zero, by the clock (below).
    train.schedule = "steps"
    train.schedule_boundaries = (1_700_000, 1_800_000, 1_900_000, 1_950_000)
    train.schedule_factors = (0.3, 0.1, 0.03, 0.01)
    train.warmup_steps = 0
    # With schedule "time" (llic_jax/training/time_schedule.py): how long the run lasts, and the
    # fractions of that in which the rate rises and falls, until which the entropy model learns
    # alone, and in which the decoder's side does at the end; in place of steps, warmup_steps,
    # transforms_from and decoder_steps.
    train.minutes = 0.0
    train.warmup_fraction = 0.02
    train.decay_fraction = 0.5
    train.transforms_from_fraction = 0.0
    train.decoder_fraction = 0.0
    # "random"; "pca": transforms that start as principal components
    # (llic_jax/training/principal_components.py); or a released folder, whose weights are trained
    # further, in a larger model too (llic_jax/training/growth.py); or several with commas in
    # between, whose weights' mean is.
    train.start = "random"
    # Until this step only the rate is minimized, by hyperprior and entropy model: after a "pca"
    # start the transforms would only be disturbed by an entropy model that knows nothing.
    train.transforms_from = 0
    # Times learning_rate: that of the transforms. Adam moves every weight by about its rate in each
    # step, which a good start (principal components) suffers from more than it gains.
    train.transforms_rate = 1.0
    # Names of layers, or of parts of the model, that stay as they are: ("entropy_model", "h_s").
    train.frozen = ()
    train.final_factor = 0.01
    # The last so many steps train the decoder's side alone, on the quantized symbols
    # (Guo et al., "Soft then Hard", ICML 2021); their learning rate falls as a half cosine.
    train.decoder_steps = 0
    train.decoder_learning_rate = 1e-4
    # Beyond it a sample's loss grows as its logarithm, so that one that cannot be coded well does
    # not drown the others; 0: as it is (paper).
    train.loss_knee = 0.0
    train.clip_norm = 1.0  # gradient clipping by the global norm
    train.ema_decay = 0.999  # moving average of the weights, which is what is released

    train.log_every = 100  # steps
    train.eval_every = 5_000  # steps; on the held-back images
    train.checkpoint_every = 5_000  # steps
    # The same by the clock, minutes, with schedule "time"; 0: by steps.
    train.eval_minutes = 0.0
    train.checkpoint_minutes = 0.0
    train.keep_checkpoints = 3  # the last ones; the best one is kept apart
    train.tensorboard = True  # scalars and pictures in WORKDIR/tensorboard
    return config

"""How well-known codebases lay out their checkpoints."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Where a backbone's weights stand in a checkpoint, and what else stands there.

    Attributes:
        nested: key that holds the state dict; "": the file is one itself.
        prefixes: what the backbone's keys may start with. The longest that any key starts with holds for all.
        left_out: starts of the keys that are no part of the backbone and are left out: heads, queues, teachers.
        renamed: patterns and what replaces them at the start of the backbone's keys.
    """

    nested: str = ""
    prefixes: tuple[str, ...] = ("",)
    left_out: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()

    def own_name(self, key: str) -> str:
        """A key of the backbone, without its prefix, as the network itself calls it."""
        for pattern, name in self.renamed:
            key, found = re.subn(rf"^{pattern}", name, key)
            if found:
                break
        return key


# a ResNet as `nn.Sequential(*children)`: the children count from the stem
_SEQUENTIAL = ((r"0\.", "conv1."), (r"1\.", "bn1."), *((rf"{at}\.", f"layer{at - 3}.") for at in range(4, 8)))
_LIGHTLY = (
    *("projection_", "prediction_", "local_projection_", "decoder", "mask_token", "backbone.mask_token"),
    *("student_", "teacher_", "key_", "anchor_", "backbone_momentum."),
    *("online_classifier.", "criterion", "prototypes", "queues.", "memory_bank.", "smog."),
)
_SWAV = ("module.projection_head.", "module.prototypes.")

# each with the code that writes such files, read at the commit in its address
LAYOUTS = {
    # torchvision, timm, and whatever has no prefix; so are the backbones that Barlow Twins, VICReg and DINO publish
    "plain": Layout(),
    # https://github.com/vturrisi/solo-learn/blob/9187ea39/solo/methods/base.py, and its methods next to it; files from
    # before the backbone had that name call it encoder (main_linear.py)
    "solo-learn": Layout(
        "state_dict",
        ("backbone.", "encoder."),
        (
            *("classifier.", "projector.", "predictor", "prototypes.", "head.", "decoder.", "queue", "momentum_"),
            *("dino_loss_func.", "local_memory_", "transformer_encoder.", "pos_enc."),
        ),
    ),
    # https://github.com/lightly-ai/lightly/tree/e8d317fc/benchmarks/imagenet; masked ViTs stand in `backbone.vit.`
    "lightly": Layout("state_dict", ("backbone.", "backbone.vit."), _LIGHTLY),
    # https://github.com/lightly-ai/lightly/tree/e8d317fc/examples/pytorch_lightning: the ResNet is cut into a sequence
    "lightly-sequential": Layout("state_dict", ("backbone.",), _LIGHTLY, _SEQUENTIAL),
    # https://github.com/facebookresearch/moco/blob/4397a04e/moco/builder.py, saved by main_moco.py
    "moco": Layout("state_dict", ("module.encoder_q.",), ("module.encoder_k.", "module.queue")),
    # https://github.com/facebookresearch/moco-v3/blob/c349e6e2/moco/builder.py, saved by main_moco.py
    "moco-v3": Layout("state_dict", ("module.base_encoder.",), ("module.momentum_encoder.", "module.predictor.")),
    # https://github.com/facebookresearch/simsiam/blob/a7bc1772/simsiam/builder.py, saved by main_simsiam.py
    "simsiam": Layout("state_dict", ("module.encoder.",), ("module.predictor.",)),
    # https://github.com/facebookresearch/dino/blob/7c446df5/main_dino.py: a teacher without BatchNorm is not wrapped in
    # `module.`
    "dino-teacher": Layout("teacher", ("module.backbone.", "backbone."), ("module.head.", "head.")),
    "dino-student": Layout("student", ("module.backbone.",), ("module.head.",)),
    # https://github.com/facebookresearch/barlowtwins/blob/8e8d284c/main.py (its `bn` stands next to the projector)
    "barlow-twins": Layout("model", ("module.backbone.",), ("module.projector.", "module.bn.")),
    # https://github.com/facebookresearch/vicreg/blob/4e12602f/main_vicreg.py
    "vicreg": Layout("model", ("module.backbone.",), ("module.projector.",)),
    # https://github.com/facebookresearch/swav/blob/06b1b7cb/src/resnet50.py: what is published (hubconf.py), and what
    # main_swav.py and main_deepclusterv2.py save
    "swav": Layout("", ("module.",), _SWAV),
    "swav-checkpoint": Layout("state_dict", ("module.",), _SWAV),
    # https://github.com/facebookresearch/mae/blob/efb2a806/models_mae.py, saved by util/misc.py
    "mae": Layout("model", ("",), ("decoder_", "mask_token")),
    # https://github.com/open-mmlab/mmpretrain/tree/ee7f2e88/mmpretrain/models/selfsup, saved by
    # https://github.com/open-mmlab/mmengine/blob/0050ff70/mmengine/runner/runner.py; ResNets have torchvision's keys
    "mmpretrain": Layout(
        "state_dict",
        ("backbone.",),
        (
            *("neck.", "head.", "data_preprocessor.", "target_generator.", "queue", "enc_dec_", "mask_tokens."),
            *("target_net.", "encoder_k.", "momentum_encoder.", "teacher."),
        ),
    ),
}

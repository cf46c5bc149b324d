"""How well-known codebases lay out their checkpoints."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Where a backbone's weights stand in a checkpoint, and what else stands there.

    Attributes:
        nested: key that holds the state dict; "": the file is one itself.
        prefixes: what the backbone's keys may start with. The longest that any key starts with holds for all.
        beside: starts of the keys that are no part of the backbone and are left out: heads, queues, teachers.
        renamed: patterns and what replaces them at the start of the backbone's keys.
    """

    nested: str = ""
    prefixes: tuple[str, ...] = ("",)
    beside: tuple[str, ...] = ()
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
_LIGHTLY = ("projection_", "prediction_", "student_", "teacher_", "online_classifier.", "criterion.", "prototypes.")

LAYOUTS = {
    # torchvision, timm, and whatever has no prefix
    "plain": Layout(),
    # https://github.com/vturrisi/solo-learn, solo/methods/base.py and its methods
    "solo-learn": Layout(
        "state_dict",
        ("backbone.",),
        ("classifier.", "projector.", "predictor.", "prototypes.", "head.", "queue", "knn.", "momentum_"),
    ),
    # https://github.com/lightly-ai/lightly, benchmarks/imagenet; examples cut the ResNet into a sequence
    "lightly": Layout("state_dict", ("backbone.",), _LIGHTLY),
    "lightly-sequential": Layout("state_dict", ("backbone.",), _LIGHTLY, _SEQUENTIAL),
    # https://github.com/facebookresearch/moco, moco/builder.py
    "moco": Layout("state_dict", ("module.encoder_q.",), ("module.encoder_k.", "module.queue")),
    # https://github.com/facebookresearch/moco-v3, moco/builder.py
    "moco-v3": Layout("state_dict", ("module.base_encoder.",), ("module.momentum_encoder.", "module.predictor.")),
    # https://github.com/facebookresearch/simsiam, simsiam/builder.py
    "simsiam": Layout("state_dict", ("module.encoder.",), ("module.predictor.",)),
    # https://github.com/facebookresearch/dino, main_dino.py: a teacher without BatchNorm is not wrapped in `module.`
    "dino-teacher": Layout("teacher", ("module.backbone.", "backbone."), ("module.head.", "head.")),
    "dino-student": Layout("student", ("module.backbone.", "backbone."), ("module.head.", "head.")),
    # https://github.com/facebookresearch/barlowtwins, main.py (its `bn` stands next to the projector)
    "barlow-twins": Layout("model", ("module.backbone.",), ("module.projector.", "module.bn.")),
    # https://github.com/facebookresearch/vicreg, main_vicreg.py
    "vicreg": Layout("model", ("module.backbone.",), ("module.projector.",)),
    # https://github.com/facebookresearch/swav, src/resnet50.py
    "swav": Layout("", ("module.",), ("module.projection_head.", "module.prototypes.")),
    # https://github.com/facebookresearch/mae, models_mae.py
    "mae": Layout("model", ("",), ("decoder_", "mask_token")),
    # https://github.com/open-mmlab/mmpretrain: BYOL and others
    "mmpretrain": Layout("state_dict", ("backbone.",), ("neck.", "head.", "target_net.", "data_preprocessor.")),
}

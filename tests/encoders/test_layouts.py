"""Checkpoints of well-known codebases: the backbone is found, and everything else is left out."""

import argparse
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from gessl.encoders import encoder, load
from gessl.errors import UserError
from tests.encoders.conftest import RESNET, Make, gives, headless, junk, prefixed, resnet18, trained


def solo(model: nn.Module) -> Any:
    state = {**prefixed(headless(model).state_dict(), "backbone."), **junk("classifier.weight", "projector.0.weight")}
    state |= {**junk("momentum_projector.0.weight"), **prefixed(resnet18().state_dict(), "momentum_backbone.")}
    state |= junk("dino_loss_func.center", "predictor2.0.weight", "local_memory_index", "queue_ptr", "pos_enc.inv_freq")
    return {"epoch": 1, "state_dict": state, "optimizer_states": [{}], "pytorch-lightning_version": "2.0"}


def old_solo(model: nn.Module) -> Any:
    state = {**prefixed(headless(model).state_dict(), "encoder."), **junk("classifier.weight", "projector.0.weight")}
    return {"state_dict": {**state, **prefixed(resnet18(1).state_dict(), "momentum_encoder.")}}


def lightly(model: nn.Module) -> Any:
    state = {**prefixed(headless(model).state_dict(), "backbone."), **junk("projection_head.layers.0.weight")}
    state |= {
        **prefixed(resnet18(1).state_dict(), "key_backbone."),
        **junk("criterion.memory_bank.bank"),
    }
    return {"state_dict": {**state, **junk("online_classifier.classification_head.weight")}}


def lightly_sequential(model: nn.Module) -> Any:
    body, other = (nn.Sequential(*list(network.children())[:-1]).state_dict() for network in (model, resnet18(1)))
    state = {**prefixed(body, "backbone."), **prefixed(other, "backbone_momentum.")}
    return {"state_dict": {**state, **junk("projection_head.layers.0.weight", "criterion.memory_bank.bank")}}


def moco(model: nn.Module) -> Any:
    mlp = {key: value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    query = {**mlp, **junk("fc.0.weight", "fc.0.bias", "fc.2.weight")}
    others = {**prefixed(query, "module.encoder_k."), **junk("module.queue", "module.queue_ptr")}
    return {"epoch": 200, "arch": "resnet18", "state_dict": {**prefixed(query, "module.encoder_q."), **others}}


def moco_v3(model: nn.Module) -> Any:
    state = model.state_dict()
    others = {**prefixed(state, "module.momentum_encoder."), **junk("module.predictor.0.weight")}
    return {"state_dict": {**prefixed(state, "module.base_encoder."), **others}}


def simsiam(model: nn.Module) -> Any:
    return {"state_dict": {**prefixed(model.state_dict(), "module.encoder."), **junk("module.predictor.0.weight")}}


def dino(prefix: str) -> Callable[[nn.Module], Any]:
    def save(model: nn.Module) -> Any:
        other = headless(resnet18(1)).state_dict()
        heads = junk("module.head.mlp.0.weight", "module.head.last_layer.weight_g")
        teacher = {**prefixed(headless(model).state_dict(), prefix), **junk(prefix.replace("backbone", "head") + "mlp")}
        student = {**prefixed(other, "module.backbone."), **heads}
        return {"student": student, "teacher": teacher, "args": argparse.Namespace(lr=0.1), "epoch": 3}

    return save


def module_backbone(model: nn.Module) -> Any:
    state = prefixed(headless(model).state_dict(), "module.backbone.")
    return {"model": {**state, **junk("module.projector.0.weight")}, "epoch": 3}


def swav(model: nn.Module) -> Any:
    heads = junk("module.projection_head.0.weight", "module.prototypes.weight")
    return {**prefixed(headless(model).state_dict(), "module."), **heads}


def swav_checkpoint(model: nn.Module) -> Any:
    return {"epoch": 400, "state_dict": swav(model)}


def mmpretrain(model: nn.Module) -> Any:
    state = {**prefixed(headless(model).state_dict(), "backbone."), **junk("neck.fc0.weight", "head.predictor.weight")}
    state |= junk("target_net.module.0.conv1.weight", "encoder_k.module.0.conv1.weight", "queue", "queue_ptr")
    return {"meta": {"epoch": 3}, "state_dict": state}


LAID_OUT = {
    "solo-learn": solo,
    "lightly": lightly,
    "lightly-sequential": lightly_sequential,
    "moco": moco,
    "moco-v3": moco_v3,
    "simsiam": simsiam,
    "dino-teacher": dino("module.backbone."),
    "barlow-twins": module_backbone,
    "vicreg": module_backbone,
    "swav": swav,
    "swav-checkpoint": swav_checkpoint,
    "mmpretrain": mmpretrain,
}


@pytest.mark.parametrize("layout", LAID_OUT)
def test_a_known_layout_gives_the_backbones_features(make: Make, layout: str) -> None:
    model = resnet18()
    entry = make(LAID_OUT[layout](model), {"kind": "state_dict", "backbone": RESNET, "layout": layout})
    assert gives(entry, headless(model))
    assert load(encoder(entry)).dropped


def test_dinos_teacher_may_be_unwrapped_and_its_student_is_another(make: Make) -> None:
    model = resnet18()
    content = dino("backbone.")(model)
    assert gives(make(content, {"kind": "state_dict", "backbone": RESNET, "layout": "dino-teacher"}), headless(model))
    name = make(content, {"kind": "state_dict", "backbone": RESNET, "layout": "dino-student"})
    assert gives(name, headless(resnet18(1)))


def test_an_old_file_of_solo_learn_calls_its_backbone_encoder(make: Make) -> None:
    model = resnet18()
    entry = make(old_solo(model), {"kind": "state_dict", "backbone": RESNET, "layout": "solo-learn"})
    assert gives(entry, headless(model))


def test_mae_gives_timms_vit(make: Make) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    model = trained(timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, img_size=32))
    content = {"model": {**model.state_dict(), **junk("mask_token", "decoder_embed.weight", "decoder_blocks.0.x")}}
    backbone = {"kind": "timm", "name": "vit_tiny_patch16_224"}
    assert gives(make(content, {"kind": "state_dict", "backbone": backbone, "layout": "mae"}), model)


def test_a_masked_vit_of_lightlys_stands_one_level_deeper(make: Make) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    model = trained(timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, img_size=32))
    state = {
        **prefixed(model.state_dict(), "backbone.vit."),
        **junk("backbone.mask_token", "decoder_embed.weight"),
    }
    backbone = {"kind": "timm", "name": "vit_tiny_patch16_224"}
    assert gives(make({"state_dict": state}, {"kind": "state_dict", "backbone": backbone, "layout": "lightly"}), model)


def test_a_layout_of_ones_own_is_named_in_the_entry(make: Make) -> None:
    model = resnet18()
    content = {"net": {**prefixed(headless(model).state_dict(), "f."), **junk("g.0.weight")}}
    how = {"kind": "state_dict", "backbone": RESNET, "nested": "net", "prefix": "f."}
    with pytest.raises(UserError, match=r"1 unexpected \(g\.0\.weight"):
        load(encoder(make(content, how)))
    name = make(content, how | {"drop": ["g."]})
    assert gives(name, headless(model))
    assert load(encoder(name)).dropped == {"g.": 1}


def test_a_checkpoint_of_another_layout_says_what_is_there(make: Make) -> None:
    content = {"state_dict": prefixed(resnet18().state_dict(), "net.")}
    with pytest.raises(UserError, match=r"no key starts with backbone\. or encoder\.; its keys are net\.conv1"):
        load(encoder(make(content, {"kind": "state_dict", "backbone": RESNET, "layout": "solo-learn"})))
    with pytest.raises(UserError, match="no key 'teacher', only state_dict"):
        load(encoder(make(content, {"kind": "state_dict", "backbone": RESNET, "layout": "dino-teacher"})))

"""Readers of annotated pictures: what was written is read, as torchvision and COCO's tools read it; hostile files."""

import importlib
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gessl.data.annotations import ANNOTATIONS, MASKS, Annotations, annotation_files, read_annotations
from gessl.data.arrays import read_card, read_columns, read_index
from gessl.data.fetch import fetch
from gessl.data.prepare import prepare
from gessl.data.readers import open_raw
from gessl.data.readers._members import Joined, open_published
from gessl.data.registry import dataset
from gessl.data.stores import open_store
from gessl.errors import UserError
from tests.data.fixtures import packing
from tests.data.fixtures.build import Members, Small, packed
from tests.data.fixtures.objects import Annotated, Seen

FORMATS = ("voc", "coco", "davis", "otb", "mot16", "mots", "posetrack18")
SIDE = 16
ENDS = {"xmin": 1, "ymin": 1, "xmax": 0, "ymax": 0}
"""Of VOC's boxes, and what they count from."""

Put = Callable[..., Path]


def of(name: str) -> Any:
    return importlib.import_module(f"tests.data.fixtures.{name}")


def made(name: str) -> Annotated:
    annotated: Annotated = of(name).annotated()
    return annotated


@pytest.fixture
def put(place_files: Callable[..., Path], project: Path) -> Put:
    """`put(annotated, files=…, **changes)`: a small data set, registered as `mine`, placed, pinned and listed."""

    def place(annotated: Annotated, files: dict[str, Members | bytes] | None = None, **changes: Any) -> Path:
        small = annotated.small
        content = {name: packed(name, members) for name, members in (files or small.files).items()}
        facts = {"parts": small.parts, "size": [SIDE, SIDE], "annotations": annotated.counts}
        shutil.rmtree(project / "data/raw/mine", ignore_errors=True)
        return place_files("mine", small.like, content, **(facts | changes))

    return place


def changed(small: Small, member: str, data: bytes | None) -> dict[str, Members | bytes]:
    """The files, with other bytes of a member, or without it."""
    files = dict(small.files)
    for published, members in small.files.items():
        if isinstance(members, dict) and member in members:
            others = {name: content for name, content in members.items() if name != member}
            files[published] = others if data is None else members | {member: data}
    return files


def seen_by(read: Annotations, position: int) -> list[Seen]:
    """The objects in a picture, as the fixtures have them."""
    rows, found = read.of(position), list[Seen]()
    for row in range(rows.start, rows.stop):
        one, points = read.objects[row], read.keypoints[row]
        given = bool(points.size and points[:, 2].any())
        box = None if np.isnan(one["box"]).any() else tuple(one["box"].tolist())
        found.append(
            Seen(
                box,  # type: ignore[arg-type]
                read.categories[one["category"]].name,
                int(one["flags"]),
                int(one["track"]),
                None if math.isnan(one["area"]) else float(one["area"]),
                None if math.isnan(one["visible"]) else float(one["visible"]),
                int(one["id"]),
                read.mask(row),
                tuple(tuple(map(float, point)) for point in points) if given else (),  # type: ignore[misc]
            )
        )
    return found


def order(seen: list[Seen]) -> list[Seen]:
    return sorted(seen, key=repr)


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_written_is_prepared(name: str, put: Put) -> None:
    annotated = made(name)
    put(annotated)
    prepare("mine")
    index, read, card = read_index("mine"), read_annotations("mine"), read_card("mine")
    assert sorted(index["id"]) == sorted(file for rows in annotated.small.pictures.values() for file, _ in rows)
    for part, rows in annotated.small.pictures.items():
        assert sorted(index["id"][index["split"] == part]) == sorted(file for file, _ in rows)
    assert set(index["label"]) == {-1} and set(index["class"]) == {""}
    for position, file in enumerate(index["id"]):
        assert index["group"][position] == annotated.groups.get(file, "")
        picture = read.pictures[position]
        assert picture["frame"] == annotated.frames.get(file, -1)
        assert picture["annotated"] == (file in annotated.seen)
        assert order(seen_by(read, position)) == order(annotated.seen.get(file, []))
    counts = annotated.counts
    assert list(read.kinds) == counts["kinds"] and len(read.categories) == counts["categories"]
    about = card["annotations"]["counts"]
    assert about == {key: counts.get(key, about[key]) for key in about}
    assert sum(each["objects"] for each in card["annotations"]["categories"]) == len(read.objects)
    train = int((index["split"] == "train").sum())
    assert card["unlabelled"] == train and card["measured"] == (train or len(index["id"]))
    assert open_store("mine")[np.arange(len(index["id"]))].shape == (len(index["id"]), 3, SIDE, SIDE)


@pytest.mark.parametrize("name", FORMATS)
def test_prepared_again_the_bits_are_the_same(name: str, put: Put) -> None:
    put(made(name))
    prepare("mine")
    first = {path.name: path.read_bytes() for path in annotation_files("mine")}
    shutil.rmtree("results/data/mine")
    prepare("mine")
    assert first == {path.name: path.read_bytes() for path in annotation_files("mine")}
    masks = {MASKS} if "masks" in made(name).counts["kinds"] or name == "posetrack18" else set()  # of regions
    assert set(first) == {ANNOTATIONS} | masks


@pytest.mark.parametrize("name", FORMATS)
def test_the_entry_itself_names_the_published_files(name: str, project: Path) -> None:
    annotated = made(name)
    entry = dataset(annotated.small.like)
    published = [file.name for file in entry.files]
    assert published == list(annotated.small.files) or (name == "otb" and set(annotated.small.files) < set(published))
    assert set(entry.parts) == set(annotated.small.parts) and entry.annotations is not None
    assert list(entry.annotations.kinds) == annotated.counts["kinds"]
    assert entry.annotations.categories == (80 if name == "coco" else annotated.counts["categories"])


def test_torchvision_reads_the_same_voc(put: Put, tmp_path: Path) -> None:
    module = of("voc")
    put(module.annotated())
    prepare("mine")
    index, read = read_index("mine"), read_annotations("mine")
    positions = {file: position for position, file in enumerate(index["id"])}
    compared = 0
    for year, parts in module.PARTS.items():
        for part in parts:
            peer = module.peer(tmp_path / "peer", year, part)
            for _, target in peer:
                about = target["annotation"]
                position = positions[f"VOCdevkit/VOC{year}/JPEGImages/{about['filename']}"]
                theirs = [
                    Seen(
                        tuple(float(one["bndbox"][end]) - less for end, less in ENDS.items()),  # type: ignore[arg-type]
                        one["name"],
                        module.DIFFICULT * int(one["difficult"]) + module.TRUNCATED * int(one["truncated"]),
                    )
                    for one in about["object"]
                ]
                assert theirs == seen_by(read, position) and index["split"][position] == part
                compared += 1
    assert compared == len(index["id"]) == 7


def test_voc_says_of_each_picture_which_classes_it_shows(put: Put) -> None:
    module = of("voc")
    put(module.annotated())
    prepare("mine")
    index, read = read_index("mine"), read_annotations("mine")
    assert read.tags.shape == (7, 20)
    for position, file in enumerate(index["id"]):
        expected = [module.tag(Path(file).stem, category) for category in module.CLASSES]
        assert read.tags[position].tolist() == expected
    assert {-1, 0, 1} == set(read.tags.reshape(-1).tolist())


def test_coco_is_what_its_lists_say(put: Put) -> None:
    """By hand: the numbers of the published JSON, box by box."""
    annotated = made("coco")
    put(annotated)
    prepare("mine")
    index, read = read_index("mine"), read_annotations("mine")
    lists = annotated.small.files["annotations_trainval2017.zip"]
    assert isinstance(lists, dict)
    compared = 0
    for word in ("train2017", "val2017"):
        document = json.loads(lists[f"annotations/instances_{word}.json"])
        names = {image["id"]: image["file_name"] for image in document["images"]}
        for each in document["annotations"]:
            (row,) = np.flatnonzero(read.objects["id"] == each["id"])
            one = read.objects[row]
            left, top, right, bottom = one["box"]
            assert [left, top, right - left, bottom - top] == each["bbox"] and one["area"] == each["area"]
            assert read.categories[one["category"]].id == each["category_id"]
            assert index["id"][one["picture"]] == f"{word}/{names[each['image_id']]}"
            assert read.mask(int(row)) == each["segmentation"] and bool(one["flags"]) == bool(each["iscrowd"])
            compared += 1
    assert compared == len(read.objects) == 4


def test_cocos_own_reader_reads_the_same(put: Put, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    from torchvision.datasets import CocoDetection

    module = of("coco")
    annotated = module.annotated()
    put(annotated)
    prepare("mine")
    index, read = read_index("mine"), read_annotations("mine")
    positions = {file: position for position, file in enumerate(index["id"])}
    for published, members in annotated.small.files.items():
        for member, data in members.items():
            path = tmp_path / "peer" / member
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        assert published
    for word in ("train2017", "val2017"):
        peer = CocoDetection(str(tmp_path / "peer" / word), str(tmp_path / f"peer/annotations/instances_{word}.json"))
        for number, (image, target) in zip(peer.ids, peer, strict=True):
            position = positions[f"{word}/{peer.coco.imgs[number]['file_name']}"]
            columns = read_columns("mine")[position]
            assert image.size == (columns["width"], columns["height"])
            own = range(*read.of(position).indices(len(read.objects)))
            assert sorted(each["id"] for each in target) == sorted(read.objects["id"][own].tolist())
            masks = {int(read.objects["id"][row]): read.mask(row) for row in own}
            for each in target:
                decoded = peer.coco.annToMask(each | {"segmentation": masks[each["id"]]})
                assert (decoded == peer.coco.annToMask(each)).all()


@pytest.mark.parametrize("resolution", ["480p", "Full-Resolution"])
def test_label_maps_keep_their_numbers_and_their_bytes(resolution: str, put: Put) -> None:
    module = of("davis")
    annotated = module.annotated(resolution)
    put(annotated)
    prepare("mine")
    index, read = read_index("mine"), read_annotations("mine")
    (members,) = annotated.small.files.values()
    assert isinstance(members, dict)
    masks = Path("results/data/mine/masks.bin").read_bytes()
    for position, file in enumerate(index["id"]):
        sequence, frame = file.split("/")[-2], int(Path(file).stem)
        labels = read.label_map(position)
        assert labels is not None and labels.dtype == np.uint8
        assert (labels == module.labels(sequence, frame)).all()
        start, length = read.pictures[["map", "map_bytes"]][position].tolist()
        published = members[file.replace("JPEGImages", "Annotations").replace(".jpg", ".png")]
        assert masks[start : start + length] == published
        assert Image.open(io.BytesIO(published)).getpalette() == module.PALETTE
    assert 255 in read.label_map(index["id"].tolist().index(f"DAVIS/JPEGImages/{resolution}/bike-packing/00000.jpg"))


def test_detections_are_kept_apart_from_annotations(put: Put) -> None:
    module = of("mot16")
    put(module.annotated())
    prepare("mine")
    index, read = read_index("mine"), read_annotations("mine")
    found = [
        (index["id"][each["picture"]], tuple(each["box"].tolist()), float(each["score"])) for each in read.detections
    ]
    rows = [(name, *row) for name, rows in module.DETECTIONS.items() for row in rows]
    expected = [(module.frame(name, number), box, score) for name, number, box, score in rows]
    assert sorted(found) == sorted(expected)
    assert read.sequences["MOT16-05"] == {"rate": 30.0, "width": 24, "height": 18}


def test_the_targets_of_a_folder_are_its_tracks(put: Put) -> None:
    put(made("otb"))
    prepare("mine")
    read = read_annotations("mine")
    assert read.sequences["Jogging"] == {"targets": [1, 2]} and read.sequences["Human4"] == {"targets": [2]}
    assert read.sequences["David"] == {"targets": [1]}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("key", ["objects", "categories", "tracks", "sequences"])
def test_other_counts_than_registered_are_refused(name: str, key: str, put: Put) -> None:
    annotated = made(name)
    if key in annotated.counts:
        more = annotated.counts | {key: annotated.counts[key] + 1}
        put(annotated, annotations=more)
        with pytest.raises(UserError, match=rf"has {annotated.counts[key]} {key}; the registry says {more[key]}; move"):
            prepare("mine")
        assert not Path("results/data/mine/record.json").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_other_numbers_of_pictures_are_refused(name: str, put: Put) -> None:
    annotated = made(name)
    put(annotated, parts=annotated.small.parts | {"test": annotated.small.parts["test"] + 1})
    with pytest.raises(UserError, match=r"lists .* images; the registry says"):
        open_raw(dataset("mine"))


def refusal(put: Put, annotated: Annotated, files: dict[str, Members | bytes]) -> str:
    put(annotated, files)
    with pytest.raises(UserError) as caught:
        prepare("mine")
    (message,) = caught.value.args
    assert "\n" not in message and "data/raw/mine" in message
    assert not Path("results/data/mine/record.json").exists()
    return str(message)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("nonsense", [b"\xff\xfe\0", b"a b c d\n1 2\n", b"[[[0]]]", b"/\n", b"<a>1,2,3</b>\n"])
def test_lists_of_nonsense_are_refused(name: str, nonsense: bytes, put: Put) -> None:
    annotated = made(name)
    for member in {*annotated.lists, *annotated.small.lists}:
        refusal(put, annotated, changed(annotated.small, member, nonsense))


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_missing_is_named_or_counted(name: str, put: Put) -> None:
    annotated = made(name)
    pictures = [file for rows in annotated.small.pictures.values() for file, _ in rows]
    for member in {*annotated.lists, *annotated.small.lists, *pictures[:2]}:
        files = changed(annotated.small, member, None)
        if files != annotated.small.files and not member.endswith("/det.txt"):
            message = refusal(put, annotated, files)
            said = (Path(member).name, "the registry says", "frames", "which is not there")
            assert any(each in message for each in said)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_files_are_refused(name: str, damage: str, put: Put) -> None:
    annotated = made(name)
    for published, members in annotated.small.files.items():
        content = packed(published, members)
        if isinstance(members, bytes) and published != "posetrack18_images.tar.aa":
            continue  # of the other parts some hold padding alone
        broken = {"cut": content[: len(content) // 2], "empty": b"", "text": b"404 not found"}[damage]
        refusal(put, annotated, {**annotated.small.files, published: broken})


def hostile_xml(inner: bytes, head: bytes = b"") -> bytes:
    return head + b"<annotation>" + inner + b"</annotation>"


BOX = b"<bndbox><xmin>%s</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox>"
LAUGHS = b'<!DOCTYPE a [<!ENTITY l "lol"><!ENTITY m "&l;&l;&l;&l;">]>'


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (hostile_xml(b"&m;", LAUGHS), "document type"),
        (hostile_xml(b"", b'<?xml version="1.0"?><!DOCTYPE a SYSTEM "file:///etc/passwd">'), "document type"),
        (hostile_xml(b"<a>" * 60 + b"</a>" * 60), "within each other"),
        (hostile_xml(b"<a>" * 100_000), "within each other"),
        (hostile_xml(b"<object><name>car</name></object>"), "no bndbox/xmin"),
        (hostile_xml(b"<object><name>unicorn</name>" + BOX % b"1" + b"</object>"), "ValueError"),
        (hostile_xml(b"<object><name>car</name>" + BOX % b"nan" + b"</object>"), "which is none"),
        (hostile_xml(b"<object><name>car</name>" + BOX % b"9" + b"</object>"), "which is none"),
        (hostile_xml(b"<object><name>car</name>" + BOX % b"-1e300" + b"</object>"), "which is none"),
        (hostile_xml(b" " * (1 << 20)), "more than 1048576"),
        ('<?xml version="1.0" encoding="utf-16"?><annotation/>'.encode("utf-16"), "UnicodeDecodeError"),
        (b"", "no XML"),
    ],
)
def test_hostile_xml_is_refused(data: bytes, why: str, put: Put) -> None:
    annotated = made("voc")
    assert why in refusal(put, annotated, changed(annotated.small, annotated.lists[0], data))


def test_tags_of_other_pictures_are_refused(put: Put) -> None:
    annotated = made("voc")
    file = "VOCdevkit/VOC2007/ImageSets/Main/car_train.txt"
    for lines in (b"000007 2\n", b"000005 1\n", b"000007 1\n000007 1\n", b"000007\n", b""):
        refusal(put, annotated, changed(annotated.small, file, lines))


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("bbox", [0, 0, math.nan, 1], "is no number"),
        ("bbox", [0, 0, -1, 1], "which is none"),
        ("bbox", [0, 0, 1], "ValueError"),
        ("bbox", [0, 0, 1e308, 1], "which is none"),
        ("area", 1e300, "no numbers of pixels"),
        ("category_id", 2, "KeyError"),
        ("category_id", [1], "TypeError"),
        ("image_id", 5, "KeyError"),
        ("image_id", {}, "TypeError"),
        ("id", 2**70, "which is none"),
        ("id", None, "TypeError"),
        ("iscrowd", ..., "KeyError"),
    ],
)
def test_hostile_objects_are_refused(key: str, value: Any, why: str, put: Put) -> None:
    annotated = made("coco")
    member = "annotations/instances_val2017.json"
    lists = annotated.small.files["annotations_trainval2017.zip"]
    assert isinstance(lists, dict)
    document = json.loads(lists[member])
    document["annotations"][0][key] = value
    if value is ...:
        del document["annotations"][0][key]
    assert why in refusal(put, annotated, changed(annotated.small, member, json.dumps(document).encode()))


@pytest.mark.parametrize(
    "document",
    [
        b'{"images": ' + b"[" * 100_000,
        b'{"info": ' + b'{"a":' * 100_000,
        b'{"images": 1}',
        b'{"images": [1] "annotations": []}',
        b'{"images": [1,]}',
        b'{"images": [' + b"9" * 5000 + b"]}",
        b'{"images" [1]}',
        b'["images"]',
        b'{"images": [{"id": 1, "file_name": "../../../etc/passwd", "height": 1, "width": 1}], "categories": []}',
    ],
)
def test_hostile_json_is_refused(document: bytes, put: Put) -> None:
    annotated = made("coco")
    refusal(put, annotated, changed(annotated.small, "annotations/instances_train2017.json", document))


def test_a_picture_of_another_size_than_annotated_is_refused(put: Put) -> None:
    annotated = made("coco")
    name = "val2017/000000000139.jpg"
    message = refusal(put, annotated, changed(annotated.small, name, packing.picture(139, (30, 18))))
    assert f"{name} is of (18, 30) pixels, where its annotations are of (18, 24)" in message


@pytest.mark.parametrize(
    ("name", "member", "line", "why"),
    [
        ("mot16", "train/MOT16-02/gt/gt.txt", b"9,1,1,1,5,5,1,1,1\n", "KeyError"),
        ("mot16", "train/MOT16-02/gt/gt.txt", b"1,1,1,1,5,5,1,13,1\n", "category 12"),
        ("mot16", "train/MOT16-02/gt/gt.txt", b"1,1,1,1,5,5,1,0,1\n", "category -1"),
        ("mot16", "train/MOT16-02/gt/gt.txt", b"1,3000000000,1,1,5,5,1,1,1\n", "which is none"),
        ("mot16", "train/MOT16-02/gt/gt.txt", b"1,1,inf,1,5,5,1,1,1\n", "which is none"),
        ("mot16", "train/MOT16-02/det/det.txt", b"1,-1,1,1,5,5,inf\n", "that is none"),
        ("mot16", "train/MOT16-02/seqinfo.ini", b"[Sequence]\nseqLength=%(a)s\na=3\n", "seqinfo.ini"),
        ("mot16", "train/MOT16-02/seqinfo.ini", b"[Sequence\n", "seqinfo.ini"),
        ("mots", "MOTS/train/MOTS20-09/gt/gt.txt", b"1 1001 1 18 24 ~~~\n", "no runs of a mask"),
        ("mots", "MOTS/train/MOTS20-09/gt/gt.txt", b"1 1001 1 1080 1920 0\n", "where its annotations are of"),
        ("mots", "MOTS/train/MOTS20-09/gt/gt.txt", b"1 1001 3 18 24 0\n", "ValueError"),
        ("otb", "Basketball/groundtruth_rect.txt", b"1,1,2,2\n" * 9, "frame 4, which is not there"),
        ("otb", "Basketball/groundtruth_rect.txt", b"1,1,-2,2\n" * 3, "which is none"),
        ("otb", "Basketball/groundtruth_rect.txt", b"1,1,nan,2\n" * 3, "which is none"),
    ],
)
def test_hostile_lines_are_refused(name: str, member: str, line: bytes, why: str, put: Put) -> None:
    annotated = made(name)
    assert why in refusal(put, annotated, changed(annotated.small, member, line))


@pytest.mark.parametrize("kind", ["colours", "another size", "no picture", "huge"])
def test_label_maps_that_are_none_are_refused(kind: str, put: Put) -> None:
    annotated = made("davis")
    if kind == "huge":
        data = bytearray(of("davis").png(np.zeros((18, 24), np.uint8)))
        data[16:24] = (1 << 20).to_bytes(4, "big") * 2
        content = bytes(data)
    else:
        content = {
            "colours": packing.picture(1, (24, 18), "PNG"),
            "another size": of("davis").png(np.zeros((18, 25), np.uint8)),
            "no picture": b"GIF89a",
        }[kind]
    message = refusal(put, annotated, changed(annotated.small, annotated.lists[0], content))
    assert ("where its annotations are of" if kind == "another size" else Path(annotated.lists[0]).name) in message


def test_objects_of_a_picture_that_is_left_out_go_with_it(put: Put) -> None:
    """A training picture that is also a test picture."""
    annotated = made("coco")
    twin, test = "train2017/000000000009.jpg", "val2017/000000000139.jpg"
    files = changed(annotated.small, twin, annotated.small.data(test))
    lists = files["annotations_trainval2017.zip"]
    assert isinstance(lists, dict)
    document = json.loads(lists["annotations/instances_train2017.json"])
    for image in document["images"]:
        if image["id"] == 9:
            image["height"], image["width"] = 18, 24
    lists = lists | {"annotations/instances_train2017.json": json.dumps(document).encode()}
    put(annotated, {**files, "annotations_trainval2017.zip": lists})
    prepare("mine")
    index, read = read_index("mine"), read_annotations("mine")
    assert twin not in index["id"] and read_card("mine")["split"]["left_out"] == [twin]
    for position, file in enumerate(index["id"]):
        assert seen_by(read, position) == order(annotated.seen[file])
    assert len(read.objects) == 2 and len(read.pictures) == len(index["id"]) == 3


def test_files_of_annotations_are_read_with_care(put: Put) -> None:
    put(made("davis"))
    prepare("mine")
    arrays, masks = Path("results/data/mine") / ANNOTATIONS, Path("results/data/mine") / MASKS
    whole, read = masks.read_bytes(), read_annotations("mine")
    masks.write_bytes(whole[:10])
    with pytest.raises(UserError, match=r"masks\.bin: cannot be read \(cut short\)"):
        read.label_map(0)
    masks.write_bytes(bytes(len(whole)))
    with pytest.raises(UserError, match=r"masks\.bin: cannot be read \(of picture 0: damaged"):
        read.label_map(0)
    masks.unlink()
    with pytest.raises(UserError, match=r"masks\.bin: cannot be read"):
        read.label_map(0)
    found = dict(np.load(arrays))
    for name, array, why in (
        ("objects", found["objects"][::-1], "not in the order"),
        ("objects", found["objects"][:-1], "keypoints are"),
        ("pictures", found["pictures"][1:], "pictures are"),
        ("tags", found["tags"].astype(np.int16), "tags are"),
        ("detections", np.zeros(3), "detections are"),
    ):
        np.savez(arrays, **(found | {name: array}))
        with pytest.raises(UserError, match=rf"annotations\.npz: cannot be read \(.*{why}.*gessl prepare mine"):
            read_annotations("mine")
    arrays.write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match=r"annotations\.npz: cannot be read"):
        read_annotations("mine")


def test_a_data_set_without_annotations_says_so(put: Put, project: Path) -> None:
    annotated = made("coco")
    put(annotated, annotations=None)
    with pytest.raises(UserError, match=r"mine\.yaml: reader coco has some of annotations; say under annotations"):
        open_raw(dataset("mine"))


def test_gated_pictures_are_asked_for_at_once(project: Path) -> None:
    with pytest.raises(UserError, match="is not free to download; obtain") as caught:
        fetch("posetrack18")
    (line,) = caught.value.args
    assert line.startswith("data/raw/posetrack18: PoseTrack18") and line.endswith("place the files there")
    assert all(f"{name} (https://posetrack.net" in line for name in of("posetrack18").annotated().small.files)


def test_voc0712_links_to_both_years(project: Path) -> None:
    with pytest.raises(UserError, match=r"data/raw/voc2007/.*no such file; run `gessl fetch voc2007` first"):
        fetch("voc0712")
    shared = {file.name: file for name in ("voc2007", "voc2012") for file in dataset(name).files}
    for file in dataset("voc0712").files:
        own = shared.pop(file.name)
        assert (file.bytes, file.md5, file.sha256) == (own.bytes, own.md5, own.sha256)
    assert not shared
    for part in ("train", "val"):
        parts = [dataset(name).parts[part] for name in ("voc2007", "voc2012", "voc0712")]
        assert parts[0] + parts[1] == parts[2]


def test_vocs_checksums_equal_torchvisions(project: Path) -> None:
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    theirs = {about["filename"]: about for about in map(DATASET_YEAR_DICT.get, ("2007", "2012", "2007-test"))}
    for file in (*dataset("voc2007").files, *dataset("voc2012").files):
        about = theirs.pop(file.name)
        assert (file.source, file.md5) == (about["url"], about["md5"])
    assert not theirs


@pytest.mark.parametrize("how", ["cut anywhere", "each an archive"])
def test_an_archive_in_parts_is_one(how: str, tmp_path: Path) -> None:
    members = Members({f"a/{number}": bytes([number]) * (700 * number) for number in range(1, 9)})
    if how == "cut anywhere":
        whole = packing.tar(members)
        content = [whole[:100], whole[100:5000], b"", whole[5000:]]
    else:
        content = [packing.tar({name: data}) for name, data in members.items()]
    parts = [tmp_path / f"part{number}" for number in range(len(content))]
    for path, data in zip(parts, content, strict=True):
        path.write_bytes(data)
    with open_published(*parts) as found:
        assert {member.name: member.read(10_000) for member in found} == members
    with Joined(parts) as file:
        whole = b"".join(content)
        assert file.seek(-5, 2) == len(whole) - 5 and file.read() == whole[-5:]
        assert file.seek(99) == 99 and file.read(1) == whole[99:100]
        file.seek(len(whole) + 7)
        assert file.read(4) == b""
        with pytest.raises(ValueError, match="before the start"):
            file.seek(-1)

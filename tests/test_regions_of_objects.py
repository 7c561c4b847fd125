"""What a detector learns from: ignored pixels, masks, patches, and the weights it begins with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from torch import nn

from domainseg.errors import InputError, MissingInputError
from domainseg.models import coco_weights
from domainseg.models.coco_weights import category_rows, fitting, published_network
from domainseg.models.heads.detection import DetectionHead
from domainseg.models.mask_rcnn import MaskRCNN
from domainseg.models.regions import _share_inside, mask_targets, summed
from domainseg.survey import anchors_for
from domainseg.training.object_patches import truth_of
from domainseg.training.patches import Drawn
from domainseg.training.prepared import Prepared


def test_the_share_of_a_box_that_is_ignored() -> None:
    ignored = torch.zeros(10, 12, dtype=torch.bool)
    ignored[2:6, 4:8] = True
    boxes = torch.tensor(
        [[4.0, 2, 8, 6], [0, 0, 12, 10], [2, 2, 6, 6], [8, 6, 12, 10], [-5, -5, 6, 4]]
    )
    share = _share_inside(summed(ignored), boxes)
    # The last reaches beyond the image: what lies there is no ignored pixel.
    torch.testing.assert_close(share, torch.tensor([1.0, 16 / 120, 0.5, 0.0, 4 / 99]))


def test_nothing_ignored_has_no_sums() -> None:
    assert summed(torch.zeros(4, 4, dtype=torch.bool)).numel() == 0


def test_anchors_in_ignored_pixels_teach_nothing() -> None:
    torch.manual_seed(0)
    network = MaskRCNN(weights=None, encoder="mobilenetv3_small_050", depth=3).build(3, 1)
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]])
    ignored = torch.zeros(64, 64, dtype=torch.bool)
    ignored[15:35, 15:35] = True
    target = {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "hidden": summed(ignored)}
    labels, _ = network.rpn.assign_targets_to_anchors([anchors], [target])
    assert labels[0].tolist() == [1, -1, 0]
    network.roi_heads._targets = [target]
    _, kinds = network.roi_heads.assign_targets_to_proposals(
        [anchors], [target["boxes"]], [torch.tensor([1])]
    )
    assert kinds[0].tolist() == [1, -1, 0]


def test_a_box_around_pixels_learns_those_pixels() -> None:
    masks = torch.zeros(2, 60, 60, dtype=torch.uint8)
    masks[1, 10:38, 20:34] = 1
    boxes = torch.tensor([[20.0, 10, 34, 38], [20, 10, 48, 38], [0, 10, 14, 38]])
    learned = mask_targets(masks, boxes, torch.tensor([1, 1, 1]))
    assert learned.shape == (3, 28, 28)
    # The cells along an outline are between: what counts is on which side of a half.
    assert (learned[0] > 0.5).all()
    # Half of the second box is the object: its left 14 of 28 cells.
    np.testing.assert_array_equal(learned[1, 4] > 0.5, np.arange(28) < 14)
    assert (learned[1, 1:-1, 1:13] == 1).all()
    assert (learned[2, :, :-1] == 0).all()
    assert (learned[2] < 0.5).all()


def prepared(areas: list[int], classes: list[int]) -> Prepared:
    nothing = np.zeros((len(areas), 2), np.int64)
    return Prepared(
        path=Path("none"),
        channels=3,
        shape=(8, 8),
        centres=nothing,
        classes=np.array(classes, np.int16),
        areas_px=np.array(areas),
        sides_px=np.array(areas),
        kind=None,
        sha256="",
    )


def test_boxes_and_classes_follow_the_masks_as_they_are() -> None:
    first, second = np.zeros((8, 10), np.float32), np.zeros((8, 10), np.float32)
    first[1:4, 2:5] = 3
    first[6:, 8:] = 1
    second[2:6, 4:9] = 2
    ignored = np.zeros((8, 10), np.float32)
    ignored[0, 0] = 1
    image = prepared([4, 20, 9], [5, 6, 7])
    pixels = np.zeros((3, 8, 10), np.float32)
    truth = truth_of(Drawn(image, pixels, np.stack([first, second, ignored])))
    assert truth.boxes.tolist() == [[8, 6, 10, 8], [2, 1, 5, 4], [4, 2, 9, 6]]
    assert truth.classes.tolist() == [5, 7, 6]
    for mask, plane, number in zip(truth.masks, (first, first, second), (1, 3, 2), strict=True):
        np.testing.assert_array_equal(mask.numpy() > 0, plane == number)
    assert truth.ignored.numpy().sum() == 1
    assert truth.regions is None


def test_too_little_of_an_object_is_ignored() -> None:
    plane = np.zeros((8, 10), np.float32)
    plane[0, :5], plane[4:6, 4:6] = 1, 2
    image = prepared([100, 4], [0, 0])
    nothing = np.zeros((8, 10), np.float32)
    truth = truth_of(Drawn(image, np.zeros((3, 8, 10), np.float32), np.stack([plane, nothing])))
    assert truth.boxes.tolist() == [[4, 4, 6, 6]]
    np.testing.assert_array_equal(truth.ignored.numpy(), plane == 1)


def test_regions_are_unknown_where_nothing_is_known() -> None:
    regions, ignored = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)
    regions[:2] = 3
    ignored[0] = 1
    objects = np.zeros((4, 4), np.float32)
    drawn = Drawn(
        prepared([], []), np.zeros((3, 4, 4), np.float32), np.stack([regions, objects, ignored])
    )
    truth = truth_of(drawn, regions=True)
    assert truth.regions is not None
    assert truth.regions[:, 0].tolist() == [-1, 3, 0, 0]
    assert len(truth.boxes) == 0


@pytest.mark.parametrize(
    ("sides", "finest", "depth"),
    [((8, 20), 1, 3), ((16, 60), 2, 4), ((40, 300), 3, 5), ((30, 34), 2, 4), ((3, 5), 1, 2)],
)
def test_anchors_are_of_the_sizes_of_the_objects(
    sides: tuple[int, int], finest: int, depth: int
) -> None:
    found = np.linspace(*sides, 200)
    assert anchors_for(found)[:2] == (finest, depth)
    anchors = np.concatenate(anchors_for(found)[2])
    middle = found[(found >= anchors.min() / 1.2) & (found <= anchors.max() * 1.2)]
    nearest = np.abs(np.log(middle[:, None] / anchors)).min(1)
    assert (nearest <= np.log(1.25)).all()


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve weights of v1's shapes as they are published, on loopback; yield torch's cache."""
    torch.manual_seed(1)
    parts = published_network(
        "v1", classes=90, anchors=((8.0,),) * 5, ratios=(0.5, 1, 2), channels=3, pretrained=False
    )
    modules: dict[str, nn.Module] = {
        "backbone": parts.backbone,
        "rpn": parts.proposer,
        "roi_heads": parts.regions,
    }
    state = {
        f"{prefix}.{name}": torch.randn_like(value) if value.is_floating_point() else value
        for prefix, module in modules.items()
        for name, value in module.state_dict().items()
    }
    served = tmp_path / "served"
    served.mkdir()
    torch.save(state, served / "weights.pth")
    digest = hashlib.sha256((served / "weights.pth").read_bytes()).hexdigest()
    name = f"maskrcnn-{digest[:8]}.pth"
    (served / "weights.pth").rename(served / name)
    handler = partial(SimpleHTTPRequestHandler, directory=str(served))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_args: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    monkeypatch.setattr(coco_weights, "address", lambda _version: url)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    yield served / name
    server.shutdown()
    server.server_close()


def test_published_weights_are_fetched_and_their_classes_kept(published: Path) -> None:
    state = torch.load(published, weights_only=True)
    anchors = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    parts = published_network(
        "v1", classes=80, anchors=anchors, ratios=(0.5, 1.0, 2.0), channels=3, pretrained=True
    )
    rows = category_rows()
    assert len(rows) == 81
    assert rows[:3] == [0, 1, 2]
    own = parts.regions.box_predictor
    torch.testing.assert_close(
        own.cls_score.weight, state["roi_heads.box_predictor.cls_score.weight"][rows]
    )
    boxes = state["roi_heads.box_predictor.bbox_pred.weight"].reshape(91, 4, -1)
    torch.testing.assert_close(own.bbox_pred.weight.reshape(81, 4, -1), boxes[rows])
    torch.testing.assert_close(
        parts.backbone.get_parameter("body.conv1.weight"), state["backbone.body.conv1.weight"]
    )


def test_other_classes_begin_anew_and_grey_sums_the_colours(published: Path) -> None:
    state = torch.load(published, weights_only=True)
    made = MaskRCNN(encoder="resnet50", weights="coco", published="v1")
    network = made.build(1, 3)
    torch.testing.assert_close(
        network.backbone.get_parameter("body.conv1.weight"),
        state["backbone.body.conv1.weight"].sum(1, keepdim=True),
    )
    assert network.roi_heads.box_predictor.cls_score.weight.shape[0] == 4
    torch.testing.assert_close(
        network.rpn.head.bbox_pred.weight, state["rpn.head.bbox_pred.weight"]
    )
    assert made.stride == 64


def test_another_file_than_was_published_is_refused(published: Path) -> None:
    published.write_bytes(published.read_bytes() + b"more")
    with pytest.raises(InputError, match=r"another file than was published .*wanted the SHA-256"):
        coco_weights.fetch("v1")


def test_without_a_connection_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco_weights, "address", lambda _v: "http://127.0.0.1:9/a-12345678.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingInputError) as raised:
        MaskRCNN(encoder="resnet50", weights="coco", published="v2").build(3, 80)
    said = str(raised.value)
    assert said.startswith("model.weights: coco for published v2: found no download (URLError)")
    assert "put the file into" in said


def test_weights_of_another_network_are_refused() -> None:
    parts = published_network(
        "v2", classes=2, anchors=((8.0,),) * 5, ratios=(0.5, 1, 2), channels=3, pretrained=False
    )
    with pytest.raises(InputError, match=r"found no body\.conv1\.weight"):
        vars(coco_weights)["_load"](parts, {"backbone.fpn.nothing": torch.zeros(1)})


def test_a_state_of_other_channels_keeps_what_fits() -> None:
    state = {
        "backbone.body.conv1.weight": torch.ones(64, 3, 7, 7),
        "roi_heads.mask_predictor.mask_fcn_logits.bias": torch.arange(91.0),
    }
    fit = fitting(state, classes=80, channels=4)
    assert fit["backbone.body.conv1.weight"].shape == (64, 4, 7, 7)
    assert fit["roi_heads.mask_predictor.mask_fcn_logits.bias"].tolist() == category_rows()
    assert "roi_heads.mask_predictor.mask_fcn_logits.bias" not in fitting(
        state, classes=3, channels=3
    )


def test_a_file_put_by_hand_must_be_the_published_one(published: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / published.name).write_bytes(b"something else")
    with pytest.raises(InputError, match="another file than was published in"):
        coco_weights.fetch("v1")


def test_a_whole_object_is_an_example_however_it_is_scaled() -> None:
    plane, nothing = np.zeros((8, 10), np.float32), np.zeros((8, 10), np.float32)
    plane[3:5, 4:6] = 1
    image = prepared([400], [0])
    truth = truth_of(Drawn(image, np.zeros((3, 8, 10), np.float32), np.stack([plane, nothing])))
    assert truth.boxes.tolist() == [[4, 3, 6, 5]]


def test_a_limit_is_reached_where_it_leaves_out_what_nothing_else_covers() -> None:
    network = MaskRCNN(weights=None, encoder="mobilenetv3_small_050", depth=3).build(3, 1)
    rpn = network.follow(DetectionHead(proposals=2, proposals_per_level=4)).eval().rpn
    near: list[list[float]] = [
        [10.0, 10, 30, 30],
        [11, 10, 31, 30],
        [10, 12, 30, 32],
        [50, 50, 60, 60],
    ]
    far: list[list[float]] = [
        [10.0, 10, 30, 30],
        [40, 5, 55, 20],
        [50, 50, 60, 60],
        [5, 45, 20, 60],
    ]
    logits = torch.tensor([3.0, 2.0, 1.5, 1.0])

    def reached(boxes: list[list[float]], logits: torch.Tensor) -> bool:
        proposals = torch.tensor([boxes])
        rpn.filter_proposals(proposals, logits.view(1, -1, 1), [(64, 64)], [len(boxes)])
        return bool(rpn.reached[0])

    assert not reached(near, logits)
    assert reached(far, logits)
    # What is less likely an object than not is no loss.
    assert not reached(far, torch.tensor([3.0, 2.0, -1.5, -1.0]))

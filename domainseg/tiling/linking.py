"""Objects of a decoded image linked across gaps, a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.link import Links, NearPairs, joined_links, near_pairs, reach
from domainseg.instances.residue import Numbering, Settled
from domainseg.instances.tile_graph import Box
from domainseg.tiling.stream import Tell, in_order


def link_numbering(
    numbering: Numbering,
    read: Callable[[Box], NDArray[np.int32]],
    *,
    gaps: Sequence[int | None],
    blocks: Sequence[Box],
    shape: tuple[int, int],
    workers: int,
    first: int,
    tell: Tell = lambda _done, _total: None,
) -> tuple[Numbering, int]:
    """Return a layer's objects linked and labelled from ``first`` on, and how many fewer they are.

    ``read`` gives the labels of a box as ``numbering`` has them, int32 ``(h, w)``; ``shape`` is
    that of the layer, which the ``blocks`` cover; of each a margin of the widest gap is read.
    """
    classes, margin = numbering.objects.classes, reach(gaps)

    def look(box: Box) -> NearPairs:
        (y0, x0), (y1, x1) = box
        left = max(x0 - margin, 0)
        window = read(((y0, left), (min(y1 + margin, shape[0]), min(x1 + margin, shape[1]))))
        core = ((0, x0 - left), (y1 - y0, x1 - left))
        return near_pairs(window, classes, gaps=gaps, core=core, first=numbering.first)

    found = []
    with ThreadPoolExecutor(workers) as pool:
        for done, near in enumerate(in_order(pool, look, blocks, ahead=workers), start=1):
            found.append(near)
            tell(done, len(blocks))
    links = joined_links(found, len(numbering))
    return _renumbered(numbering, links, first), links.links


def _renumbered(numbering: Numbering, links: Links, first: int) -> Numbering:
    objects, ahead = numbering.objects, links.first()
    table = np.zeros(numbering.first + len(numbering), np.int32)  # 0 stays 0
    table[numbering.first :] = links.groups + first
    return Numbering(
        first=first,
        objects=Settled(
            objects.firsts[ahead],
            objects.classes[ahead],
            links.scores(objects.scores),
            links.boxes(objects.boxes),
        ),
        opened=table[numbering.opened],
        settled=table[numbering.settled],
        starts=numbering.starts,
    )

"""Filling a hole from the rest of the picture.

Margins, where whole rows or columns are missing (outpainting), are mirrored and gently bent. In a thumbnail, colours are
continued with OpenCV. Any other hole is completed with patches from elsewhere in the picture, in the manner of PatchMatch
(Barnes et al., 2009): every missing pixel has a *source*, the centre of a patch that looks like its own surroundings.
Good sources are found at random and spread to neighbours; each missing pixel then becomes the mean of what the patches
over it say. This goes from a small copy of the picture to larger ones, and the sources of the last one tell where to copy
pixels from in full size.

Everything random comes from the seed: the same seed gives the same bytes.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["fill"]

_Picture: TypeAlias = NDArray[np.uint8]
_Floats: TypeAlias = NDArray[np.float32]
_Hole: TypeAlias = NDArray[np.bool_]
_Points: TypeAlias = NDArray[np.int64]  # (n, 2), row and column

_REACH: Final = 3  # a patch is 7 × 7 pixels
_WINDOW: Final = np.array([(dy, dx) for dy in range(-_REACH, _REACH + 1) for dx in range(-_REACH, _REACH + 1)])
_VOTES: Final = np.exp(-(_WINDOW**2).sum(axis=1) / 4).astype(np.float32)  # the middle of a patch counts most
_NEIGHBOURS: Final = np.array([(0, 1), (1, 0), (0, -1), (-1, 0), (0, 2), (2, 0), (0, -2), (-2, 0)])
_WORKING_SIDE: Final = 160  # pixels of the longer side at which sources are looked for, so that a megapixel takes < 1 s
_COARSEST_SIDE: Final = 40
_THUMBNAIL_SIDE: Final = 128  # smaller pictures have no texture worth copying, and tests use them by the thousand
_ROUNDS: Final = 4
_FARNESS: Final = 3000.0  # what a source costs for being a picture's length away, in squared grey levels


def fill(picture: _Picture, hole: _Hole, seed: int) -> _Picture:
    """The picture with its hole filled; other pixels may change too and are not meant to be used.

    Args:
        picture: uint8, (height, width, 3).
        hole: (height, width), True where pixels are missing.
        seed: decides among the fillings possible.
    """
    rng = np.random.default_rng(seed)
    if hole.all():
        return _clouds(picture, rng)
    rows, columns = np.nonzero(~hole.all(axis=1))[0], np.nonzero(~hole.all(axis=0))[0]
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    core = picture[top:bottom, left:right].copy()
    gaps = hole[top:bottom, left:right]
    if gaps.any():
        part = _surroundings(gaps)
        complete = _smoothed if max(gaps.shape) < _THUMBNAIL_SIDE else _completed
        core[part] = complete(core[part], gaps[part], rng)
    if core.shape == picture.shape:
        return core
    height, width = hole.shape
    return _widened(core, (int(top), int(height - bottom), int(left), int(width - right)), rng)


def _clouds(picture: _Picture, rng: np.random.Generator) -> _Picture:
    """Nothing is left to copy from: the picture's own colours, far out of focus and stirred."""
    height, width = picture.shape[:2]
    soft = cv2.GaussianBlur(picture, (0, 0), max(height, width) / 16).astype(np.uint8)
    return _bent(soft, np.full((height, width), max(height, width), np.float32), rng)


def _surroundings(hole: _Hole) -> tuple[slice, slice]:
    """The hole's bounding box with room for sources around it."""
    rows, columns = np.nonzero(hole.any(axis=1))[0], np.nonzero(hole.any(axis=0))[0]
    room = max(64, np.ptp(rows), np.ptp(columns))
    vertical, horizontal = (slice(int(max(0, used[0] - room)), int(used[-1] + room + 1)) for used in (rows, columns))
    return vertical, horizontal


def _widened(core: _Picture, margins: tuple[int, int, int, int], rng: np.random.Generator) -> _Picture:
    """Mirror the core into its margins, and bend the reflection more the further it is from the core."""
    mirrored = cv2.copyMakeBorder(core, *margins, cv2.BORDER_REFLECT_101)
    outside = cv2.copyMakeBorder(np.zeros(core.shape[:2], np.uint8), *margins, cv2.BORDER_CONSTANT, value=(1,))
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return _bent(mirrored.astype(np.uint8), distance.astype(np.float32), rng)


def _bent(picture: _Picture, distance: _Floats, rng: np.random.Generator) -> _Picture:
    """Move pixels along smooth random waves, by at most a tenth of *distance* or a fiftieth of the picture."""
    height, width = distance.shape
    amplitude = np.minimum(distance * 0.1, max(height, width) * 0.02)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [
        cv2.resize(rng.uniform(-1, 1, (5, 5)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in range(2)
    ]
    moved = cv2.remap(
        picture, x + amplitude * waves[0], y + amplitude * waves[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    grain = rng.normal(0, 1.5, (height, width, 1)) * (distance > 0)[..., None]
    return np.rint(moved + grain).clip(0, 255).astype(np.uint8)


def _smoothed(picture: _Picture, hole: _Hole, rng: np.random.Generator) -> _Picture:
    """Continue the colours around the hole into it, with some grain."""
    smooth = cv2.inpaint(picture, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    grained = smooth + rng.normal(0, 4, (*hole.shape, 1))
    return np.where(hole[..., None], np.rint(grained).clip(0, 255), picture).astype(np.uint8)


def _completed(picture: _Picture, hole: _Hole, rng: np.random.Generator) -> _Picture:
    """Complete the picture from coarse to fine, then copy full-size pixels from the sources found."""
    height, width = hole.shape
    longer = max(height, width)
    sides = [min(_WORKING_SIDE, longer)]
    while sides[0] * 0.6 >= _COARSEST_SIDE:
        sides.insert(0, int(sides[0] * 0.6))
    previous: _Floats | None = None
    shifts = np.zeros((1, 1, 2), np.float32)  # from every pixel to its source, as a share of the picture
    for side in sides:
        size = max(1, round(width * side / longer)), max(1, round(height * side / longer))
        known, gaps = _reduced(picture, hole, size)
        guess = _first_guess(known, gaps) if previous is None else cv2.resize(previous, size).astype(np.float32)
        start = None if previous is None else _enlarged(shifts, size)
        image = np.where(gaps[..., None], guess, known).astype(np.float32)
        previous, shifts = _matched(image, gaps, start, rng)
    return _copied(picture, hole, shifts)


def _enlarged(shifts: _Floats, size: tuple[int, int]) -> _Floats:
    return cv2.resize(shifts, size, interpolation=cv2.INTER_NEAREST).astype(np.float32)


def _reduced(picture: _Picture, hole: _Hole, size: tuple[int, int]) -> tuple[_Floats, _Hole]:
    """A smaller copy into which no missing pixel has bled, and what is missing in it."""
    weight = (~hole).astype(np.float32)
    total = cv2.resize(picture * weight[..., None], size, interpolation=cv2.INTER_AREA)
    share = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    small = total / np.maximum(share, 1e-6)[..., None]
    return small.astype(np.float32), share < min(0.999, float(share.max()))


def _first_guess(known: _Floats, gaps: _Hole) -> _Floats:
    rough = known.clip(0, 255).astype(np.uint8)
    return cv2.inpaint(rough, gaps.astype(np.uint8), 3, cv2.INPAINT_TELEA).astype(np.float32)


def _matched(image: _Floats, gaps: _Hole, shifts: _Floats | None, rng: np.random.Generator) -> tuple[_Floats, _Floats]:
    """Improve sources and picture in turns; returns the picture and its shifts."""
    size = np.array(gaps.shape)
    targets = np.argwhere(gaps)
    allowed = _allowed_sources(gaps)
    pool = np.argwhere(allowed)
    sources = pool[rng.integers(0, len(pool), len(targets))]
    if shifts is not None:
        inherited = _inside(targets + np.rint(shifts[gaps] * size).astype(np.int64), size)
        sources = np.where(allowed[tuple(inherited.T)][:, None], inherited, sources)
    number = np.full(gaps.shape, -1)
    number[gaps] = np.arange(len(targets))
    search = _Search(image, targets, sources, allowed, _nearest_known(gaps))
    for _ in range(_ROUNDS):
        for step in _NEIGHBOURS:
            search.spread(number, step)
        reach = int(size.max()) // 2
        while reach >= 1:
            search.consider(search.sources + rng.integers(-reach, reach + 1, targets.shape))
            reach //= 3
        image = _voted(image, targets, search.sources, number)
        search.look_again(image)
    field = np.zeros((*gaps.shape, 2), np.float32)
    field[gaps] = (search.sources - targets) / size
    return image, field


class _Search:
    """Looks for better sources of all *targets* at once."""

    def __init__(self, image: _Floats, targets: _Points, sources: _Points, allowed: _Hole, nearest: _Points) -> None:
        self.sources = sources.copy()
        self._targets = targets
        self._allowed = allowed
        self._nearest = nearest
        self._size = np.array(allowed.shape)
        self._patches = _patches(image, np.argwhere(allowed))
        self._place = np.zeros(allowed.shape, np.int64)
        self._place[allowed] = np.arange(len(self._patches))
        self.look_again(image)

    def look_again(self, image: _Floats) -> None:
        """Compare with what has become of the targets."""
        self._wanted = _patches(image, self._targets)
        self._costs = self._cost(self.sources)

    def consider(self, candidates: _Points) -> None:
        """Take those *candidates* that are allowed and better than the sources so far."""
        candidates = _inside(candidates, self._size)
        allowed = self._allowed[tuple(candidates.T)]
        candidates = np.where(allowed[:, None], candidates, self.sources)
        costs = self._cost(candidates)
        better = costs < self._costs
        self.sources[better] = candidates[better]
        self._costs = np.minimum(costs, self._costs)

    def spread(self, number: _Points, step: _Points) -> None:
        """Try the source of the neighbour one *step* away, moved back by that step."""
        neighbours = number[tuple(_inside(self._targets + step, self._size).T)]
        self.consider(np.where(neighbours[:, None] >= 0, self.sources[neighbours] - step, self.sources))

    def _cost(self, sources: _Points) -> _Floats:
        difference = self._patches[self._place[tuple(sources.T)]] - self._wanted
        far = ((sources - self._nearest) / self._size.max()).astype(np.float32)
        costs: _Floats = np.einsum("ij,ij->i", difference, difference)
        costs += _FARNESS * len(_WINDOW) * np.einsum("ij,ij->i", far, far)
        return costs


def _inside(points: _Points, size: NDArray[np.int64]) -> _Points:
    return np.clip(points, 0, size - 1)


def _allowed_sources(gaps: _Hole) -> _Hole:
    """Centres of patches without a gap; in a very small picture, any known pixel."""
    window = np.ones((2 * _REACH + 1, 2 * _REACH + 1), np.uint8)
    allowed = cv2.dilate(gaps.astype(np.uint8), window) == 0
    allowed[:_REACH] = allowed[-_REACH:] = allowed[:, :_REACH] = allowed[:, -_REACH:] = False
    return allowed if allowed.any() else ~gaps


def _nearest_known(gaps: _Hole) -> _Points:
    """For every gap the nearest known pixel."""
    _, labels = cv2.distanceTransformWithLabels(
        gaps.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    places = np.zeros((int(labels.max()) + 1, 2), np.int64)
    places[labels[~gaps]] = np.argwhere(~gaps)
    nearest: _Points = places[labels[gaps]]
    return nearest


def _patches(image: _Floats, centres: _Points) -> _Floats:
    """The patch around every centre, as (n, 147)."""
    padded = cv2.copyMakeBorder(image, _REACH, _REACH, _REACH, _REACH, cv2.BORDER_REFLECT_101)
    rows, columns = np.moveaxis(centres[:, None] + _WINDOW + _REACH, 2, 0)
    patches: _Floats = padded[rows, columns].reshape(len(centres), 3 * len(_WINDOW))
    return patches


def _voted(image: _Floats, targets: _Points, sources: _Points, number: _Points) -> _Floats:
    """Every missing pixel as the weighted mean of what the patches over it say."""
    rows, columns = np.moveaxis(targets[:, None] + _WINDOW + _REACH, 2, 0)
    neighbours = np.pad(number, _REACH, constant_values=-1)[rows, columns]
    spots = sources[neighbours] - _WINDOW
    size = np.array(number.shape)
    weights = _VOTES * ((neighbours >= 0) & ((spots >= 0) & (spots < size)).all(axis=2))
    rows, columns = np.moveaxis(_inside(spots, size), 2, 0)
    voted = image.copy()
    voted[tuple(targets.T)] = np.einsum("ns,nsc->nc", weights, image[rows, columns]) / weights.sum(axis=1)[:, None]
    return voted


def _copied(picture: _Picture, hole: _Hole, shifts: _Floats) -> _Picture:
    """Copy full-size pixels from their sources; those of neighbouring sources are mixed in, which hides the joints."""
    height, width = hole.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    total = np.zeros(picture.shape, np.float32)
    padded = cv2.copyMakeBorder(shifts, 1, 1, 1, 1, cv2.BORDER_REPLICATE).astype(np.float32)
    steps = [(dy, dx) for dy in range(3) for dx in range(3)]
    shares = np.array([np.exp(-((dy - 1) ** 2 + (dx - 1) ** 2)) for dy, dx in steps])
    for (dy, dx), share in zip(steps, shares / shares.sum(), strict=True):
        moved = padded[dy : dy + shifts.shape[0], dx : dx + shifts.shape[1]]
        shift = np.rint(_enlarged(moved, (width, height)) * np.array([height, width], np.float32))
        rows, columns = y + shift[..., 0], x + shift[..., 1]
        copied = cv2.remap(picture, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
        total += share * copied
    return np.where(hole[..., None], np.rint(total), picture).astype(np.uint8)

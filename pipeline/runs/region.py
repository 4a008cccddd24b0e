"""Regions of the sky, parsed from text, and the partitions that they touch."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import healpy
import numpy as np
from astropy import units as u
from astropy.coordinates import Latitude, Longitude
from mocpy import MOC
from upath import UPath

from ojala.catalogs_schema.errors import ExitCode, OjalaError
from ojala.pipeline.runs.receipts import PartitionStatus
from ojala.pipeline.storage.files import is_local
from ojala.pipeline.storage.healpix import INDEX_ORDER, Partition

FORMS = (
    "cone:RA,DEC,RADIUS  box:RA1,RA2,DEC1,DEC2  polygon:RA,DEC;RA,DEC;RA,DEC  moc:FILE  tiles:5/1234,5/1235  "
    "flagged  flagged:NAME>0.1"
)
"""How a region can be given; angles in degrees, ICRS."""

FINER = 4
"""Orders by which the edge of a region is drawn finer than the finest partition."""

_FINEST = 12
"""Partitions finer than this do not make the edge of a region be drawn finer."""

_CHILDREN = 3
"""Orders by which the pixels that are tried in a partition are finer than it."""


MOST_CORNERS = 10_000
"""Largest number of corners of a polygon."""

_POLYGON_EFFORT = 2**25
"""Corners times 2**order up to which the edge of a polygon is drawn: a few seconds."""

_EDGES_AT_ONCE = 256
_ROUNDING = 1e-14


class RegionError(OjalaError, ValueError):
    """A region that cannot be understood, or that holds nothing."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class Region:
    """A region: where it is on the sky, or which receipts it wants.

    Attributes
    ----------
    text : str
        As it was given.
    overlaps : callable or None
        Partitions -> for each of them, whether it is touched; None for ``flagged``.
    flag : str
        Flag whose share of rows counts; empty for partitions that failed.
    share : float
        Partitions above this share are meant.
    """

    text: str
    overlaps: Callable[[Sequence[Partition]], np.ndarray] | None = None
    flag: str = ""
    share: float = 0.0

    def touched(
        self, partitions: Collection[Partition], known: Mapping[Partition, PartitionStatus]
    ) -> frozenset[Partition]:
        """Those partitions that the region touches; a partition on its edge is touched.

        Parameters
        ----------
        partitions : collection of Partition
            To choose from.
        known : mapping of Partition to PartitionStatus
            Their summaries in the run that is reprocessed.

        Raises
        ------
        RegionError
            If there are none.
        """
        if self.overlaps is not None:
            chosen = list(partitions)
            found = frozenset(p for p, is_in in zip(chosen, self.overlaps(chosen), strict=True) if is_in)
        else:
            found = frozenset(p for p in partitions if self._is_flagged(known.get(p)))
        if not found:
            why = "none has that flag" if self.overlaps is None else "the input has no rows there"
            raise RegionError(
                f"region {self.text!r} touches none of the {len(partitions):,} partitions: {why}"
            )
        return found

    def _is_flagged(self, known: PartitionStatus | None) -> bool:
        if not self.flag:
            return known is None or known.status != "done"
        return known is not None and known.flags.get(self.flag, 0.0) > self.share


def _drawn(text: str, draw: Callable[[int], MOC]) -> Region:
    """A region whose coverage is drawn at an order somewhat finer than the partitions."""

    def overlaps(partitions: Sequence[Partition]) -> np.ndarray:
        finest = max((p.order for p in partitions), default=0)
        return _overlapping(draw(min(finest, _FINEST) + FINER), partitions)

    return Region(text, overlaps)


def _overlapping(moc: MOC, partitions: Sequence[Partition]) -> np.ndarray:
    """Whether at least a part of each partition lies in a coverage."""
    ranges = moc.to_depth29_ranges.astype(np.int64)
    shift = np.array([2 * (INDEX_ORDER - p.order) for p in partitions], dtype=np.int64)
    first = np.array([p.pixel for p in partitions], dtype=np.int64) << shift
    end = first + (np.int64(1) << shift)
    # The first range that ends behind the partition's first pixel is the only one to ask.
    index = np.searchsorted(ranges[:, 1], first, side="right")
    inside = index < len(ranges)
    inside[inside] = ranges[index[inside], 0] < end[inside]
    return inside


def coverage(partitions: Collection[Partition]) -> MOC:
    """The coverage of partitions, exact."""
    order = max((p.order for p in partitions), default=0)
    depth = np.array([p.order for p in partitions], dtype=np.uint8)
    pixels = np.array([p.pixel for p in partitions], dtype=np.uint64)
    return MOC.from_healpix_cells(pixels, depth, max_depth=order)


def parse_region(text: str, flags: type[enum.IntFlag] | None = None) -> Region:
    """Parse a region, see `FORMS`.

    Parameters
    ----------
    text : str
        One of the forms.
    flags : type of IntFlag, optional
        Flags of the model, for ``flagged:NAME>0.1``.

    Raises
    ------
    RegionError
        If it cannot be parsed, with the form that was expected.
    """
    kind, _, rest = text.strip().partition(":")
    if kind == "flagged":
        return _flagged(text, rest, () if flags is None else tuple(flags.__members__))
    if kind not in _KINDS:
        raise RegionError(f"region {text!r} is none of: {FORMS}")
    return _KINDS[kind](text, rest)


def _cone(text: str, rest: str) -> Region:
    ra, dec, radius = _numbers(text, rest, 3, "cone:RA,DEC,RADIUS")
    _position(text, [ra], [dec])
    if not 0.0 < radius <= 180.0:
        raise RegionError(f"region {text!r}: the radius must be above 0 and at most 180 degrees")
    return _drawn(text, lambda order: _disc(ra, dec, radius, order))


def _disc(ra: float, dec: float, radius: float, order: int) -> MOC:
    """Coverage of a disc [deg], with all pixels that it touches.

    mocpy 0.21 leaves pixels out of discs of more than 135 degrees, so those larger than a hemisphere are
    drawn as what the disc around the opposite point leaves, and one pixel more.
    """
    if radius == 180.0:
        return MOC.from_string(f"0/0-11 {order}/")
    if radius > 90.0:
        opposite = _disc((ra + 180.0) % 360.0, -dec, 180.0 - radius, order)
        return opposite.complement().add_neighbours()
    lon, lat = Longitude(ra, u.deg), Latitude(dec, u.deg)
    return MOC.from_cone(lon=lon, lat=lat, radius=radius * u.deg, max_depth=order)


def _box(text: str, rest: str) -> Region:
    ra1, ra2, dec1, dec2 = _numbers(text, rest, 4, "box:RA1,RA2,DEC1,DEC2")
    _position(text, [ra1, ra2], [dec1, dec2])
    if dec1 >= dec2:
        raise RegionError(f"region {text!r}: DEC1 must be below DEC2")
    if ra1 == ra2:
        raise RegionError(f"region {text!r}: RA1 and RA2 must differ; RA1 above RA2 goes through RA 0")
    return Region(text, lambda partitions: _touched_by_box(partitions, ra1, ra2, dec1, dec2))


def _touched_by_box(
    partitions: Sequence[Partition], ra1: float, ra2: float, dec1: float, dec2: float
) -> np.ndarray:
    """Partitions with a subpixel's centre in the box, or with its edge running through them.

    mocpy 0.21 draws zones that begin at RA 0 too small, so boxes are not drawn with it.
    """
    width = ra2 - ra1 if ra1 < ra2 else ra2 - ra1 + 360.0  # from the first to the second, through 0
    order = np.array([p.order for p in partitions])
    pixel = np.array([p.pixel for p in partitions], dtype=np.int64)
    touched = np.zeros(len(partitions), dtype=bool)
    step = healpy.nside2resol(2 ** min(int(order.max(initial=0)), _FINEST)) * 180 / np.pi / 16
    ra = np.linspace(ra1, ra1 + width, int(width / step) + 2) % 360.0
    dec = np.linspace(dec1, dec2, int((dec2 - dec1) / step) + 2)
    lon = np.concatenate([ra, ra, np.full_like(dec, ra1), np.full_like(dec, ra2)])
    lat = np.concatenate([np.full_like(ra, dec1), np.full_like(ra, dec2), dec, dec])
    for level in np.unique(order):
        here = np.flatnonzero(order == level)
        finer = min(_CHILDREN, INDEX_ORDER - int(level))
        nside = 2 ** (int(level) + finer)
        children = (pixel[here, None] << 2 * finer) + np.arange(4**finer)
        child_ra, child_dec = healpy.pix2ang(nside, children, nest=True, lonlat=True)
        inside = ((child_ra - ra1) % 360.0 <= width) & (child_dec >= dec1) & (child_dec <= dec2)
        edge = healpy.ang2pix(2 ** int(level), lon, lat, nest=True, lonlat=True)
        touched[here] = inside.any(axis=1) | np.isin(pixel[here], edge)
    return touched


def _polygon(text: str, rest: str) -> Region:
    corners = [_numbers(text, corner, 2, "polygon:RA,DEC;RA,DEC;RA,DEC") for corner in rest.split(";")]
    if len(corners) < 3:
        raise RegionError(f"region {text!r}: a polygon has at least three corners, divided by ';'")
    ra, dec = (np.array(values) for values in zip(*corners, strict=True))
    _position(text, ra, dec)
    if len({(r % 360.0, d) for r, d in corners}) < len(corners):
        raise RegionError(f"region {text!r}: a corner is given twice; the polygon closes itself")
    if len(corners) > MOST_CORNERS:
        raise RegionError(
            f"region polygon of {len(corners):,} corners: at most {MOST_CORNERS:,} are drawn; give fewer, or "
            "the region as moc:FILE"
        )
    if crossing := _first_crossing(healpy.ang2vec(ra, dec, lonlat=True)):
        first, second = crossing
        raise RegionError(
            f"region polygon of {len(corners):,} corners: its edges {first + 1} and {second + 1} (from "
            f"{corners[first]} and from {corners[second]}) cross; give the corners in their order around the "
            "region"
        )

    def draw(order: int) -> MOC:
        # The time goes with the corners and with the pixels along the edges.
        finest = int(np.log2(_POLYGON_EFFORT / len(corners)))
        return MOC.from_polygon(lon=ra * u.deg, lat=dec * u.deg, max_depth=min(order, finest))

    return _drawn(text, draw)


def _first_crossing(corners: np.ndarray) -> tuple[int, int] | None:
    """Two edges of a polygon that cross, by their first corners; None for a simple polygon.

    Parameters
    ----------
    corners : ndarray, shape (N, 3)
        Unit vectors; edges are the great circles between neighbours, the last closes the polygon.
    """
    ends = np.roll(corners, -1, axis=0)
    normals = np.cross(corners, ends)
    number = np.arange(len(corners))
    for begin in range(0, len(corners), _EDGES_AT_ONCE):
        part = number[begin : begin + _EDGES_AT_ONCE]
        # Side of each edge of the part on which the ends of every other edge lie, and the reverse.
        sides = _opposite(normals[part] @ corners.T, normals[part] @ ends.T)
        sides &= _opposite(corners[part] @ normals.T, ends[part] @ normals.T)
        for one, two in zip(*np.nonzero(sides), strict=True):
            first, second = int(part[one]), int(two)
            if (second - first) % len(corners) in (0, 1, len(corners) - 1):
                continue  # neighbours share a corner
            meeting = np.cross(normals[first], normals[second])
            middles = corners[[first, second]] + ends[[first, second]]
            if (middles @ meeting > 0).all() or (
                middles @ meeting < 0
            ).all():  # else on opposite sides of the sky
                return first, second
    return None


def _opposite(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray((one * other < 0.0) & (np.minimum(np.abs(one), np.abs(other)) > _ROUNDING))


def _moc(text: str, rest: str) -> Region:
    path = UPath(rest)
    if not is_local(path) or not path.is_file():
        raise RegionError(f"region {text!r}: there is no file {rest!r} on this machine")
    form = {".json": "json", ".txt": "ascii"}.get(path.suffix, "fits")
    try:
        moc = MOC.load(path.path, format=form)
    except (OSError, ValueError, KeyError) as problem:
        raise RegionError(f"region {text!r}: {rest} cannot be read as a MOC ({form}): {problem}") from problem
    return _drawn(text, lambda order: moc)


def _tiles(text: str, rest: str) -> Region:
    try:
        tiles = [Partition.parse(name.strip()) for name in rest.split(",")]
    except ValueError as problem:
        raise RegionError(f"region {text!r}: {problem}") from problem
    return _drawn(text, lambda order: coverage(tiles))


def _flagged(text: str, rest: str, flags: Sequence[str]) -> Region:
    if not rest:
        return Region(text)
    match = re.fullmatch(r"(\w+)>((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e-?[0-9]+)?)", rest.replace(" ", ""))
    if match is None:
        raise RegionError(f"region {text!r}: expected flagged or flagged:NAME>0.1")
    name, share = match[1], float(match[2])
    if name not in ("any", *flags):
        choice = ", ".join(("any", *flags))
        raise RegionError(f"region {text!r}: there is no flag {name!r} of the model: choose from {choice}")
    return Region(text, flag=name, share=share)


_KINDS: dict[str, Callable[[str, str], Region]] = {
    "cone": _cone,
    "box": _box,
    "polygon": _polygon,
    "moc": _moc,
    "tiles": _tiles,
}


def _numbers(text: str, rest: str, count: int, form: str) -> list[float]:
    try:
        values = [float(value) for value in rest.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise RegionError(f"region {text!r}: expected {form} in degrees")
    return values


def _position(text: str, ra: Iterable[float], dec: Iterable[float]) -> None:
    if any(not 0.0 <= value <= 360.0 for value in ra):
        raise RegionError(f"region {text!r}: right ascensions lie between 0 and 360 degrees")
    if any(not -90.0 <= value <= 90.0 for value in dec):
        raise RegionError(f"region {text!r}: declinations lie between -90 and 90 degrees")

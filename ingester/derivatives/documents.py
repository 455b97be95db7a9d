"""Objects without pixels that can still be shown: reports as text, waveforms as curves.

What is drawn here comes from the object and may name a patient; the record says so
(`phi`), and `documents = "card"` turns it off.  Observation context and person names
are left out of reports in any case.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from ingester.derivatives.values import integer, item, items, number, text, value, values

_PAPER, _INK, _FAINT = (255, 255, 255), (24, 26, 30), (110, 116, 126)
_GRID, _GRID_BOLD = (250, 226, 224), (241, 190, 186)
_PAGE = (512, 512)
_MARGIN = 24
_MOST_LINES = 28
_MOST_DEPTH = 16
_MOST_LINE = 160
_MOST_SAMPLES = 4_000_000
_SAMPLE_TYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}
_STANDARD_LEADS = 12
_KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
_SHOWN_SECONDS = 10.0

type_line = tuple[int, str, str]


def document_image(header: Dataset) -> Image.Image | None:
    """Return a picture of a report or a waveform, None where the object is neither."""
    if items(header, "WaveformSequence"):
        return _waveform(header)
    if text(header, "SOPClassUID") == _KEY_OBJECTS:
        return None
    if text(header, "ValueType") == "CONTAINER" and items(header, "ContentSequence"):
        return _report(header)
    return None


def _report(header: Dataset) -> Image.Image:
    image = Image.new("RGB", _PAGE, _PAPER)
    pen = ImageDraw.Draw(image)
    title = _meaning(header, "ConceptNameCodeSequence") or "Structured report"
    top = _written(pen, _MARGIN, _MARGIN - 6, title, "", 24)
    flags = (text(header, "CompletionFlag"), text(header, "VerificationFlag"))
    top = _written(pen, _MARGIN, top + 2, "", ", ".join(f for f in flags if f).lower(), 15)
    pen.line((_MARGIN, top + 6, _PAGE[0] - _MARGIN, top + 6), fill=_FAINT)
    top += 14
    for number_, (depth, name, said) in enumerate(_lines(header, 0)):
        if number_ >= _MOST_LINES or top > _PAGE[1] - 24:
            break
        left = _MARGIN + 14 * min(depth, 6)
        top = _written(pen, left, top, name + (":" if said and name else ""), said, 15)
    return image


def _lines(container: Dataset, depth: int) -> Iterator[type_line]:
    """Yield (depth, name, value) of the content tree, in the order of reading."""
    if depth > _MOST_DEPTH:
        return
    for content in items(container, "ContentSequence"):
        kind = text(content, "ValueType")
        if text(content, "RelationshipType") == "HAS OBS CONTEXT" or kind == "PNAME":
            continue
        yield depth, _meaning(content, "ConceptNameCodeSequence"), _said(content, kind)
        yield from _lines(content, depth + 1)


def _said(content: Dataset, kind: str) -> str:
    if kind == "TEXT":
        return text(content, "TextValue")
    if kind == "CODE":
        return _meaning(content, "ConceptCodeSequence")
    if kind == "NUM":
        measured = item(content, "MeasuredValueSequence")
        unit = item(measured, "MeasurementUnitsCodeSequence")
        symbol = text(unit, "CodeValue")
        measure = number(measured, "NumericValue")
        amount = "" if measure is None else f"{measure:.6g}"
        return amount if symbol == "1" else f"{amount} {symbol}".strip()
    if kind in ("DATE", "TIME", "DATETIME"):
        return text(content, {"DATE": "Date", "TIME": "Time", "DATETIME": "DateTime"}[kind])
    return {"IMAGE": "[image]", "WAVEFORM": "[waveform]", "SCOORD": "[region]"}.get(kind, "")


def _meaning(dataset: Dataset | None, keyword: str) -> str:
    return text(item(dataset, keyword), "CodeMeaning")


def _written(pen: ImageDraw.ImageDraw, left: int, top: int, name: str, said: str, size: int) -> int:
    """Write one line, its name faint where a value follows; return the next line's top."""
    font = ImageFont.load_default(size)
    name, said = (" ".join(part[:_MOST_LINE].split()) for part in (name, said))
    pen.text((left, top), name, font=font, fill=_FAINT if said else _INK)
    if said:
        offset = pen.textlength(name + " ", font) if name else 0.0
        pen.text((left + offset, top), said, font=font, fill=_INK)
    return top + round(size * 1.25)


def _waveform(header: Dataset) -> Image.Image | None:
    groups = items(header, "WaveformSequence")
    group = next(
        (g for g in groups if integer(g, "NumberOfWaveformChannels") == _STANDARD_LEADS), groups[0]
    )
    signal = _signal(group)
    if signal is None:
        return None
    rate = number(group, "SamplingFrequency") or 0.0
    shown = round(rate * _SHOWN_SECONDS)
    signal = signal[: shown if 0 < shown < len(signal) else len(signal)]
    image = Image.new("RGB", (512, 384), _PAPER)
    pen = ImageDraw.Draw(image)
    for place in range(0, 512, 8):
        ink = _GRID_BOLD if place % 40 == 0 else _GRID
        pen.line((place, 0, place, 383), fill=ink)
        pen.line((0, place, 511, place), fill=ink)
    names = [
        _meaning(each, "ChannelSourceSequence")
        for each in items(group, "ChannelDefinitionSequence")
    ]
    if signal.shape[1] == _STANDARD_LEADS:
        _standard_leads(pen, signal, names)
    else:
        count = min(signal.shape[1], 16)
        for channel in range(count):
            box = (4, 384 * channel // count, 508, 384 * (channel + 1) // count)
            _curve(pen, signal[:, channel], box, _name(names, channel))
    return image


def _standard_leads(pen: ImageDraw.ImageDraw, signal: NDArray[Any], names: list[str]) -> None:
    """Draw three rows of four leads, a quarter of the time each, and a rhythm strip."""
    quarter = max(1, len(signal) // 4)
    for channel in range(_STANDARD_LEADS):
        column, row = divmod(channel, 3)
        part = signal[column * quarter : (column + 1) * quarter, channel]
        box = (4 + 126 * column, 96 * row, 4 + 126 * (column + 1), 96 * (row + 1))
        _curve(pen, part, box, _name(names, channel))
    _curve(pen, signal[:, 1], (4, 288, 508, 384), _name(names, 1))


def _name(names: list[str], channel: int) -> str:
    return names[channel].removeprefix("Lead ")[:12] if channel < len(names) else ""


def _curve(
    pen: ImageDraw.ImageDraw, part: NDArray[Any], box: tuple[int, int, int, int], name: str
) -> None:
    """Draw a signal into a box by the least and the most of each column."""
    left, top, right, bottom = box
    width = right - left
    low, high = float(part.min()), float(part.max())
    middle, span = (low + high) / 2, max(high - low, 1e-9)
    scale = (bottom - top) * 0.8 / span
    last: tuple[float, float] | None = None
    for column in range(width):
        begin, end = column * len(part) // width, max(1, (column + 1) * len(part) // width)
        piece = part[min(begin, len(part) - 1) : max(end, begin + 1)]
        ends = [
            (top + bottom) / 2 - (float(each) - middle) * scale
            for each in (piece.max(), piece.min())
        ]
        if last is not None:  # no gap between columns
            ends = [min(ends[0], last[1]), max(ends[1], last[0])]
        pen.line((left + column, ends[0], left + column, ends[1]), fill=_INK)
        last = ends[0], ends[1]
    pen.text((left + 3, top + 2), name, font=ImageFont.load_default(15), fill=_INK)


def _signal(group: Dataset) -> NDArray[Any] | None:
    """Return a multiplex group's samples as (samples, channels), or None."""
    channels = integer(group, "NumberOfWaveformChannels") or 0
    kind = _SAMPLE_TYPES.get(text(group, "WaveformSampleInterpretation"))
    data = value(group, "WaveformData")
    if channels < 1 or kind is None or not isinstance(data, bytes):
        return None
    is_big = getattr(group, "original_encoding", (None, True))[1] is False
    dtype = np.dtype(kind).newbyteorder(">" if is_big else "<")
    count = min(len(data) // (dtype.itemsize * channels), _MOST_SAMPLES // channels)
    if count < 2:
        return None
    samples = np.frombuffer(data, dtype, count * channels).reshape(count, channels)
    padding = values(group, "WaveformPaddingValue")
    if padding and isinstance(padding[0], bytes) and len(padding[0]) >= dtype.itemsize:
        gap = np.frombuffer(padding[0], dtype, 1)[0]
        samples = np.where(samples == gap, 0, samples)
    return samples

"""Columns of ``bytes``: the value itself, its way through a chunk, and offsets that a stranger wrote."""

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnc_async.dataset import chunk_format
from dnc_async.dataset.batch import BatchBuffer
from dnc_async.dataset.manifest import Manifest
from dnc_async.dataset.ragged import Ragged
from dnc_async.dataset.schema import Schema, schema_of
from dnc_async.errors import ArgumentError, DecodeError, ManifestError
from dnc_async.publish.columns import columns_of

# Zeros at the end are what numpy's own bytes lose.
SAMPLES = [b"", b"a\0\0", b"\xff\xd8\xff", b"", b"longer than the others\0"]


def test_is_like_the_list() -> None:
    """Length, items, order, equality, and a repr that does not print megabytes."""
    ragged = Ragged.of(SAMPLES)
    assert len(ragged) == 5
    assert ragged.tolist() == SAMPLES == [bytes(sample) for sample in ragged]
    assert [bytes(ragged[i]) for i in range(-5, 5)] == SAMPLES * 2
    assert ragged == SAMPLES
    assert ragged == Ragged.of([bytearray(sample) for sample in SAMPLES])
    assert ragged != SAMPLES[:-1]
    assert ragged != "text"
    assert repr(ragged) == "<Ragged 5 samples, 29 bytes>"
    assert pickle.loads(pickle.dumps(ragged)) == ragged  # noqa: S301 - ours; for process pools
    assert Ragged.of([]) == []
    for wrong in (5, -6):
        with pytest.raises(IndexError):
            ragged[wrong]
    with pytest.raises(TypeError):
        ragged["x"]


@given(st.slices(5))
def test_slices_select_as_of_a_list(rows: slice) -> None:
    assert Ragged.of(SAMPLES)[rows] == SAMPLES[rows]


@pytest.mark.parametrize(
    ("key", "found"), [([4, 0], [4, 0]), (np.array([1, -1]), [1, 4]), (np.arange(5) > 2, [3, 4]), ([], [])]
)
def test_index_arrays_select_samples(key: Any, found: list[int]) -> None:
    """As numpy's: numbers in any order, or a mask."""
    assert Ragged.of(SAMPLES)[np.array(key, dtype=int) if not len(key) else key] == [SAMPLES[i] for i in found]


def test_the_memory_is_shared_and_writable() -> None:
    """A sample and a slice are views, as with numpy."""
    ragged = Ragged.of(SAMPLES)
    ragged[1:3][1][0] = 0
    assert bytes(ragged[2]) == b"\0\xd8\xff"


@given(st.lists(st.binary(max_size=9), max_size=9), st.lists(st.binary(max_size=9), max_size=9))
def test_joined(first: list[bytes], second: list[bytes]) -> None:
    assert Ragged.join([Ragged.of(first), Ragged.of(second)]) == first + second


@pytest.mark.parametrize("offsets", [[], [0], [1, 3], [0, 2], [0, 3, 2, 3], [0, 2**63, 3], [[0, 3]], [0.0, 3.0]])
def test_offsets_that_do_not_fit(offsets: list[Any]) -> None:
    with pytest.raises(ArgumentError, match="Ragged"):
        Ragged(np.zeros(3, np.uint8), np.array(offsets))


COLUMNS, STRUCTURE = columns_of({"image": SAMPLES, "label": np.arange(5), "name": list("abcde")}, where="")
SCHEMA = schema_of(COLUMNS, STRUCTURE)


def test_any_list_of_bytes_is_such_a_column() -> None:
    """Also an object array; an array of numpy's own bytes stays what it is, and mixtures are refused."""
    boxed = np.empty(5, dtype=object)
    boxed[:] = SAMPLES
    for source in (SAMPLES, boxed, [memoryview(sample) for sample in SAMPLES], Ragged.of(SAMPLES)):
        columns, structure = columns_of({"image": source}, where="")
        assert columns["image"] == SAMPLES
        assert schema_of(columns, structure).to_wire() == {"structure": "dict", "columns": [["image", "bytes", []]]}
    fixed, _ = columns_of(np.array(SAMPLES), where="")
    assert isinstance(fixed["0"], np.ndarray)
    gap, _ = columns_of({"image": [b"a", None]}, where="")
    assert gap["image"] == [b"a", b""]
    assert gap["image__valid"].tolist() == [True, False]


def test_round_trip_through_a_chunk() -> None:
    """With text and numbers beside it; the schema, too."""
    assert Schema.from_wire(SCHEMA.to_wire()) == SCHEMA
    decoded = chunk_format.decode(SCHEMA, 5, chunk_format.encode(SCHEMA, COLUMNS))
    assert decoded["image"] == SAMPLES
    assert (decoded["label"] == np.arange(5)).all()
    with pytest.raises(ManifestError):
        Schema.from_wire({"structure": "dict", "columns": [["image", "bytes", [2]]]})


@pytest.mark.parametrize("samples", [[5], [3, 2]])
def test_a_batch_of_chunks(samples: list[int]) -> None:
    """One chunk or two, joined in order, writable."""
    buffer, start = BatchBuffer(chunk_format.Layouts(SCHEMA), samples), 0
    for part, count in enumerate(samples):
        rows = {name: values[start : start + count] for name, values in COLUMNS.items()}
        chunk = bytes(chunk_format.encode(SCHEMA, rows))
        buffer.place(part, len(chunk)).write_at(0, chunk)
        buffer.finish(part)
        start += count
    batch = buffer.batch()
    assert list(batch) == ["image", "label", "name"]
    assert batch["image"] == SAMPLES
    assert batch["image"][1].flags.writeable
    assert (batch["label"] == np.arange(5)).all()


@given(st.data())
def test_damaged_chunk(data: st.DataObject) -> None:
    """A DecodeError, or as many samples as were promised; never a crash, and no byte from elsewhere."""
    bad = bytearray(chunk_format.encode(SCHEMA, COLUMNS))
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    del bad[data.draw(st.integers(0, len(bad))) :]
    try:
        decoded = chunk_format.decode(SCHEMA, 5, bad)
    except DecodeError:
        return
    image = decoded["image"]
    assert isinstance(image, Ragged)
    assert sum(map(len, image.tolist())) == len(image.values) <= len(bad)


def test_offsets_that_do_not_fit_their_bytes() -> None:
    """Each way in which the offsets of a verified chunk can lie."""
    schema = schema_of(*columns_of({"image": SAMPLES}, where=""))
    good = chunk_format.encode(schema, {"image": Ragged.of(SAMPLES)})
    at = bytes(good).index(np.array([0, 0, 3, 6], "<u8").tobytes())
    for position, value in ((0, 1), (1, 4), (2, 2**63), (5, 28), (5, 2**64 - 1)):
        bad = bytearray(good)
        bad[at + 8 * position : at + 8 * position + 8] = value.to_bytes(8, "little")
        with pytest.raises(DecodeError, match="image"):
            chunk_format.decode(schema, 5, bad)


def test_a_manifest_promises_no_more_samples_than_its_chunks_have_offsets_for() -> None:
    """Nothing large is allocated for a number that a stranger wrote."""
    schema = Schema.from_wire({"structure": "dict", "columns": [["image", "bytes", []]]})
    assert schema.smallest_sample_bytes == 8
    lie = Manifest(
        schema=schema,
        samples=2**40,
        batch_size=2**40,
        size_bytes=1,
        largest_chunk_bytes=1000,
        first_page=(),
        pages=(),
    )
    with pytest.raises(ManifestError):
        Manifest.decode(lie.encode())

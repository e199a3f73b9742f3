"""`streams.murmur2`: groups live where Java's default partitioner puts them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import murmur2 as module
from streams.murmur2 import CACHED_BYTES_MAX, home_partition, murmur2

# From org.apache.kafka.common.utils.UtilsTest.testMurmur2, which gives signed integers.
KAFKA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", KAFKA)
def test_hashes_like_kafka(key: bytes) -> None:
    assert murmur2(key) == KAFKA[key] & 0xFFFFFFFF


def by_the_book(data: bytes) -> int:
    """Utils.murmur2 line by line, with Java's own steps."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    length = len(data)
    h = (0x9747B28C ^ length) & mask
    for i in range(length // 4):
        i4 = i * 4
        k = data[i4] | data[i4 + 1] << 8 | data[i4 + 2] << 16 | data[i4 + 3] << 24
        k = k * m & mask
        k ^= k >> 24
        k = k * m & mask
        h = h * m & mask
        h ^= k
    rest = length & ~3
    match length % 4:
        case 3:
            h ^= data[rest + 2] << 16 ^ data[rest + 1] << 8 ^ data[rest]
        case 2:
            h ^= data[rest + 1] << 8 ^ data[rest]
        case 1:
            h ^= data[rest]
    if length % 4:
        h = h * m & mask
    h ^= h >> 13
    h = h * m & mask
    return h ^ h >> 15


@given(st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_hashes_like_the_java_source(data: bytes) -> None:
    assert murmur2(data) == by_the_book(data)


@given(st.binary(max_size=20), st.integers(1, 1024))
@settings(max_examples=100, deadline=None)
def test_a_home_is_one_of_the_partitions(key: bytes, partitions: int) -> None:
    home = home_partition(key, partitions)
    assert 0 <= home < partitions
    assert home == (by_the_book(key) & 0x7FFFFFFF) % partitions  # Utils.toPositive, then modulo


def test_long_keys_are_not_kept_in_memory() -> None:
    """A key may weigh as much as a whole task, and the cache holds a hundred thousand."""
    module._cached.cache_clear()
    for size in (CACHED_BYTES_MAX + 1, 700_000):
        assert home_partition(b"k" * size, 8) == (murmur2(b"k" * size) & 0x7FFFFFFF) % 8
    assert module._cached.cache_info().currsize == 0
    home_partition(b"k" * CACHED_BYTES_MAX, 8)
    assert module._cached.cache_info().currsize == 1

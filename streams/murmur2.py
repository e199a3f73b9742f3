"""Kafka's default partitioner: where a group lives.

Source: `org.apache.kafka.common.utils.Utils.murmur2` and `BuiltInPartitioner.partitionForKey`; librdkafka calls the
same thing `murmur2_random` for records that have a key.
"""

from functools import lru_cache
from struct import iter_unpack

M = 0x5BD1E995
MASK = 0xFFFFFFFF
SEED = 0x9747B28C


def murmur2(data: bytes) -> int:
    """The 32-bit hash, unsigned."""
    whole = len(data) & ~3
    h = SEED ^ len(data)
    for (k,) in iter_unpack("<I", data[:whole]):
        k = k * M & MASK
        k ^= k >> 24
        h = (h * M & MASK) ^ (k * M & MASK)
    if tail := data[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * M & MASK
    h ^= h >> 13
    h = h * M & MASK
    return h ^ h >> 15


def home_partition(key: bytes, partitions: int) -> int:
    """The partition, of `partitions`, in which the group with this key lives."""
    return _cached(key, partitions) if len(key) <= CACHED_BYTES_MAX else _home(key, partitions)


def _home(key: bytes, partitions: int) -> int:
    return (murmur2(key) & 0x7FFFFFFF) % partitions


# Keys may weigh as much as a whole task: the cache must not hold on to such.
CACHED_BYTES_MAX = 128
_cached = lru_cache(maxsize=1 << 17)(_home)

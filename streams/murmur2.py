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


@lru_cache(maxsize=1 << 17)
def home_partition(key: bytes, partitions: int) -> int:
    """The partition, of `partitions`, in which the group with this key lives."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions

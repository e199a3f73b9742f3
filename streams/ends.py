"""Where logs end now.  Blocking."""

from collections.abc import Iterable

import confluent_kafka as ck
from confluent_kafka import IsolationLevel
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

ANSWER_S = 10


def log_ends(admin: AdminClient, topic: str, partitions: Iterable[int], *, committed: bool = False) -> dict[int, int]:
    """The end of each partition; `committed`: up to the first open transaction only.  Raises `KafkaException`.

    An AdminClient remembers leader epochs for ever: after a change of leaders it would be refused (FENCED_LEADER_EPOCH)
    until somebody asks for the topic's metadata again.
    """
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    wanted = {ck.TopicPartition(topic, p): latest for p in partitions}
    if not wanted:
        return {}
    admin.list_topics(topic, timeout=ANSWER_S)
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    answers = admin.list_offsets(wanted, isolation_level=level, request_timeout=ANSWER_S)
    return {tp.partition: answer.result().offset for tp, answer in answers.items()}

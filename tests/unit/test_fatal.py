"""Fatal errors of Kafka's clients come out as what they are, and nothing else is taken for one."""

import confluent_kafka as ck
import pytest

from streams.fatal import fatal_errors


def test_a_fatal_error_hidden_by_a_later_callback_is_raised_as_itself() -> None:
    fenced = ck.KafkaException(ck.KafkaError(ck.KafkaError._FENCED, "an old epoch"))
    with pytest.raises(ck.KafkaException) as caught, fatal_errors():
        raise SystemError("returned a result with an exception set") from fenced
    assert caught.value is fenced


def test_what_is_no_error_of_kafka_stays_what_it_is() -> None:
    with pytest.raises(SystemError, match="out of memory"), fatal_errors():
        raise SystemError("out of memory") from ValueError()

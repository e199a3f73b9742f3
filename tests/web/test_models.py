"""The shapes of the HTTP API keep every digit and every name that a browser relies on."""

import json

from pstp.web.models import CommandAnswer, Execution, GroupDetail, Model

BIG = "1970670598291982290"


def test_a_token_above_2_53_stays_text() -> None:
    bar = Execution(
        task_id=BIG, type="t", state="running", attempt=1, token=BIG, worker="w", start_ms=1, end_ms=None, refused=False
    )
    said = json.loads(bar.model_dump_json(by_alias=True))
    assert said["token"] == said["taskId"] == BIG


def test_offsets_are_text() -> None:
    answer = CommandAnswer(command_id="c", outcome=None, partition=0, offset=BIG, refusal=None)
    assert json.loads(answer.model_dump_json(by_alias=True))["offset"] == BIG


def test_names_are_camel_case_in_the_schema() -> None:
    names = GroupDetail.model_json_schema(by_alias=True)["properties"]
    assert {"group", "state", "explanation", "executions", "parked", "groupState", "partition", "older"} == set(names)
    assert issubclass(GroupDetail, Model)

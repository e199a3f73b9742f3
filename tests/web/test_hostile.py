"""What nobody means to send: schemathesis over the OpenAPI document, and texts that break other people's servers."""

import os
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from tests.web.conftest import Served
from tests.web.test_read_model import HOSTILE

EXAMPLES = int(os.environ.get("PSTP_API_EXAMPLES", "4"))


@pytest.mark.long
def test_requests_made_from_the_schema_never_break_the_server(served: Served) -> None:
    document = served.get("/api/openapi.json")
    schema = schemathesis.openapi.from_dict(document)
    served.system.publish("known", payload={"n": 1})
    served.system.flush()
    served.settled("known", "idle")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 20
    for operation in operations:
        if operation.path != "/api/stream":  # never ends
            _try(served, operation)
    assert served.process.alive() and served.client.get("/readyz").status_code == 200


def _try(served: Served, operation: Any) -> None:
    @hypothesis.given(case=operation.as_strategy())
    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate],
    )  # fmt: skip
    def check(case: Any) -> None:
        if case.query and "wait_s" in case.query:
            case.query["wait_s"] = 0
        answer = case.call(base_url=served.url)
        case.validate_response(answer, checks=[not_a_server_error, response_schema_conformance])

    check()


READS = ["/api/groups/detail", "/api/tasks/detail", "/api/tasks/payload"]
FILTERS = [("/api/groups", "q"), ("/api/groups", "state"), ("/api/tasks", "group"), ("/api/tasks", "type"),
           ("/api/dead-letters", "reason"), ("/api/dead-letters", "group")]  # fmt: skip
MORE = [
    "",
    "\ud7ff",
    "\U0001f9e8",
    "0",
    "-1",
    "9" * 400,
    "null",
    "true",
    "[]",
    "{}",
    "a\r\nset-cookie: x=1",
    "\x7f\x1b[31m",
]


@pytest.mark.parametrize("text", HOSTILE + MORE)
def test_hostile_texts_are_answered_by_every_route(served: Served, text: str) -> None:
    for path in READS:
        answer = served.client.get(path, params={"id": text})
        assert answer.status_code in ((404, 200) if text else (422,)), (path, answer.text)
    for path, name in FILTERS:
        assert served.client.get(path, params={name: text}).status_code == 200, (path, name)
    for path in ("/api/groups", "/api/tasks", "/api/dead-letters"):
        assert served.client.get(path, params={"cursor": text}).status_code in (200, 422)
    body = {"kind": "edit_head", "payload": text, "note": text[:1000], "task_id": text[:200] or None}
    answer = served.client.post("/api/commands", params={"group": text or "x"}, json=body)
    assert answer.status_code in (200, 422), answer.text
    answer = served.client.post(
        "/api/bulk", json={"kind": "pause_group", "filter": {"q": text or "x"}, "dry_run": True}
    )
    assert answer.status_code == 202, answer.text
    assert "x" not in answer.cookies


@pytest.mark.parametrize("text", ["a\x00b", "a/b", "%_\\"])
def test_a_redrive_of_a_hostile_group_is_counted(served: Served, text: str) -> None:
    asked = {"filter": {"group": text, "task_id": text, "type": text, "reason": text}, "dry_run": True}
    assert served.post("/api/redrives", asked)["total"] == 0


def test_tasks_with_hostile_types_ids_and_payloads_are_told_as_they_are(served: Served) -> None:
    for n, text in enumerate(HOSTILE):
        fields = {"group": f"hostile-{n}", "type": "echo", "payload": {text: text}, "labels": {text: text}}
        if len(text) <= 200:
            fields["id"] = text
        sent = served.post("/api/tasks", fields)
        served.settled(f"hostile-{n}", "idle")
        task = served.get("/api/tasks/detail", id=sent["taskId"], group=f"hostile-{n}")
        assert task["state"] == "succeeded" and task["taskId"] == sent["taskId"]
        if len(text) <= 200:
            assert task["taskId"] == text

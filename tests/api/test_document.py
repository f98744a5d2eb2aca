"""docs/api.md and the application say the same, in both directions."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.problems import _STATUS_BY_CODE
from tests.api.asgi import API
from tests.api.bench import Bench, opened

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
HEADING = re.compile(r"^### ([A-Z]+) (/\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with opened() as bench:
        yield bench


def operations(bench: Bench) -> set[tuple[str, str]]:
    described = bench.get("/openapi.json")["paths"]
    return {(method.upper(), path.removeprefix(API)) for path, methods in described.items() for method in methods}


def sections() -> dict[tuple[str, str], str]:
    found = list(HEADING.finditer(TEXT))
    ends = [*(match.start() for match in found[1:]), len(TEXT)]
    return {(match[1], match[2]): TEXT[match.end() : end] for match, end in zip(found, ends, strict=True)}


def test_every_endpoint_is_in_the_document_and_the_other_way_round(bench: Bench) -> None:
    assert len(sections()) == len(HEADING.findall(TEXT))
    assert set(sections()) == operations(bench)
    assert len(sections()) > 30


def test_every_endpoint_has_an_example_that_calls_it() -> None:
    for (method, path), text in sections().items():
        pattern = re.sub(r"\\\{\w+\\\}", r"[a-z0-9-]+", re.escape(path))
        (example,) = re.findall(r"(?:^    .*\n)+", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
        assert "curl" in example, (method, path)
        assert re.search(rf'\$SERVER{pattern}(?:[?" \n]|$)', example), (method, path)
        assert ("-X DELETE" in example) == (method == "DELETE"), path
        assert bool(re.search(r"-X POST|-d ", example)) == (method == "POST"), path


def test_every_field_that_can_be_sent_is_in_its_section(bench: Bench) -> None:
    described = bench.get("/openapi.json")
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            text = sections()[method.upper(), path.removeprefix(API)]
            names = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"}
            schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            for reference in re.findall(r"#/components/schemas/(\w+)", str(schema)):
                names |= set(described["components"]["schemas"][reference].get("properties", ()))
            if path.endswith("/quotes"):
                assert "The body is the same" in text
                continue
            missing = {name for name in names if name not in text}
            if path.endswith("/check"):
                missing -= {"text", "source"}
            assert missing == set(), (method, path)


def test_every_status_that_an_endpoint_may_answer_by_itself_is_in_its_section(bench: Bench) -> None:
    for path, methods in bench.get("/openapi.json")["paths"].items():
        for method, operation in methods.items():
            text = sections()[method.upper(), path.removeprefix(API)]
            for status in set(operation["responses"]) - {"422"}:
                assert status in text, (method, path, status)


def test_every_code_of_accounts_is_in_the_table() -> None:
    table = TEXT[TEXT.index("| status | code | when |") : TEXT.index("## Reservations")]
    told = {
        code: int(row[0])
        for row in re.findall(r"^\| (\d{3}) \| (.*?) \|", table, re.MULTILINE)
        for code in re.findall(r"`(.*?)`", row[1])
    }
    assert {code: told.get(code) for code in _STATUS_BY_CODE if code != "user.bad_role"} == {
        code: status for code, status in _STATUS_BY_CODE.items() if code != "user.bad_role"
    }


def test_the_description_names_no_other_place(bench: Bench) -> None:
    answer = bench.send("GET", "/openapi.json", user=None)
    assert answer.status == 200
    assert b"http://" not in answer.body
    assert b"https://" not in answer.body
    assert bench.connection.send("GET", "/docs").status == 404
    assert bench.connection.send("GET", f"{API}/docs").status == 404

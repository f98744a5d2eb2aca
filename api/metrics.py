"""Metrics in the text format of Prometheus: what `doctor` finds, as numbers. Holds no check of its own."""

from collections.abc import Iterable

from fastapi import APIRouter, Response
from starlette.responses import PlainTextResponse

from api.identity import Admin
from api.services import Given
from api.status import look
from scheduler.service.doctor import Check

router = APIRouter(tags=["status"])

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(user: Admin, services: Given) -> Response:
    """Say what is well and what is not, as Prometheus reads it."""
    rules = services.plans.current().rules
    return Response(metrics_text(look(services), version=0 if rules is None else rules.version), media_type=MEDIA_TYPE)


def metrics_text(checks: Iterable[Check], *, version: int) -> str:
    """Write checks as metrics."""
    return "\n".join(
        [
            "# HELP nightshift_check_ok Whether a part is well, by the checks of nightshift doctor.",
            "# TYPE nightshift_check_ok gauge",
            *(f'nightshift_check_ok{{check="{_escaped(check.name)}"}} {int(check.is_ok)}' for check in checks),
            "# HELP nightshift_policy_version The version of the policy that holds; 0 when none does.",
            "# TYPE nightshift_policy_version gauge",
            f"nightshift_policy_version {version}",
            "",
        ]
    )


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

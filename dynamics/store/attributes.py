"""What a trace says of itself, checked where it is opened: its metadata are files, and a file may hold any JSON.

Only what this program reads is checked; what else there is stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from checkpoints.errors import UserError

__all__ = ["check_attributes", "check_dictionary"]


class _Known(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Named(_Known):
    name: str


class _World(_Known):
    from_step: int
    share: float


class _SeriesSaid(_Known):
    kind: str = ""
    curriculum: dict[str, _World] = Field(default_factory=dict)


class _Run(_Known):
    description: str = ""
    series: _SeriesSaid = Field(default_factory=_SeriesSaid)
    analyses: list[_Named] = Field(default_factory=list)
    schedule: str = ""
    checkpoints: int | None = Field(None, ge=2)
    budget: int | None = Field(None, ge=2)


class _Declared(_Known):
    checkpoints: dict[str, Any] = Field(default_factory=dict)


class _Attributes(_Known):
    run_config: _Run | None = None
    declared: _Declared | None = None
    model_config_: dict[str, Any] = Field(default_factory=dict, alias="model_config")
    fingerprint: str = ""
    origin: str = ""
    step_counts: str = ""


class _Dictionary(_Known):
    key: str
    method: str
    site: str
    layer: int | None
    joint: bool
    remarks: list[str] = Field(default_factory=list)


def check_attributes(attributes: Mapping[str, Any], path: Path) -> None:
    """Refuse root attributes of another form than a trace has.

    Raises:
        UserError: with the attribute.
    """
    _check(
        _Attributes, dict(attributes), f"the trace {path}", "restore its zarr.json, or move the trace away and collect"
    )


def check_dictionary(settings: Any, path: Path, name: str) -> None:
    """Refuse settings of another form than a dictionary in a trace has.

    Raises:
        UserError: with the setting.
    """
    what = f"the dictionary {name!r} in {path}"
    _check(_Dictionary, settings, what, "read the prompts again: dynamics learn RUN --fresh")


def _check(model: type[BaseModel], content: Any, what: str, remedy: str) -> None:
    try:
        model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "what it says of itself"
        raise UserError(
            f"{what} is damaged: {where}: {first['msg']}", expected="what this program wrote there", remedy=remedy
        ) from error

"""How prompts are written for a model, as the runs file says it: as they are, or as a chat."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["TemplateConfig"]


class TemplateConfig(BaseModel):
    """How prompts are written for the model; the name alone is enough."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["plain", "chat"] = Field(
        description="plain: as they are; chat: by the tokenizer's chat template, as a user's message to be answered."
    )
    system: str | None = Field(
        None, description="chat: the system's text; without it, what the template puts there by itself."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _system_of_a_chat(self) -> TemplateConfig:
        if self.system is not None and self.name != "chat":
            raise ValueError("`system` goes with `name: chat`: plain prompts have no system's text")
        return self

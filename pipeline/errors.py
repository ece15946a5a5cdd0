"""The shape every error of the project has: *subject: expected X, got Y (hint)*."""

from __future__ import annotations

from typing import Any


class SentenceError(Exception):
    """An error that reads as one sentence and keeps its parts as fields.

    subject:   what the sentence is about (a file, an image, a zone), as the user named it.
    expected:  what was expected of it; may be empty when only `got` says something.
    got:       what came instead.
    hint:      what to do about it; may be empty.
    temporary: True when the same call may succeed later without any change.
    """

    def __init__(self, subject: str, *, got: str, expected: str = "", hint: str = "", temporary: bool = False) -> None:
        self.subject, self.expected, self.got, self.hint, self.temporary = subject, expected, got, hint, temporary
        body = f"expected {expected}, got {got}" if expected else got
        super().__init__(f"{subject}: {body}" + (f" ({hint})" if hint else ""))

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle by their args, which here are one finished sentence; parallel workers need the fields.
        fields = {
            "subject": self.subject,
            "expected": self.expected,
            "got": self.got,
            "hint": self.hint,
            "temporary": self.temporary,
        }
        return (_rebuild, (type(self), fields))


def _rebuild(cls: type[SentenceError], fields: dict[str, Any]) -> SentenceError:
    subject = fields.pop("subject")
    return cls(subject, **fields)


class PipelineError(SentenceError):
    """Root of every error the pipeline raises on purpose."""


class DigestMismatch(PipelineError):
    """Bytes that do not hash (or count) to what names them."""


class StoreDamaged(PipelineError):
    """An object of the store is missing or altered."""

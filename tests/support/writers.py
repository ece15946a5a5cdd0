"""How often the squashfs writer works."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.squashfs import image


class WriterRuns:
    """`count`: the images written since this was made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        original = image._write_image

        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            return original(*arguments, **options)

        monkeypatch.setattr(image, "_write_image", counted)

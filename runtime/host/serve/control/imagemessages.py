"""Images in the words of the API: formats, progress, who asks, what there is."""

from __future__ import annotations

import base64
import binascii

from pipeline.store import Store
from runtime.host.api import common_pb2 as pb
from runtime.host.daemon.errors import BadRequest
from runtime.host.images.catalog import Entry
from runtime.host.images.model import Credentials, Format, LayerPhase, LayerProgress, Packed, Phase, Progress
from runtime.host.serve.answers import NotServed

_FORMATS = {
    pb.OCI_IMAGE_FORMAT_UNKNOWN: Format.SQUASHFS,
    pb.OCI_IMAGE_FORMAT_SQUASHFS: Format.SQUASHFS,
    pb.OCI_IMAGE_FORMAT_EROFS: Format.EROFS,
    pb.OCI_IMAGE_FORMAT_TAR: Format.TAR,
}
_NUMBERS = {
    Format.SQUASHFS: pb.OCI_IMAGE_FORMAT_SQUASHFS,
    Format.EROFS: pb.OCI_IMAGE_FORMAT_EROFS,
    Format.TAR: pb.OCI_IMAGE_FORMAT_TAR,
}
_LAYER_PHASES = {
    LayerPhase.WAITING: pb.OCI_IMAGE_PROGRESS_LAYER_PHASE_WAITING,
    LayerPhase.DOWNLOADING: pb.OCI_IMAGE_PROGRESS_LAYER_PHASE_DOWNLOADING,
    LayerPhase.EXTRACTED: pb.OCI_IMAGE_PROGRESS_LAYER_PHASE_EXTRACTED,
}


def format_of(number: pb.OciImageFormat) -> Format:
    """The format of a request; UNKNOWN is squashfs. Raises NotServed for the directory, BadRequest for no format."""
    if number == pb.OCI_IMAGE_FORMAT_DIRECTORY:
        raise NotServed("image format", got="DIRECTORY", hint="no image is ever extracted on the host")
    if number not in _FORMATS:
        raise BadRequest("image format", expected="SQUASHFS, EROFS or TAR", got=str(number))
    return _FORMATS[number]


def credentials(auth: pb.OciRegistryAuthentication) -> Credentials | None:
    """Who the caller is to the registry. Raises BadRequest, which quotes nothing of it."""
    match auth.WhichOneof("authentication_method"):
        case "username_password":
            return Credentials(auth.username_password.username, auth.username_password.password)
        case "raw_basic_auth":
            return _basic(auth.raw_basic_auth)
        case "identity_token":
            return Credentials(identity_token=auth.identity_token)
        case "registry_token":
            return Credentials(registry_token=auth.registry_token)
        case _:
            return None


def _basic(text: str) -> Credentials:
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise BadRequest("auth: raw_basic_auth", expected="base64 of USER:PASSWORD", got="something else")
    return Credentials(user, password)


def progress_message(progress: Progress) -> pb.OciImageProgress:
    """Where a pull is."""
    name = progress.phase.name
    message = pb.OciImageProgress(
        phase=pb.OciImageProgressPhase.Value(f"OCI_IMAGE_PROGRESS_PHASE_{name}"), layers=map(_layer, progress.layers)
    )
    if progress.phase is Phase.COMPLETE:
        message.indication.completed.message = progress.phase.value
    elif progress.total_bytes:
        _bar(message.indication.bar, progress.phase.value, progress.done_bytes, progress.total_bytes)
    else:
        message.indication.spinner.message = progress.phase.value
    return message


def _layer(layer: LayerProgress) -> pb.OciImageProgressLayer:
    message = pb.OciImageProgressLayer(id=layer.id, phase=_LAYER_PHASES[layer.phase])
    if layer.phase is LayerPhase.DOWNLOADING:
        _bar(message.indication.bar, "downloading", layer.done_bytes, layer.total_bytes)
    elif layer.phase is LayerPhase.EXTRACTED:
        done = message.indication.completed
        done.message, done.total, done.is_bytes = "downloaded", layer.total_bytes, True
    else:
        message.indication.hidden.SetInParent()
    return message


def _bar(bar: pb.OciImageProgressIndicationBar, text: str, done: int, total: int) -> None:
    bar.message, bar.current, bar.total, bar.is_bytes = text, min(done, total), total, True


def spec_message(packed: Packed) -> pb.OciImageSpec:
    """By what an image is meant from then on."""
    return pb.OciImageSpec(digest=str(packed.digest), format=_NUMBERS[packed.format])


def metadata_message(store: Store, packed: Packed) -> pb.OciImageMetadata:
    """The image's documents, as they came. Raises StoreDamaged."""
    return pb.OciImageMetadata(manifest=store.read(packed.manifest.digest), config=store.read(packed.config.digest))


def info_message(store: Store, entry: Entry) -> pb.OciImageInfo:
    """An image that is there."""
    spec = spec_message(entry.packed)
    metadata = metadata_message(store, entry.packed)
    return pb.OciImageInfo(digest=spec.digest, format=spec.format, names=entry.names, metadata=metadata)

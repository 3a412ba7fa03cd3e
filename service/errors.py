"""What can go wrong, as one tree of exceptions that know nothing of HTTP.

SegserveError
|- PictureError             the request's picture cannot be used
|  |- PictureMissing        there is none, or it is empty
|  |- PictureFormatError    the bytes are no picture of an accepted format
|  |- PictureCorrupt        a known format, but broken or cut off
|  `- PictureTooLarge       more bytes or pixels than the limit
|- RequestError             the request around the picture cannot be understood
|  |- MalformedBody         broken multipart, or two pictures
|  |- BodyTypeError         a Content-Type that holds no picture
|  |- MalformedRequest      no HTTP that is understood in one way only
|  |- HeadTooLarge          its line and headers are too long
|  |- SlowHead              its line and headers did not arrive in time
|  |- SlowUpload            the body did not arrive in time
|  |- TensorError           a tensor that the model does not take, or does not give
|  |- UpgradeRequired       a plain request for what only a websocket gives
|  |- KeyMissing            there is no key, where one is needed
|  |- Forbidden             what this caller may not do
|  |- ParameterError        a parameter of the wrong type or range
|  `- NotAcceptable         no view that the client accepts
|- ModelError               the request's model cannot be used
|  |- ModelRequired         none was named and none is the default
|  |- UnknownModel          no model or version of that name
|  |- UnknownCard           the model's bundle has no card
|  |- ModelUnloaded         an administrator does not want it served
|  `- ModelNotReady         it is loading, or none of its versions is usable
|- ResultError              a stored result cannot be given
|  |- UnknownResult         it never was, has expired, or was forgotten
|  |- ResultsOff            this deployment keeps none
|  |- StoreFull             there is no room to keep it
|  `- StoreUnavailable      the store does not answer
|- NotPossible              this machine or deployment lacks what the answer needs
|- BundleError              a bundle in the model repository is refused
|- Overloaded               the estimated wait exceeds the deadline
|- TooManyConnections       all that may be open are in use
|- Draining                 the server is about to end and takes no more work
|- StateUnavailable         which models are to be served cannot be read or written
`- DeadlineExceeded         the deadline passed before the answer was there
"""

from __future__ import annotations


class SegserveError(Exception):
    """The root: `str()` names the value, the rule and the way out."""


class PictureError(SegserveError):
    """The request's picture cannot be used."""


class PictureMissing(PictureError):
    """There is no picture, or it is empty."""


class PictureFormatError(PictureError):
    """The bytes are no picture of an accepted format."""


class PictureCorrupt(PictureError):
    """A picture of a known format that is broken or cut off."""


class PictureTooLarge(PictureError):
    """More bytes or pixels than the limit; `actual` is None where counting stopped at the limit."""

    def __init__(self, message: str, *, limit: int, actual: int | None) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual


class RequestError(SegserveError):
    """The request around the picture cannot be understood."""


class MalformedBody(RequestError):
    """Broken multipart, or more than one picture."""


class BodyTypeError(RequestError):
    """A Content-Type that holds no picture."""


class MalformedRequest(RequestError):
    """No HTTP that is understood in one way only."""


class HeadTooLarge(RequestError):
    """The request's line and headers are too long."""


class SlowHead(RequestError):
    """The request's line and headers did not arrive in time."""


class SlowUpload(RequestError):
    """The body did not arrive in time."""


class TensorError(RequestError):
    """A tensor that the model does not take, or does not give; the message says what it does."""


class UpgradeRequired(RequestError):
    """A plain request for what only a websocket gives."""


class KeyMissing(RequestError):
    """There is no key, where one is needed."""


class Forbidden(RequestError):
    """What this caller may not do."""


class ParameterError(RequestError):
    """A parameter of the wrong type or range."""


class NotAcceptable(RequestError):
    """The client accepts no view that there is."""


class ModelError(SegserveError):
    """The request's model cannot be used."""


class ModelRequired(ModelError):
    """The request names no model and none is the default."""


class UnknownModel(ModelError):
    """No model or version of that name."""


class UnknownCard(ModelError):
    """The model's bundle has no card."""


class ModelNotReady(ModelError):
    """The model is loading, or none of its versions is usable."""


class ModelUnloaded(ModelError):
    """An administrator does not want the model served."""


class ResultError(SegserveError):
    """A stored result cannot be kept or given."""


class UnknownResult(ResultError):
    """There is no such result: it never was, has expired, was evicted or forgotten; the message says which."""


class ResultsOff(ResultError):
    """Results are not kept in this deployment."""


class StoreFull(ResultError):
    """The store has no room for a result."""


class StoreUnavailable(ResultError):
    """The store does not answer, or cannot be written."""


class NotPossible(SegserveError):
    """The machine, or the deployment, lacks what the answer needs; the message says what."""


class BundleError(SegserveError):
    """A bundle in the model repository is refused; the message names the folder and the reason."""


class Overloaded(SegserveError):
    """The estimated wait exceeds the deadline; after `retry_after` seconds there should be room."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StateUnavailable(SegserveError):
    """Which models are to be served cannot be read or written."""


class TooManyConnections(SegserveError):
    """All connections that may be open are in use."""


class Draining(SegserveError):
    """The server is about to end and takes no more work."""


class DeadlineExceeded(SegserveError):
    """The deadline passed before the answer was there."""

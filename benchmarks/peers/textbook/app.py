"""The app of a FastAPI tutorial: `uvicorn app:app`."""

from fastapi import FastAPI, Form, UploadFile
from fastapi.responses import Response
from work import Work, media_type

app = FastAPI()
work = Work()


@app.post("/segment")
def segment(image: UploadFile, output: str = Form()) -> Response:
    """Runs in FastAPI's thread pool."""
    return Response(work(image.file.read(), output), media_type=media_type(output))

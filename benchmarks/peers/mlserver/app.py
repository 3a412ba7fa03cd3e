"""MLServer: a runtime of its own kind; pictures and answers travel as base64 in Open Inference Protocol JSON."""

import base64

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from work import Work


class Segment(MLModel):
    """One worker."""

    async def load(self) -> bool:
        """Open the net."""
        self.work = Work()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The picture's work."""
        data, output = (tensor.data.root[0] for tensor in payload.inputs)
        done = self.work(base64.b64decode(data), output)
        text = base64.b64encode(done).decode()
        result = ResponseOutput(name=output, shape=[1], datatype="BYTES", data=[text])
        return InferenceResponse(model_name=self.name, outputs=[result])

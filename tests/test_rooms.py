"""The rooms keep apart: the service works where torch, onnx and the other rooms cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bundles import write_bundle

ROOT = Path(__file__).parent.parent

ISOLATED = """
import asyncio, sys
from io import BytesIO

class Blocked:
    def find_spec(self, name, path=None, target=None):
        optional = name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))
        if optional or name.partition(".")[0] in {"torch", "onnx", "onnxscript", "safetensors", "training", "export"}:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())

import httpx
from PIL import Image
from service.app import create_app
from service.settings import Settings

async def main():
    app = create_app(Settings(models=sys.argv[1]))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            while (await client.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.05)
            file = BytesIO()
            Image.new("RGB", (40, 30), "lime").save(file, "PNG")
            answer = await client.post("/segment", files={"image": file.getvalue()})
            print(answer.status_code, answer.json()["classes"][0]["name"])

asyncio.run(main())
"""


def test_the_service_answers_where_torch_and_onnx_cannot_be_imported(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    command = [sys.executable, "-c", ISOLATED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "200 green\n", done.stderr


def test_importing_the_service_or_the_command_line_imports_no_torch() -> None:
    for module in ("service.app", "service.cli", "segserve", "segserve.cli"):
        program = f"import sys, {module}; print(sorted({{'torch', 'onnx', 'training', 'export'}} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout == "[]\n"


def test_the_command_line_imports_the_service_only_to_serve() -> None:
    program = "import sys, segserve.cli; print('service' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


def test_the_import_rules_hold() -> None:
    command = [Path(sys.executable).parent / "lint-imports"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_two_apps_in_one_process_do_not_meet(tmp_path: Path) -> None:
    from service.app import create_app
    from service.settings import Settings

    one, other = (create_app(Settings(models=tmp_path / name)) for name in ("one", "other"))
    assert one.state.repository is not other.state.repository
    assert one.state.settings.models != other.state.settings.models

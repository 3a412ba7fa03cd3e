"""Names of models in (separated by spaces or commas), a model folder with those out: what goes into the image.

usage: choose_models.py SOURCE TARGET NAMES
"""

import json
import shutil
import sys
from pathlib import Path


def main(source: Path, target: Path, names: str) -> None:
    """Copy the named models from one model folder to another."""
    chosen = names.replace(",", " ").split()
    known = sorted({path.parent.parent.name for path in source.glob("*/*/model.json")})
    unknown = [name for name in chosen if name not in known]
    if unknown:
        sys.exit(f"MODELS: there is no model {', '.join(unknown)} in models/; there are: {', '.join(known)}")
    target.mkdir()
    for name in chosen:
        # The service never opens the weights: they are for training.
        shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("weights.safetensors"))
        for path in sorted(target.glob(f"{name}/*/model.json")):
            manifest = json.loads(path.read_text())
            print(f"{name} {manifest['version']}, licence: {manifest['license']}")  # noqa: T201
    _copy_policy(source / "repository.json", target / "repository.json", chosen)


def _copy_policy(source: Path, target: Path, chosen: list[str]) -> None:
    """Keep what it says of the chosen models: a default that is not there would keep the service from being ready."""
    policy = json.loads(source.read_text()) if source.exists() else {}
    kept = {"pin": {name: version for name, version in policy.get("pin", {}).items() if name in chosen}}
    if policy.get("default") in chosen:
        kept["default"] = policy["default"]
    if any(kept.values()):
        target.write_text(json.dumps(kept) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])

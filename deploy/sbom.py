"""A root file system in, its bill of materials (CycloneDX) out: the packages of Debian and of Python, and the models.

usage: sbom.py ROOT
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

STATUS = "var/lib/dpkg/status"
SITES = "opt/segserve/lib/python3*/site-packages"
MODELS = "models/*/*/model.json"
ITSELF = "segserve"

LONGEST_LICENCE = 100
"""Characters; what is longer is the licence's text where its name should be."""


def bill(root: Path) -> Bom:
    """Of the file system below `root`. Raises SystemExit where segserve is not in it."""
    bom = Bom()
    for component in (*_debian(root / STATUS), *_python(root), *_models(root)):
        if component.name == ITSELF and component.type is ComponentType.LIBRARY:
            component.type = ComponentType.APPLICATION
            bom.metadata.component = component
        else:
            bom.components.add(component)
    if bom.metadata.component is None:
        sys.exit(f"{root}: {ITSELF} is not installed in {SITES}")
    bom.register_dependency(bom.metadata.component, bom.components)
    return bom


def _debian(status: Path) -> Iterator[Component]:
    """What is installed, by dpkg's own file; its licences are in /usr/share/doc/*/copyright."""
    for stanza in status.read_text().strip().split("\n\n"):
        package = HeaderParser().parsestr(stanza)
        if package["Status"].endswith(" installed"):
            name, version, architecture = package["Package"], package["Version"], package["Architecture"]
            purl = PackageURL("deb", "debian", name, version, {"arch": architecture})
            yield Component(name=name, version=version, purl=purl, bom_ref=str(purl))


def _python(root: Path) -> Iterator[Component]:
    for found in distributions(path=[str(site) for site in sorted(root.glob(SITES))]):
        name, version = found.metadata["Name"], found.version
        purl = PackageURL("pypi", None, name.lower().replace("_", "-"), version)
        yield Component(name=name, version=version, purl=purl, bom_ref=str(purl), licenses=_licences(found))


def _licences(found: Distribution) -> list[DisjunctiveLicense | LicenseExpression]:
    """What a package says of itself, in the newest of the ways in which packages do."""
    metadata, factory = found.metadata, LicenseFactory()
    plain = metadata.get("License-Expression") or metadata.get("License") or ""
    if plain and len(plain) < LONGEST_LICENCE:
        return [factory.make_from_string(plain)]
    classified = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License :: ")]
    return [factory.make_with_name(line.rpartition(" :: ")[2]) for line in classified]


def _models(root: Path) -> Iterator[Component]:
    for path in sorted(root.glob(MODELS)):
        manifest = json.loads(path.read_text())
        name, version = manifest["name"], str(manifest["version"])
        files = [
            (file, digest)
            for file, digest in sorted(manifest.get("sha256", {}).items())
            if (path.parent / file).exists()
        ]
        yield Component(
            type=ComponentType.MACHINE_LEARNING_MODEL,
            name=name,
            version=version,
            description=manifest.get("description"),
            bom_ref=f"model:{name}@{version}",
            licenses=[LicenseFactory().make_from_string(manifest["license"])],
            components=[
                Component(
                    type=ComponentType.FILE,
                    name=file,
                    bom_ref=f"model:{name}@{version}/{file}",
                    hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
                )
                for file, digest in files
            ],
        )


if __name__ == "__main__":
    print(JsonV1Dot6(bill(Path(sys.argv[1]))).output_as_string(indent=1))  # noqa: T201

# segserve as a container image; docs/deployment.md says how to build and run it.
# To pin the base, pass its digest: --build-arg BASE=docker.io/library/debian:trixie-slim@sha256:...
ARG BASE=docker.io/library/debian:trixie-slim

FROM ${BASE} AS python
# Not pinned to a version: Debian stable changes only by security fixes, and keeps no older version to install.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*

FROM python AS models
# Which models go into the image, by name: "one,two"; by default those that are free for any use.
ARG MODELS="nuclei-unet"
COPY models /source
COPY deploy/choose_models.py /
RUN python3 /choose_models.py /source /models "${MODELS}" \
    && chmod -R a+rX /models

FROM python AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /build
COPY deploy/requirements.txt deploy/build-requirements.txt deploy/
# Behind a proxy that inspects TLS, its certificate authority is given as the secret `ca`; where none is given, the
# file is absent and Debian's authorities hold.
ENV SSL_CERT_FILE=/run/secrets/ca \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
# pip stays in an environment of its own, beside the one that goes into the image.
RUN --mount=type=secret,id=ca \
    python3 -m venv tools \
    && python3 -m venv --without-pip /opt/segserve \
    && tools/bin/pip install --require-hashes --only-binary :all: --requirement deploy/build-requirements.txt \
    && tools/bin/pip --python /opt/segserve/bin/python install \
        --require-hashes --only-binary :all: --requirement deploy/requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY segserve segserve
COPY service service
COPY export export
COPY training training
RUN tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir dist . \
    && tools/bin/pip --python /opt/segserve/bin/python install --no-index --no-deps dist/*.whl
# The machine code of the compiled functions, for any processor of the kind; it is found on a read-only root.
ENV NUMBA_CPU_NAME=generic \
    NUMBA_CACHE_LOCATOR_CLASSES=service.compiled.BuiltIn
RUN /opt/segserve/bin/python -P -m service.warm
COPY --chmod=644 deploy/healthcheck.py /opt/segserve/
# What the image is made of: Debian's packages, Python's and the models, with their licences.
COPY --from=python /var/lib/dpkg/status /inventory/var/lib/dpkg/status
COPY --from=models /models /inventory/models
COPY deploy/sbom.py deploy/
RUN ln -s /opt /inventory/opt \
    && tools/bin/python deploy/sbom.py /inventory > /opt/segserve/sbom.cdx.json

FROM python
COPY --from=build /opt/segserve /opt/segserve
COPY --from=models /models /models
# ORT_DISABLE_TELEMETRY: else onnxruntime's published builds report to Microsoft how they are used.
ENV PATH=/opt/segserve/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SEGSERVE_HOST=0.0.0.0 \
    SEGSERVE_MODELS=/models \
    ORT_DISABLE_TELEMETRY=1 \
    NUMBA_CPU_NAME=generic \
    NUMBA_CACHE_LOCATOR_CLASSES=service.compiled.BuiltIn
# By number: an orchestrator that allows no root can tell only then that this is not root.
USER 65532:65532
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "/opt/segserve/healthcheck.py"]
ENTRYPOINT ["segserve"]
CMD ["serve"]
# The licence is that of the software; each model in /models says its own.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="segserve" \
    org.opencontainers.image.description="Semantic segmentation as a service" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

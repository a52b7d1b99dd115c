# The server's image. Targets: mlserver (all methods through an endpoint), mlserver-tensorflow (and in process), kserve.
#
#   docker build --target mlserver --tag explainer-runtime:0.2.0 \
#     --build-arg PYTHON=python:3.11-slim-bookworm@sha256:... --build-arg REVISION="$(git rev-parse HEAD)" .
#   docker build --target mlserver-tensorflow --tag explainer-runtime:0.2.0-tensorflow ... .
#   buildah bud --format docker --target mlserver ... .
#
# BuildKit, Buildah and Podman build it alike. A build that is released names its base by digest, as above; the
# default is for trying things out. Packages are pinned by deploy/image/requirements.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
COPY deploy/image /image
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r /image/requirements/build.txt \
    && python3 -m venv --without-pip /opt/explainer
COPY pyproject.toml README.md LICENSE ./
COPY explainer_runtime explainer_runtime
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# Each of these installs a target's packages, and imports what serving does: bytecode of that, and of nothing else,
# comes with the image, and a package that is missing is found here.
FROM build AS packages-mlserver
RUN /opt/build/bin/pip --python /opt/explainer install --no-cache-dir --no-compile --no-deps --only-binary :all: \
      --require-hashes -r /image/requirements/mlserver.txt \
    && /opt/build/bin/pip --python /opt/explainer install --no-cache-dir --no-compile --no-deps --no-index /wheels/*.whl \
    && sh /image/slim.sh /opt/explainer \
    && /opt/explainer/bin/python /image/imports.py mlserver

FROM build AS packages-mlserver-tensorflow
RUN /opt/build/bin/pip --python /opt/explainer install --no-cache-dir --no-compile --no-deps --only-binary :all: \
      --require-hashes -r /image/requirements/mlserver-tensorflow.txt \
    && /opt/build/bin/pip --python /opt/explainer install --no-cache-dir --no-compile --no-deps --no-index /wheels/*.whl \
    && sh /image/slim.sh /opt/explainer \
    && /opt/explainer/bin/python /image/imports.py mlserver tensorflow

FROM build AS packages-kserve
RUN /opt/build/bin/pip --python /opt/explainer install --no-cache-dir --no-compile --no-deps --only-binary :all: \
      --require-hashes -r /image/requirements/kserve.txt \
    && /opt/build/bin/pip --python /opt/explainer install --no-cache-dir --no-compile --no-deps --no-index /wheels/*.whl \
    && sh /image/slim.sh /opt/explainer \
    && /opt/explainer/bin/python /image/imports.py kserve

FROM ${PYTHON} AS base
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="explainer-runtime" \
      org.opencontainers.image.description="Explanations of image classifiers, next to the model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The root is read-only in a cluster: what needs a home gets /tmp. In a container loopback would reach nobody.
ENV PATH=/opt/explainer/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MLSERVER_HOST=0.0.0.0
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080 8081 8082
HEALTHCHECK --start-period=60s --interval=30s --timeout=5s \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('MLSERVER_HTTP_PORT', '8080') + '/v2/health/live', timeout=4)"]
# Arguments of a pod come after these words, so KServe and Seldon need to say no command.
ENTRYPOINT ["explainer-runtime", "serve"]

FROM base AS kserve
COPY --from=packages-kserve /opt/explainer /opt/explainer
ENV EXPLAINER_RUNTIME_SERVER=kserve

FROM base AS mlserver-tensorflow
COPY --from=packages-mlserver-tensorflow /opt/explainer /opt/explainer
# The name by which Seldon Core 1 asks for an explainer.
COPY deploy/image/mlserver_alibi_explain /opt/image/mlserver_alibi_explain
ENV PYTHONPATH=/opt/image

# The last one is what a build without a target makes.
FROM base AS mlserver
COPY --from=packages-mlserver /opt/explainer /opt/explainer
COPY deploy/image/mlserver_alibi_explain /opt/image/mlserver_alibi_explain
ENV PYTHONPATH=/opt/image

# syntax=docker/dockerfile:1
# The server's image. Targets: mlserver (black-box methods), mlserver-tensorflow (all methods), kserve.
#
#   docker build --target mlserver-tensorflow --build-arg PYTHON=python:3.11-slim-bookworm@sha256:... \
#     --build-arg REVISION="$(git rev-parse HEAD)" --tag explainer-runtime:0.1.0 .
#
# A build that is released names its base by digest, as above; the default is for trying things out.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY explainer_runtime explainer_runtime
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${PYTHON} AS base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="explainer-runtime" \
      org.opencontainers.image.description="Explanations of image classifiers, next to the model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The root is read-only in a cluster: what needs a home gets /tmp. In a container loopback would reach nobody.
ENV HOME=/tmp \
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

FROM base AS mlserver
USER 0:0
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "explainer-runtime[mlserver,superpixels] @ file:///wheels/explainer_runtime-${VERSION}-py3-none-any.whl"
# The name by which Seldon Core 1 asks for an explainer; see deploy/image.
COPY deploy/image /opt/image
ENV PYTHONPATH=/opt/image
USER 65532:65532

FROM base AS kserve
USER 0:0
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "explainer-runtime[kserve,superpixels] @ file:///wheels/explainer_runtime-${VERSION}-py3-none-any.whl"
ENV EXPLAINER_RUNTIME_SERVER=kserve
USER 65532:65532

FROM mlserver AS mlserver-tensorflow
USER 0:0
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "explainer-runtime[all] @ file:///wheels/explainer_runtime-${VERSION}-py3-none-any.whl"
USER 65532:65532

